"""Batch normalisation with the same running statistics in all processes of a training run."""

from __future__ import annotations

from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import all_reduce_params, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@HOOKS.register_module()
class NormStatsHook(Hook):
    """Average the running means and variances of BatchNorm over processes, in each iteration.

    Each process normalises by its own batch and so has running statistics of its own. MMEngine
    leaves them different: an evaluation during training runs with different models on different
    images, and a checkpoint has only the first process's. MMEngine's ``SyncBuffersHook`` and
    MMDetection's ``SyncNormHook`` average right before an evaluation, which in loops that count
    iterations is after the checkpoint was written.

    A running statistic is a linear function of the batches' statistics, so averaging it in each
    iteration gives the average over the whole run. It costs one collective of two numbers a
    channel; nothing with one process, and with layers that are not in training.
    """

    priority = 'ABOVE_NORMAL'  # before the hooks that copy or save the model

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Average what this iteration has changed: running means and variances, each (C,)."""
        if get_world_size() == 1:
            return
        stats = [
            value
            for layer in runner.model.modules()
            # In a SyncBatchNorm they are the same already.
            if isinstance(layer, _NormBase) and not isinstance(layer, nn.SyncBatchNorm)
            if layer.training and layer.track_running_stats
            for value in (layer.running_mean, layer.running_var)
            if value is not None
        ]
        if stats:  # the same on all ranks
            all_reduce_params(stats, op='mean')
