"""MMEngine's training loops, able to start at any batch."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from ssd_plugin.engine.runner.data_order import (
    EndlessBatchSampler,
    ResumableDataLoader,
    SeededBatchSampler,
    seed_generators,
)


class _ResumableLoop(BaseLoop):
    """What both loops share.

    1. The order of the data, and their random numbers, follow from the run's seed and the position
       in the run.
    2. Before each iteration the global generators are seeded from the run's seed and the
       iteration, so that what a model draws needs no state in a checkpoint, on any rank and device.
    3. A validation that is due at the iteration where a run resumes is run, perhaps for the second
       time: checkpoints are written before it, and what it changed (the best score, a schedule) is
       lost when the run is killed.
    """

    batch_sampler_class: type[SeededBatchSampler]

    def __init__(
        self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any
    ) -> None:
        loader: Any = dataloader
        if isinstance(dataloader, dict):
            loader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=runner.diff_rank_seed
            )
        batches = self.batch_sampler_class(
            loader.batch_sampler, runner.data_seed, len(loader.dataset)
        )
        super().__init__(runner, ResumableDataLoader(loader, batches), *args, **kwargs)

    def run_iter(self, *args: Any) -> None:
        """One iteration, after seeding the generators for it."""
        seed = seed_generators(self.runner.seed, self._iter)
        torch.manual_seed(seed)  # of accelerators, too
        super().run_iter(*args)

    def _reseed(self) -> None:
        """Take the run's seed, which is the checkpoint's once one has been loaded."""
        self.dataloader.batch_sampler.reseed(self.runner.data_seed)

    def _validate_if_due(self, done: int, last: int) -> None:
        """Validate if it is time to after so many of the epochs or iterations."""
        self._decide_current_val_interval()
        due = done % self.val_interval == 0 or done == last
        if self.runner.val_loop is not None and due and done >= max(self.val_begin, 1):
            self.runner.val_loop.run()


@LOOPS.register_module()
class ResumableEpochLoop(_ResumableLoop, EpochBasedTrainLoop):
    """MMEngine's ``EpochBasedTrainLoop``, which can also resume within an epoch.

    The message hub, which is part of a checkpoint, knows how many batches of the epoch are done,
    and of how many. If an epoch now has another number of batches (other data, batch size or
    number of processes), the position has no equivalent, and the epoch starts again.
    """

    batch_sampler_class = SeededBatchSampler

    def run(self) -> torch.nn.Module:
        """Train from the current position to the end."""
        self.runner.call_hook('before_train')
        self._reseed()
        if not self._first_batch():
            self._validate_if_due(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due(self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train on the remaining batches of an epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = self._first_batch()
        self.dataloader.batch_sampler.go_to(self._epoch, first)
        for idx, data_batch in enumerate(self.dataloader, first):
            self._note_progress(idx + 1)  # before the iteration, whose hooks write checkpoints
            self.run_iter(idx, data_batch)
        self._note_progress(0)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _note_progress(self, batches_done: int) -> None:
        hub = self.runner.message_hub
        hub.update_info_dict(dict(batches_done=batches_done, num_batches=len(self.dataloader)))

    def _first_batch(self) -> int:
        return self.runner.message_hub.runtime_info.get('batches_done', 0)

    def fit_position(self) -> None:
        """Go to the start of the checkpoint's epoch if epochs now have another length."""
        before = self.runner.message_hub.runtime_info.get('num_batches')
        if before in (None, len(self.dataloader)):
            return
        if self._first_batch():
            self.runner.logger.warning(
                f'An epoch had {before} batches when the checkpoint was written, and has '
                f'{len(self.dataloader)} now: epoch {self._epoch + 1} begins anew'
            )
        self._note_progress(0)
        self._iter = self._epoch * len(self.dataloader)


@LOOPS.register_module()
class ResumableIterLoop(_ResumableLoop, IterBasedTrainLoop):
    """MMEngine's ``IterBasedTrainLoop``, which resumes without loading the data trained on."""

    batch_sampler_class = EndlessBatchSampler

    def run(self) -> torch.nn.Module:
        """Train from the current position to the end."""
        runner = self.runner
        runner.call_hook('before_train')
        self._reseed()
        self._validate_if_due(self._iter, self._max_iters)
        runner.call_hook('before_train_epoch')  # the whole run counts as one epoch
        self.dataloader.batch_sampler.go_to(0, self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate_if_due(self._iter, self._max_iters)
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model


RESUMABLE: dict[type, type] = {
    EpochBasedTrainLoop: ResumableEpochLoop,
    IterBasedTrainLoop: ResumableIterLoop,
}


def resumable_loop(loop: dict) -> dict:
    """A training loop's config, with the resumable loop where MMEngine's is named."""
    loop = dict(loop)
    if 'by_epoch' in loop:  # MMEngine's short form
        loop['type'] = EpochBasedTrainLoop if loop.pop('by_epoch') else IterBasedTrainLoop
    kind = loop.get('type')
    found = LOOPS.get(kind) if isinstance(kind, str) else kind
    return dict(loop, type=RESUMABLE[found]) if found in RESUMABLE else loop
