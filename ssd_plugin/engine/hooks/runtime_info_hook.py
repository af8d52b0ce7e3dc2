"""Losses for the log, read off an accelerator only when a line of the log is due."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's ``RuntimeInfoHook``, which waits for an accelerator as rarely as it can.

    MMEngine's reads each loss in each iteration, for which the accelerator has to finish all that
    it was given; it then has nothing to do until the next iteration's first operations arrive.
    This one remembers the losses on the device. It reads them all together when a ``LoggerHook``
    is about to write a line, at the end of an epoch, before a validation and before
    ``ResumableRunner`` saves a checkpoint. On a CPU, where nothing waits, it reads them at once.

    Every number gets to the message hub, and in order; in between, the hub's history is short of
    the last iterations.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[str, Tensor]] = []  # name and scalar, in order

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Remember ``outputs``, scalars by name, and read them if it is time to."""
        for name, value in (outputs or {}).items():
            if isinstance(value, Tensor) and value.device.type != 'cpu':
                self._waiting.append((name, value.detach()))
            else:
                runner.message_hub.update_scalar(f'train/{name}', value)
        if log_is_due(runner, batch_idx):
            self.flush(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Read what is left."""
        self.flush(runner)

    def before_val(self, runner: Runner) -> None:
        """Read what is left: validation may log, too."""
        self.flush(runner)
        super().before_val(runner)

    def flush(self, runner: Runner) -> None:
        """Read all that is remembered, and hand it to the message hub."""
        if not self._waiting:
            return
        values = torch.stack([value.float() for _, value in self._waiting]).tolist()
        for (name, _), value in zip(self._waiting, values, strict=True):
            runner.message_hub.update_scalar(f'train/{name}', value)
        self._waiting.clear()


def log_is_due(runner: Runner, batch_idx: int) -> bool:
    """Whether a ``LoggerHook`` may write a line after this iteration."""
    return any(
        hook.every_n_inner_iters(batch_idx, hook.interval)
        or hook.end_of_epoch(runner.train_dataloader, batch_idx)
        for hook in runner.hooks
        if isinstance(hook, LoggerHook)
    )
