"""Convolutions on a CPU whose weights are laid out once, and not for each image."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn


class PackedConv2d(nn.Conv2d):
    """A convolution to detect with, whose weights have the order in which oneDNN computes.

    PyTorch's own has oneDNN bring the weights into that order in each call: a third of the time of
    SSDLite's network. The order depends on the input, and is that for the first one; others have
    the same result. The operations are those of the code that `torch.compile` makes for a CPU.
    Input is float32.
    """

    packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, out_channels, H', W') of a map (B, in_channels, H, W)."""
        settings = [*self.padding], [*self.stride], [*self.dilation], self.groups
        if self.packed is None:
            pack: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            self.packed = pack(self.weight.detach().to_mkldnn(), *settings, [*x.shape])
        convolve = torch.ops.mkldnn._convolution_pointwise
        return convolve(x, self.packed, self.bias, *settings, 'none', [], '')


def pack_convolutions(model: nn.Module) -> None:
    """Have the plain convolutions of a model lay out their weights once, in place.

    To detect in float32 on an x86 CPU. On others, and where PyTorch has no oneDNN or not these
    operations, which it doesn't promise to keep, the model stays as it is.
    """
    if not can_pack():
        return
    for module in model.modules():
        is_plain = type(module) is nn.Conv2d  # of a subclass nobody knows what it computes
        if is_plain and module.padding_mode == 'zeros' and isinstance(module.padding, tuple):
            module.__class__ = PackedConv2d


def can_pack() -> bool:
    """Whether this machine and this PyTorch have what `PackedConv2d` needs."""
    return (
        platform.machine() in ('x86_64', 'AMD64')
        and torch.backends.mkldnn.is_available()
        and hasattr(torch._C._nn, 'mkldnn_reorder_conv2d_weight')
        and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
    )
