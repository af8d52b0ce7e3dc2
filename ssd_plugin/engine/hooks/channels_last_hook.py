"""How a model's weights lie in memory, and with them all that its convolutions compute."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lay the model out with channels last, before training, validation or testing starts.

    Convolutions in half precision are made for it: on GPUs with tensor cores, and on CPUs with
    instructions for bfloat16. They pass the layout on from their weights to their outputs, so
    images and feature maps need no word about it. In float32 it may be slower: measure.

    Checkpoints and results do not depend on it.
    """

    def before_run(self, runner: Runner) -> None:
        """Change the layout in place; optimizer and checkpoints keep the same parameters."""
        runner.model.to(memory_format=torch.channels_last)
