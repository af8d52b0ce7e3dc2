"""Batch normalisation as a part of the convolutions before it, which saves its time."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norm(model: nn.Module) -> None:
    """Fold batch normalisation into convolutions, in place, in a model in evaluation mode.

    Folded is a layer that its module registers right after a convolution, as MMCV's
    ``fuse_conv_bn`` has it. Against that one, an activation within the layer stays (timm's
    ``BatchNormAct2d``), a convolution that modules share is folded for each, and what is no plain
    convolution, or is looked at by a hook, is left alone.
    """
    previous: tuple[str, nn.Module] | None = None
    for name, child in list(model.named_children()):
        if previous and is_plain_convolution(previous[1]) and is_fixed_norm(child):
            setattr(model, previous[0], folded(previous[1], child))
            setattr(model, name, getattr(child, 'act', nn.Identity()))
        else:
            fold_batch_norm(child)
        previous = name, child


def is_plain_convolution(module: nn.Module) -> bool:
    """Whether a module is a convolution and nothing else, whose output no hook takes."""
    return isinstance(module, nn.Conv2d) and not [*module.children(), *module._forward_hooks]


def is_fixed_norm(module: nn.Module) -> bool:
    """Whether a module is batch normalisation with fixed statistics, which no hook looks at."""
    hooks = [*module._forward_hooks, *module._forward_pre_hooks]
    return isinstance(module, _BatchNorm) and module.running_mean is not None and not hooks


def folded(conv: Any, norm: Any) -> nn.Module:
    """A copy of a convolution with other weights.

    PyTorch's ``fuse_conv_bn_eval`` copies its hooks, too: timm's, which collect the maps of a
    backbone, would collect them elsewhere.
    """
    copied = copy.copy(conv)
    copied._parameters = dict(conv._parameters)
    statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    copied.weight, copied.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
    return copied
