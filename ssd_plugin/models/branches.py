"""The convolutions of SSD's head."""

from __future__ import annotations

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from torch import nn


def make_branch(
    in_channels: int,
    out_channels: int,
    stacked_convs: int,
    feat_channels: int,
    use_depthwise: bool,
    layers: dict,
) -> nn.Sequential:
    """The convolutions of one branch of one level, laid out as MMDetection's ``SSDHead`` has them.

    Args:
        in_channels: Channels of the feature map.
        out_channels: Channels of the output.
        stacked_convs: Number of convolutions before the last one.
        feat_channels: Their channels.
        use_depthwise: Whether they, and the last one, are depthwise separable.
        layers: ``conv_cfg``, ``norm_cfg`` and ``act_cfg`` of all but the last convolution.
    """
    conv = DepthwiseSeparableConvModule if use_depthwise else ConvModule
    modules = []
    for _ in range(stacked_convs):
        modules.append(conv(in_channels, feat_channels, 3, padding=1, **layers))
        in_channels = feat_channels
    if use_depthwise:
        modules.append(
            ConvModule(in_channels, in_channels, 3, padding=1, groups=in_channels, **layers)
        )
    kernel = 1 if use_depthwise else 3
    modules.append(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2))
    return nn.Sequential(*modules)
