"""How an optimizer steps: few groups of parameters, and mixed precision on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergingOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Merges optimizer parameter groups that share their settings.

    With ``paramwise_cfg`` MMEngine gives each parameter a group of its own, and an optimizer
    updates one group after another: SSD300-VGG has 71, with two kinds of settings. What is learnt
    is the same. A training checkpoint can only be resumed with the constructor that made it.
    """

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any
    ) -> None:
        """Add a module's parameters to the groups, in place; merge them when all are there."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if not prefix:  # MMEngine's method calls itself for the module's parts
            params[:] = merge_groups(params)


def merge_groups(groups: list[dict]) -> list[dict]:
    """One group for all ``params`` whose other settings are equal, in order of appearance."""
    merged: list[dict] = []
    for group in groups:
        settings = {name: value for name, value in group.items() if name != 'params'}
        same = [m for m in merged if {k: v for k, v in m.items() if k != 'params'} == settings]
        if same:
            same[0]['params'] += group['params']
        else:
            merged.append(dict(group, params=list(group['params'])))
    return merged


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs the forward pass on the CPU in bfloat16.

    MMEngine's ``AmpOptimWrapper`` stops without an accelerator, since it is built around a loss
    scaler. bfloat16 needs none: it has the exponent range of float32, so small gradients don't
    vanish, as they would in float16; only precision is lost. Weights, gradients and the
    optimizer's state stay float32.

    Checkpoints are those of ``OptimWrapper`` and can be exchanged between all three wrappers: a
    loss scale in a checkpoint is dropped here, and ``AmpOptimWrapper`` starts with a fresh one
    where a checkpoint has none.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast to bfloat16 on the CPU, and accumulate gradients as ``OptimWrapper`` does."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the state of any of MMEngine's wrappers, without its loss scale."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != 'loss_scaler'})
