"""Losses for the log, read from an accelerator only when a line of the log is due."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's ``RuntimeInfoHook``, which synchronises with an accelerator as rarely as it can.

    MMEngine's reads each loss in each iteration: that waits until the accelerator has finished,
    which then is idle until the next iteration's first operations arrive. This one keeps the
    losses on the device, and reads them all together when a ``LoggerHook`` is about to write a
    line, at the end of an epoch, before a validation and before ``ResumableRunner`` saves a
    checkpoint. Losses on a CPU are read at once. ``ResumableRunner`` has this hook by default.

    Every value reaches the message hub, in order; in between, the hub's history lacks the last
    iterations.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[str, Tensor]] = []  # name and scalar, in order

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Keep ``outputs``, scalars by name, and read them if it is time to."""
        for name, value in (outputs or {}).items():
            if isinstance(value, Tensor) and not value.is_cpu:
                self._unread.append((name, value.detach()))
            else:
                runner.message_hub.update_scalar(f'train/{name}', value)
        if log_is_due(runner, batch_idx):
            self.flush(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Read what is left."""
        self.flush(runner)

    def before_val(self, runner: Runner) -> None:
        """Read what is left: a validation may log, too."""
        self.flush(runner)
        super().before_val(runner)

    def flush(self, runner: Runner) -> None:
        """Read all losses that are kept, and hand them to the message hub."""
        if not self._unread:
            return
        values = torch.stack([value.float() for _, value in self._unread]).tolist()
        for (name, _), value in zip(self._unread, values, strict=True):
            runner.message_hub.update_scalar(f'train/{name}', value)
        self._unread.clear()


def log_is_due(runner: Runner, batch_idx: int) -> bool:
    """Whether a ``LoggerHook`` may write a line after this iteration."""
    return any(
        hook.every_n_inner_iters(batch_idx, hook.interval)
        or hook.end_of_epoch(runner.train_dataloader, batch_idx)
        for hook in runner.hooks
        if isinstance(hook, LoggerHook)
    )
