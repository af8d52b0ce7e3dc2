"""The samples of each batch and their random numbers: a function of seed and position alone."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, DataLoader


def seed_generators(*key: int) -> int:
    """Seed Python's, NumPy's and PyTorch's global generators (on the CPU) from numbers >= 0.

    Different numbers, even neighbouring ones, give unrelated states. Returns PyTorch's seed.
    """
    words = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    # Not torch.manual_seed: it also seeds accelerators, which no worker of a loader may touch.
    torch.default_generator.manual_seed(int(words[2]))
    return int(words[2])


@dataclass(frozen=True)
class SeededBatch:
    """Indices of a batch, as the sampler gave them, and for each the numbers to seed from.

    Iterating over them seeds the generators before each. A loader's worker iterates over them as
    it fetches the samples, so whatever a sample's pipeline draws from the global generators follows
    from the sample's key, not from the worker or from earlier samples. Afterwards the generators
    have their previous state again: without workers the training process loads the samples itself.
    """

    indices: tuple
    keys: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            for index, key in zip(self.indices, self.keys):
                seed_generators(*key)
                yield index
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


class SeededBatchSampler:
    """The batches of another batch sampler, each with the keys of its samples.

    A sample's key is (seed, epoch, pass, index). The pass counts how often an infinite sampler
    has gone through the data; for a finite one it is 0. (Where the data are no multiple of the
    number of ranks, the sampler repeats some samples: they are of pass 1.) So all ranks together
    draw for an image what one process would.

    ``batch_sampler`` is a ``DataLoader``'s: with ``sampler`` and ``batch_size``, yielding lists of
    indices. ``seed`` is the same on all ranks; ``num_samples`` is the length of the data set.
    """

    def __init__(self, batch_sampler: BatchSampler, seed: int, num_samples: int) -> None:
        self.batch_sampler = batch_sampler
        self.seed, self.num_samples = seed, num_samples
        self.sampler, self.batch_size = batch_sampler.sampler, batch_sampler.batch_size
        self.epoch = 0
        self._num_skipped = 0

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def go_to(self, epoch: int, batch: int) -> None:
        """Have the next iteration start with this batch (from 0) of this epoch.

        It skips indices only; no sample is loaded.
        """
        self.epoch, self._num_skipped = epoch, batch

    def reseed(self, seed: int) -> None:
        """Draw from another seed from the next iteration on, the sampler included."""
        self.seed = seed
        if hasattr(self.sampler, 'seed'):  # read by MMEngine's samplers when an iteration begins
            self.sampler.seed = seed

    def __iter__(self) -> Iterator[SeededBatch]:
        """One epoch's batches."""
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(self.epoch)
        seed_generators(self.seed, self.epoch)  # for samplers that draw from the global ones
        rank, world_size = get_dist_info()
        position = rank
        for indices in self.batch_sampler:
            places = range(position, position + len(indices) * world_size, world_size)
            position += len(indices) * world_size
            if self._num_skipped:
                self._num_skipped -= 1
                continue
            keys = [
                (self.seed, self.epoch, place // self.num_samples, index)
                for place, index in zip(places, indices)
            ]
            yield SeededBatch(tuple(indices), tuple(keys))
        self.epoch += 1


class EndlessBatchSampler(SeededBatchSampler):
    """A ``SeededBatchSampler`` that goes on with the next epoch, without end."""

    def __iter__(self) -> Iterator[SeededBatch]:
        """All batches from the current position on, without end."""
        while True:
            yield from super().__iter__()


class ResumableDataLoader(DataLoader):
    """A loader of a :class:`SeededBatchSampler`'s batches.

    Its data set and settings are those of another loader. An iteration starts the workers when
    its first batch is asked for, not before: by then the position to start at is known.
    """

    def __init__(self, loader: DataLoader, batch_sampler: SeededBatchSampler) -> None:
        super().__init__(
            loader.dataset,
            batch_sampler=batch_sampler,  # type: ignore[arg-type] # a SeededBatch is no list
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=partial(_start_worker, loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
            pin_memory_device=loader.pin_memory_device,
        )

    def __iter__(self) -> Iterator:  # type: ignore[override] # promises less than PyTorch's
        yield from super().__iter__()


def _start_worker(init_fn: Callable[[int], None] | None, worker_id: int) -> None:
    """Have a worker end on SIGTERM from the training process, and from no other process.

    A cluster may send SIGTERM to all processes of a run: the training process then still needs its
    workers to finish the iteration.
    """
    if hasattr(signal, 'sigwaitinfo'):  # on Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_end, daemon=True).start()
    if init_fn is not None:
        init_fn(worker_id)


def _await_end() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass  # sent by another process
    os._exit(0)
