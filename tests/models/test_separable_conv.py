"""Depthwise separable convolutions, against dense ones, and in MMDetection's FPN."""

import pytest
import torch
from mmcv.cnn import build_conv_layer
from mmdet.registry import MODELS
from torch import nn

SEPARABLE = dict(type='DepthwiseSeparableConv2d')


@pytest.mark.parametrize('options', [{}, dict(stride=2), dict(dilation=2, bias=False)])
def test_it_is_a_dense_convolution_of_rank_one_kernels(options):
    torch.manual_seed(0)
    layer = build_conv_layer(SEPARABLE, 4, 6, 3, padding=1, **options)
    dense = nn.Conv2d(4, 6, 3, padding=1, **options)
    each, mix = layer.weight[:, 0], layer.pointwise.weight[:, :, 0, 0]  # (4, 3, 3), (6, 4)
    dense.weight.data = mix[:, :, None, None] * each
    if dense.bias is not None:
        dense.bias.data = layer.pointwise.bias.data
    image = torch.rand(2, 4, 9, 7)
    torch.testing.assert_close(layer(image), dense(image))


def test_a_convolution_of_one_pixel_is_an_ordinary_one():
    layer = build_conv_layer(SEPARABLE, 4, 6, 1)
    assert [tuple(p.shape) for p in layer.parameters()] == [(6, 4, 1, 1), (6,)]


def test_groups_of_its_own_are_refused():
    with pytest.raises(ValueError, match='got 2'):
        build_conv_layer(SEPARABLE, 4, 6, 3, groups=2)


def test_mmdetection_s_fpn_of_it_mixes_channels_in_convolutions_of_one_pixel_only():
    settings = dict(in_channels=[4, 6], out_channels=8, num_outs=3, add_extra_convs='on_output')
    fpn = MODELS.build(dict(type='FPN', conv_cfg=SEPARABLE, norm_cfg=dict(type='BN'), **settings))
    fpn.init_weights()
    maps = fpn([torch.rand(2, 4, 16, 16), torch.rand(2, 6, 8, 8)])
    assert [tuple(level.shape) for level in maps] == [(2, 8, n, n) for n in (16, 8, 4)]
    convs = [m for m in fpn.modules() if isinstance(m, nn.Conv2d)]
    assert sum(conv.kernel_size == (3, 3) for conv in convs) == 3
    assert all((conv.groups == 1) == (conv.kernel_size == (1, 1)) for conv in convs)
    # ConvModule and its norm see as many channels as come out.
    assert {conv.conv.out_channels for conv in fpn.fpn_convs} == {8}
