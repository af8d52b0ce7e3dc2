"""Training stops at a non-finite loss, and writes no checkpoint of non-finite weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from ssd_plugin.datasets.faults import image_name
from ssd_plugin.errors import NonFiniteLossError

NEVER = 2**62  # an iteration that no run reaches


class Batch(NamedTuple):
    """What is kept of an iteration, for the message."""

    images: list[str]
    losses: dict[str, Tensor | float]  # scalars


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop at a loss or a weight that is NaN or infinite, before a checkpoint of it is saved.

    1. After each iteration, note on the device whether its loss is the first non-finite one,
       without synchronising with the device. Keep the names of the batch's images.
    2. Every ``interval`` iterations, at the end of each epoch, before each validation and before
       each checkpoint: read the note and check the weights, which can become non-finite after a
       finite loss. All ranks do this together, so they stop together.
    3. Right before a checkpoint is written, check again, on the rank that writes it: something
       else than a ``CheckpointHook`` may have asked for it, a signal for example.

    A non-finite gradient is no reason to stop: a loss scaler skips its step.

    Args:
        interval: Iterations between checks.

    Raises:
        NonFiniteLossError: By the hook's methods, on all ranks, in step 3 on one. It names the
            iteration, the losses, the images of the batch on the ranks with a non-finite loss, and
            the last checkpoint before.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._first: Tensor | None = None  # () int64: the first non-finite iteration, or NEVER
        self._batches: dict[int, Batch] = {}  # since the last check, by iteration, from 1
        self._checkpoint: str | None = None  # the last one that has been written
        self._newest: str | None = None  # the last one that a CheckpointHook has announced

    def before_train(self, runner: Runner) -> None:
        """Forget an earlier run; note the checkpoint that this one starts from."""
        self._first = None
        self._batches.clear()
        self._checkpoint = runner._load_from if runner._resume else None
        self._newest = runner.message_hub.runtime_info.get('last_ckpt')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Note the iteration, and check if it is time to.

        ``outputs`` are the scalars that a model's ``train_step`` returns, ``loss`` their sum.
        """
        newest = runner.message_hub.runtime_info.get('last_ckpt')
        if newest != self._newest:  # announced in an earlier iteration, so it is written by now
            self._newest = self._checkpoint = newest
        losses = {name: value.detach() for name, value in (outputs or {}).items()}
        number, loss = runner.iter + 1, losses['loss']
        self._batches[number] = Batch([image_name(s) for s in data_batch['data_samples']], losses)
        if self._first is None:
            self._first = torch.full((), NEVER, dtype=torch.long, device=loss.device)
        is_first = (self._first == NEVER) & ~loss.isfinite()
        self._first = torch.where(is_first, number, self._first)
        if self.every_n_train_iters(runner, self.interval) or checkpoint_is_due(runner):
            self._check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check, before a checkpoint of the epoch."""
        self._check(runner)

    def before_val(self, runner: Runner) -> None:
        """Check: validating NaN weights takes as long as any, and may save a best checkpoint."""
        self._check(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check, on the only rank that saves."""
        if self._first is None:
            return
        first = int(self._first)
        if first != NEVER:
            raise self._loss_error(first, [self._batch(first)])
        if not weights_are_finite(runner.model):
            raise self._weights_error(runner)

    def _check(self, runner: Runner) -> None:
        """Stop on all ranks if the loss or the weights of one are not finite."""
        if self._first is None:
            return
        found = torch.stack([self._first, weights_are_finite(runner.model).long()])
        all_reduce(found, 'min')
        first, weights = found.tolist()
        if first != NEVER:
            batches = all_gather_object(self._batch(first) if int(self._first) == first else None)
            raise self._loss_error(first, [batch for batch in batches if batch])
        if not weights:
            raise self._weights_error(runner)
        self._batches.clear()

    def _batch(self, number: int) -> Batch:
        images, losses = self._batches[number]
        return Batch(images, {name: float(value) for name, value in losses.items()})

    def _loss_error(self, number: int, batches: Sequence[Batch]) -> NonFiniteLossError:
        losses = ', '.join(f'{name} {value:.4g}' for name, value in batches[0].losses.items())
        images = ', '.join(chain.from_iterable(batch.images for batch in batches))
        return self._error(number, f'the loss is not finite ({losses}) for the images {images}')

    def _weights_error(self, runner: Runner) -> NonFiniteLossError:
        tensors = chain(runner.model.named_parameters(), runner.model.named_buffers())
        names = [name for name, value in tensors if not value.isfinite().all()]
        where = names[0] if names else 'other ranks'  # where each has a part of the weights
        problem = (
            f'the weights are not finite ({where}), though no loss since the last check says why'
        )
        return self._error(runner.iter + 1, problem)

    def _error(self, number: int, problem: str) -> NonFiniteLossError:
        advice = 'no checkpoint was saved before;'
        if self._checkpoint is not None:
            resume = 'go on from it with --resume and a'
            advice = f'the last checkpoint before is {self._checkpoint}: {resume}'
        lower = 'lower optim_wrapper.optimizer.lr'
        return NonFiniteLossError(f'iteration {number}: {problem}; {advice} {lower}')


def checkpoint_is_due(runner: Runner) -> bool:
    """Whether a ``CheckpointHook`` that counts iterations will save one after this iteration."""
    return any(
        hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
        or (hook.save_last and hook.is_last_train_iter(runner))
        for hook in runner.hooks
        if isinstance(hook, CheckpointHook) and not hook.by_epoch
    )


@torch.no_grad()
def weights_are_finite(model: nn.Module) -> Tensor:
    """Whether all parameters and buffers are finite, of a sharded model this rank's: () bool."""
    tensors = chain(model.parameters(), model.buffers())
    # NaN is both minimum and maximum; isfinite() on each tensor takes ten times as long.
    # In float32 for PyTorch 2.1, which has no aminmax of float16 on a CPU.
    extremes = [t.float().aminmax() for t in tensors if t.is_floating_point() and t.numel()]
    return torch.stack([value for pair in extremes for value in pair]).isfinite().all()
