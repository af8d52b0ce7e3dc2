"""The memory layout of a model's weights, which its feature maps follow."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lay the model out with channels last, before training, validation or testing starts.

    It is faster for convolutions in half precision, on GPUs with tensor cores and on CPUs with
    instructions for bfloat16. In float32 it may be slower: measure. Convolutions pass the layout
    on from their weights to their outputs, so images and feature maps need no conversion.

    Checkpoints and results do not depend on it.
    """

    def before_run(self, runner: Runner) -> None:
        """Change the layout in place; optimizer and checkpoints keep the same parameters."""
        runner.model.to(memory_format=torch.channels_last)
