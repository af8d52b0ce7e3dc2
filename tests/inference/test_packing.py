"""Convolutions with packed weights compute what PyTorch's own do."""

import platform
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssd_plugin.inference import packing
from ssd_plugin.inference.folding import fold_batch_norm
from ssd_plugin.inference.packing import PackedConv2d, can_pack, pack_convolutions
from tests.support.config_rows import NAMES
from tests.support.exported import normalised_detector

X86 = platform.machine() in ('x86_64', 'AMD64')


@pytest.mark.skipif(not X86, reason='other CPUs convolve as PyTorch does')
def test_this_pytorch_has_the_operations():
    """It doesn't promise to keep them: if this fails, detecting is right, but slower."""
    assert can_pack()


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@settings(deadline=None, max_examples=60)
@given(
    groups=st.integers(1, 4), per_group=pairs(1, 5), kernel=pairs(1, 4), stride=pairs(1, 3),
    padding=pairs(0, 3), dilation=pairs(1, 2), bias=st.booleans(), sizes=st.lists(
        st.tuples(st.integers(1, 5), st.integers(7, 30), st.integers(7, 30)), min_size=2, max_size=3
    ), channels_last=st.booleans(),
)  # fmt: skip
@torch.no_grad()
def test_any_convolution_gives_the_same_for_images_of_any_size(
    groups, per_group, kernel, stride, padding, dilation, bias, sizes, channels_last
):
    torch.manual_seed(0)
    own = nn.Conv2d(
        groups * per_group[0], groups * per_group[1], kernel, stride, padding, dilation, groups,
        bias,
    )  # fmt: skip
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    own.to(memory_format=memory_format)
    packed = deepcopy(own)
    pack_convolutions(packed)
    assert isinstance(packed, PackedConv2d) is can_pack()
    for batch, height, width in sizes:
        image = torch.randn(batch, own.in_channels, height, width)
        image = image.contiguous(memory_format=memory_format)
        torch.testing.assert_close(packed(image), own(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_maps_of_every_config_stay_the_same(name):
    detector, size = normalised_detector(name)
    fold_batch_norm(detector)
    detector.to(memory_format=torch.channels_last)
    images = torch.randn(1, 3, *size[::-1])
    expected = detector(images, mode='tensor')
    keys = detector.state_dict().keys()
    pack_convolutions(detector)
    own = [m for m in detector.modules() if type(m) is nn.Conv2d]
    assert not own or not can_pack()
    for maps, packed in zip(expected, detector(images, mode='tensor'), strict=True):
        for level, ours in zip(maps, packed, strict=True):
            atol = 1e-5 * max(1, level.abs().max().item())
            torch.testing.assert_close(ours, level, rtol=0, atol=atol)
    assert detector.state_dict().keys() == keys


class Doubled(nn.Conv2d):
    """A subclass that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize('conv', [
    Doubled(3, 4, 3),
    nn.Conv2d(3, 4, 3, padding='same'),
    nn.Conv2d(3, 4, 3, padding=1, padding_mode='reflect'),
    nn.ConvTranspose2d(3, 4, 3),
])  # fmt: skip
@torch.no_grad()
def test_what_is_no_plain_convolution_is_left_alone(conv):
    image = torch.randn(2, 3, 9, 9)
    expected = conv(image)
    pack_convolutions(conv)
    assert torch.equal(conv(image), expected)


def test_where_it_can_not_be_done_a_model_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(packing.platform, 'machine', lambda: 'riscv64')
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    pack_convolutions(model)
    assert type(model[0]) is nn.Conv2d
