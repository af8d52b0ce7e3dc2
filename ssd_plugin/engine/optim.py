"""An optimizer with few groups of parameters, which takes less time to step."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
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
