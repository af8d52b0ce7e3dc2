"""Priors addressed in the maps of all levels: the same values as in one flat tensor."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_plugin.models.level_maps import flatten_levels, map_levels, select_levels, stack_levels
from tests.support.helpers import TINY, to_flat, to_levels

PRIORS = 368
formats = pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])


def maps_of(flat, memory=torch.contiguous_format):
    return [level.contiguous(memory_format=memory) for level in to_levels(flat, TINY)]


def random_flat(batch=2, channels=5, seed=0):
    return torch.randn(batch, PRIORS, channels, generator=torch.Generator().manual_seed(seed))


@formats
def test_flattening_puts_the_priors_of_a_cell_side_by_side(memory):
    flat = random_flat()
    assert torch.equal(flatten_levels(maps_of(flat, memory), 5), flat)
    assert torch.equal(to_flat(maps_of(flat, memory), 5), flat)


@formats
def test_stacking_puts_each_channel_of_all_priors_side_by_side(memory):
    flat = random_flat().requires_grad_()
    stack = stack_levels(maps_of(flat, memory), 5)
    assert torch.equal(stack, flat.mT)
    assert stack.is_contiguous()
    weights = random_flat(seed=1)
    grad = torch.autograd.grad((stack * weights.mT).sum(), flat)[0]
    assert torch.equal(grad, weights)


@formats
@pytest.mark.parametrize('channels', [1, 2, 5])
def test_a_number_of_each_prior_is_at_the_priors_place(memory, channels):
    flat = random_flat(3, channels)
    softmax_of_last = map_levels(maps_of(flat, memory), channels, lambda x: x.softmax(1)[:, -1])
    torch.testing.assert_close(softmax_of_last, flat.softmax(-1)[..., -1])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0, 0.01, 0.5, 1]))
def test_chosen_priors_come_with_their_own_channels_and_gradients(seed, share):
    flat = random_flat(seed=seed).requires_grad_()
    chosen = torch.rand(2, PRIORS, generator=torch.Generator().manual_seed(seed)) < share
    for memory in (torch.contiguous_format, torch.channels_last):
        rows, image, prior = select_levels(chosen, maps_of(flat, memory), 5)
        assert rows.shape == (chosen.sum(), 5)
        places = torch.zeros(2, PRIORS, dtype=torch.int64)
        places.index_put_((image, prior), torch.tensor(1), accumulate=True)
        assert torch.equal(places, chosen.long()), 'each one once, and no other'
        assert torch.equal(rows, flat[image, prior])
        grad = torch.autograd.grad((rows**2).sum(), flat)[0]
        assert torch.equal(grad, 2 * flat * chosen.unsqueeze(-1))


@formats
def test_the_gradient_of_a_map_lies_in_memory_as_the_map_does(memory):
    """A convolution's backward pass would copy it otherwise."""
    level = torch.randn(2, 6 * 5, 4, 4).contiguous(memory_format=memory).requires_grad_()
    seen = []
    product = level * 1
    product.register_hook(lambda grad: seen.append(grad.is_contiguous(memory_format=memory)))
    select_levels(torch.ones(2, 6 * 16, dtype=torch.bool), [product], 5)[0].sum().backward()
    assert seen == [True]


def test_half_precision_maps_give_float32():
    maps = [level.bfloat16() for level in maps_of(random_flat())]
    everything = torch.ones(2, PRIORS, dtype=torch.bool)
    assert flatten_levels(maps, 5).dtype == torch.float32
    assert stack_levels(maps, 5).dtype == torch.float32
    assert select_levels(everything, maps, 5)[0].dtype == torch.float32
    assert map_levels(maps, 5, lambda x: x.sum(1)).dtype == torch.float32
