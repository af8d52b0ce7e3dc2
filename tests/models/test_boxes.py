"""Overlaps are the naive formula's, and deltas those of MMDetection's coder, to the last bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, LegacyDeltaXYWHBBoxCoder
from mmdet.structures.bbox import bbox_overlaps

from ssd_plugin.models.boxes import (
    iof,
    iou,
    is_valid_box,
    valid_gt_mask,
    without_synchronisation,
)
from tests.support.helpers import INF, NAN, area, intersection, model_priors
from tests.support.helpers import iou as naive_iou

examples = settings(deadline=None, max_examples=80)

corner, side = st.integers(-5, 20), st.integers(0, 12)
boxes = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corner, corner, side, side)


@examples
@given(
    images=st.lists(st.lists(boxes, min_size=3, max_size=3), min_size=1, max_size=3),
    priors=st.lists(boxes, min_size=1, max_size=4),
)
def test_overlaps_are_intersection_over_union_and_over_the_prior(images, priors):
    inputs = torch.tensor(images).float().unsqueeze(2), torch.tensor(priors).float()
    before = [tensor.clone() for tensor in inputs]
    for overlaps, naive in (
        (iou(*inputs), naive_iou),
        (iof(*inputs), lambda g, p: intersection(g, p) / max(area(p), 1e-6)),
    ):
        expected = [[[float(naive(g, p)) for p in priors] for g in image] for image in images]
        torch.testing.assert_close(overlaps, torch.tensor(expected), rtol=1e-6, atol=0)
    assert all(map(torch.equal, inputs, before))


def test_overlaps_are_mmdetection_s_to_the_last_bit():
    """So that a threshold falls on the same side of them."""
    priors = torch.cat(model_priors('SSD512 COCO'))
    generator = torch.Generator().manual_seed(1)
    gt_bboxes = torch.rand(2, 20, 4, generator=generator) * 400
    gt_bboxes[..., 2:] = gt_bboxes[..., :2] + gt_bboxes[..., 2:] / 2
    theirs = bbox_overlaps(gt_bboxes, priors.expand(2, -1, -1))
    assert torch.equal(iou(gt_bboxes.unsqueeze(2), priors), theirs)
    pairs = gt_bboxes, priors[: gt_bboxes.shape[1]].expand_as(gt_bboxes)
    assert torch.equal(iou(*pairs), bbox_overlaps(*pairs, is_aligned=True))


@pytest.mark.parametrize(
    ('box', 'valid', 'trainable'),
    [
        ([1, 2, 3, 4], True, True),
        ([0, 0, 1e-6, 1e-6], True, True),
        ([0, 0, 9e-7, 1], False, False),
        ([0, 0, 1, 0], False, False),
        ([3, 3, 1, 4], False, False),
        ([0, 0, 1e6, 1], True, True),
        ([0, 0, 1, 1.1e6], False, False),
        ([0, 0, INF, 1], False, False),
        ([-INF, 0, INF, 1], False, False),
        ([NAN, 0, 1, 1], False, False),
        ([-5, -5, 0, 5], True, False),  # touches the left border, from outside
        ([-5, -5, 5, 0], True, False),
        ([20, 0, 25, 5], True, False),
        ([0, 10, 5, 15], True, False),
        ([19.5, 9.5, 25, 15], True, True),
        ([-5, -5, 0.5, 0.5], True, True),
    ],
)
def test_a_box_can_be_trained_on_if_it_is_valid_and_touches_the_image(box, valid, trainable):
    """The image is 10 pixels high and 20 wide."""
    box = torch.tensor([box])
    assert is_valid_box(box).tolist() == [valid]
    assert valid_gt_mask(box, (10, 20)).tolist() == [trainable]
    assert valid_gt_mask(box, torch.tensor([[10], [20]])).tolist() == [trainable]


CODERS = {
    "SSD's": DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2)),
    'with means': DeltaXYWHBBoxCoder((0.5, -0.25, 0.1, 3.0), (0.3, 0.1, 0.2, 0.7)),
    'clamped centres': DeltaXYWHBBoxCoder(add_ctr_clamp=True, ctr_clamp=4),
    'another': LegacyDeltaXYWHBBoxCoder(),
}


def random_boxes(count, generator):
    corner = torch.rand(count, 2, generator=generator) * 200 - 50
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 150 + 0.01], 1)


@pytest.mark.parametrize('coder', CODERS.values(), ids=CODERS)
@examples
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 20),
    spread=st.sampled_from([1.0, 30.0]),
    special=st.sampled_from([0.0, NAN, INF, -INF]),
)
def test_encoding_decoding_and_its_gradient_are_the_coder_s(coder, seed, count, spread, special):
    """Also of deltas that are not finite."""
    ours = without_synchronisation(coder)
    generator = torch.Generator().manual_seed(seed)
    priors, bboxes = random_boxes(count, generator), random_boxes(count, generator)
    deltas = torch.randn(count, 4, generator=generator) * spread
    deltas[deltas > 1.5 * spread] = special
    assert torch.equal(ours.encode(priors, bboxes), coder.encode(priors, bboxes))
    deltas.requires_grad_()
    weights = torch.randn(count, 4, generator=generator)
    found, expected = (one.decode(priors, deltas) for one in (ours, coder))
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    found, expected = (
        torch.autograd.grad((boxes * weights).sum(), deltas)[0] for boxes in (found, expected)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
