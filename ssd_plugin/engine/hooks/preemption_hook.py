"""SIGTERM, by which machines are taken away: save a checkpoint and end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

FILE_NAME = 'preempted.pth'
RANKS_AGREE_EVERY = 10  # iterations: agreeing costs a collective


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM, end the iteration, save ``preempted.pth`` and leave with exit code 0.

    ``--resume`` goes on from there. In a validation it leaves after the batch, and the validation
    is made again. With accumulated gradients, which no checkpoint has, it waits for the update.

    Several processes leave after the same iteration: they ask each other every tenth. They don't
    in a validation, of which they may have different numbers of batches.
    """

    priority = 'LOWEST'  # after all that changes the state of the run

    def __init__(self) -> None:
        self.told = False
        self._handler_before = None
        self._process = os.getpid()

    def before_train(self, runner: Runner) -> None:
        """Listen, if this is the thread that signals reach."""
        if threading.current_thread() is threading.main_thread():
            self._handler_before = signal.signal(signal.SIGTERM, self._listen)

    def after_train(self, runner: Runner) -> None:
        """Have SIGTERM end the process again."""
        if self._handler_before is not None:
            signal.signal(signal.SIGTERM, self._handler_before)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Leave if told to."""
        accumulates = isinstance(runner.optim_wrapper, OptimWrapper)
        if accumulates and not runner.optim_wrapper.should_update():
            return
        if self._any_is_told(runner.iter):
            self._leave(runner, runner.iter + 1)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Leave if told to, in a validation during training."""
        if self._handler_before is None or get_world_size() > 1 or not self.told:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):  # it has lent the model its weights
                hook.after_val_epoch(runner)
        self._leave(runner, runner.iter)

    def _listen(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            self.told = True
        else:  # told while being forked
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def _any_is_told(self, iteration: int) -> bool:
        """Whether a rank was; the same answer on all."""
        if get_world_size() == 1:
            return self.told
        if (iteration + 1) % RANKS_AGREE_EVERY:
            return False
        told = torch.tensor(int(self.told))
        all_reduce(told, 'max')
        return bool(told)

    def _leave(self, runner: Runner, num_iters: int) -> None:
        runner.save_now(FILE_NAME, num_iters)
        runner.logger.info(f'SIGTERM: saved {FILE_NAME} at iteration {num_iters}; --resume goes on')
        sys.exit(0)


def _end_forks_on_sigterm() -> None:
    """Give a process forked from a listening one, as an evaluation's pool is, the usual answer.

    Not left to `_listen`: Python calls it only once the process is no longer waiting for a lock.
    """
    if isinstance(getattr(signal.getsignal(signal.SIGTERM), '__self__', None), PreemptionHook):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_end_forks_on_sigterm)
