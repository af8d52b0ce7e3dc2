"""Boxes to offsets and back: to the bit what MMDetection's coder answers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, LegacyDeltaXYWHBBoxCoder

from ssd_plugin.models.offsets import decode, encode

examples = settings(deadline=None, max_examples=60)
CODERS = {
    "SSD's": DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2)),
    'with means': DeltaXYWHBBoxCoder((0.5, -0.25, 0.1, 3.0), (0.3, 0.1, 0.2, 0.7)),
    'clamped centres': DeltaXYWHBBoxCoder(add_ctr_clamp=True, ctr_clamp=4),
    'another': LegacyDeltaXYWHBBoxCoder(),
}
coders = pytest.mark.parametrize('coder', CODERS.values(), ids=CODERS)


def random_boxes(count, generator):
    corner = torch.rand(count, 2, generator=generator) * 200 - 50
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 150 + 0.01], 1)


@coders
@examples
@given(seed=st.integers(0, 10**6), count=st.integers(0, 20), spread=st.sampled_from([1.0, 30.0]))
def test_encoding_and_decoding_are_the_coders(coder, seed, count, spread):
    generator = torch.Generator().manual_seed(seed)
    priors, bboxes = random_boxes(count, generator), random_boxes(count, generator)
    offsets = torch.randn(count, 4, generator=generator) * spread
    assert torch.equal(encode(coder, priors, bboxes), coder.encode(priors, bboxes))
    assert torch.equal(decode(coder, priors, offsets), coder.decode(priors, offsets))


@coders
def test_gradients_are_the_coders(coder):
    generator = torch.Generator().manual_seed(0)
    priors = random_boxes(9, generator)
    offsets = (torch.randn(9, 4, generator=generator) * 8).requires_grad_()
    weights = torch.randn(9, 4, generator=generator)
    expected, found = (
        torch.autograd.grad((boxes * weights).sum(), offsets)[0]
        for boxes in (coder.decode(priors, offsets), decode(coder, priors, offsets))
    )
    torch.testing.assert_close(found, expected)


def test_what_is_no_number_stays_none():
    priors = torch.tensor([[0.0, 0, 10, 10]]).expand(3, 4)
    offsets = torch.zeros(3, 4)
    offsets[0, 0], offsets[1, 2], offsets[2, 3] = torch.nan, torch.nan, torch.inf
    coder = CODERS["SSD's"]
    found, expected = decode(coder, priors, offsets), coder.decode(priors, offsets)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found.isnan().any(1).tolist() == [True, True, False]
