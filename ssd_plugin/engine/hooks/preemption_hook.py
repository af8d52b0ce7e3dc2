"""On SIGTERM, which clusters send before they take a machine away: save a checkpoint and end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

FILE_NAME = 'preempted.pth'
RANKS_AGREE_EVERY = 10  # iterations: it takes a collective


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM, finish the iteration, save ``preempted.pth`` and exit with code 0.

    ``--resume`` goes on from there. During a validation the process exits after the current batch,
    and the validation is repeated on resuming. With accumulated gradients, which no checkpoint
    has, it waits for the update.

    Several processes exit after the same iteration: every tenth iteration they tell each other.
    During a validation they don't, since they may have different numbers of batches.
    """

    priority = 'LOWEST'  # after every hook that changes the state of the run

    def __init__(self) -> None:
        self.preempted = False
        self._handler_before: Any = None  # of SIGTERM
        self._process = os.getpid()

    def before_train(self, runner: Runner) -> None:
        """Handle the signal, if this is the thread that signals reach."""
        if threading.current_thread() is threading.main_thread():
            self._handler_before = signal.signal(signal.SIGTERM, self._handle)

    def after_train(self, runner: Runner) -> None:
        """Have SIGTERM end the process again."""
        if self._handler_before is not None:
            signal.signal(signal.SIGTERM, self._handler_before)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Save and exit if the signal has come."""
        accumulates = isinstance(runner.optim_wrapper, OptimWrapper)
        if accumulates and not runner.optim_wrapper.should_update():
            return
        if self._any_rank_is_preempted(runner.iter):
            self._save_and_exit(runner, runner.iter + 1)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and exit if the signal has come in a validation during training."""
        if self._handler_before is None or get_world_size() > 1 or not self.preempted:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):  # for the validation, the model has its averaged weights
                hook.after_val_epoch(runner)
        self._save_and_exit(runner, runner.iter)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            self.preempted = True
        else:  # in a process that was just forked from the training process
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def _any_rank_is_preempted(self, iteration: int) -> bool:
        """Whether the signal has come on some rank; the same answer on all."""
        if get_world_size() == 1:
            return self.preempted
        if (iteration + 1) % RANKS_AGREE_EVERY:
            return False
        preempted = torch.tensor(int(self.preempted))
        all_reduce(preempted, 'max')
        return bool(preempted)

    def _save_and_exit(self, runner: Runner, num_iters: int) -> None:
        runner.save_now(FILE_NAME, num_iters)
        runner.logger.warning(
            f'SIGTERM: saved {FILE_NAME} at iteration {num_iters}; --resume goes on'
        )
        sys.exit(0)


def _end_forks_on_sigterm() -> None:
    """Have SIGTERM end a process that was forked from the training process, such as a pool's.

    Not left to `_handle`: Python calls it only once the process is no longer waiting for a lock.
    """
    if isinstance(getattr(signal.getsignal(signal.SIGTERM), '__self__', None), PreemptionHook):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_end_forks_on_sigterm)
