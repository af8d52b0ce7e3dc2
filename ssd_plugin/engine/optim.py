"""As few groups of parameters as there are settings."""

from __future__ import annotations

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergingOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, which puts parameters of equal settings into one group.

    With ``paramwise_cfg`` MMEngine gives each parameter a group of its own, and an optimizer
    takes groups one after another: SSD300-VGG has 71, with two kinds of settings. What is learnt
    is the same. Checkpoints of training go with the constructor that made them.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Add a module's parameters to the groups, in place; merge them when all are there."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if not prefix:
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
