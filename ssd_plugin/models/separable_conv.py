"""A depthwise separable convolution that any ``conv_cfg`` can name, for light necks."""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.utils import _pair


@MODELS.register_module()
class DepthwiseSeparableConv2d(nn.Conv2d):
    """A convolution of each channel by itself, and then one of 1 x 1 (arXiv:1704.04861).

    ``conv_cfg=dict(type='DepthwiseSeparableConv2d')`` has MMDetection's FPN, for one, cost what it
    costs in SSD FPNLite. Nothing is between the two steps, as in Keras' ``SeparableConv2D``;
    normalisation and activation of the layer come after them. A convolution of 1 x 1 is an ordinary
    one.

    Args:
        in_channels: Channels of the map.
        out_channels: Channels of the output.
        kernel_size: Of the first step, a side or (h, w).
        groups: 1: the first step has one group for each channel.
        bias: Whether the output has a bias.
        options: ``stride``, ``padding``, ``dilation`` and so on of the first step.

    Raises:
        ValueError: If ``groups`` is not 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        groups: int = 1,
        bias: bool = True,
        **options: Any,
    ) -> None:
        if groups != 1:
            raise ValueError(f'DepthwiseSeparableConv2d has no groups of its own, got {groups}')
        if _pair(kernel_size) == (1, 1):
            super().__init__(in_channels, out_channels, kernel_size, bias=bias, **options)
            self.pointwise: nn.Module = nn.Identity()
        else:
            options.update(groups=in_channels, bias=False)
            super().__init__(in_channels, in_channels, kernel_size, **options)
            self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
            self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, out_channels, H', W') of a map (B, in_channels, H, W)."""
        return self.pointwise(super().forward(x))
