"""Reading ahead, detecting and writing behind in threads: they overlap, and keep the order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from mmengine.structures import InstanceData

from ssd_plugin.inference.inputs import Image
from ssd_plugin.inference.writers import Writer

T = TypeVar('T')
R = TypeVar('R')
MOST_WORKERS = 4  # each has a batch in memory
# Threads hand Python's lock over at each of the network's layers: with items of less than so many
# seconds, several threads are slower than one. The first items are computed alone, to tell.
LEAST, PROBES = 0.005, 4


def read_ahead(items: Iterable[T], most: int) -> Generator[T, None, None]:
    """The items in their order, while a thread makes the next ones, up to ``most``.

    What making an item raises is raised in its place. Closing the iterator ends the thread, after
    the item that it is at.
    """
    source, end = iter(items), object()
    pool = ThreadPoolExecutor(1, 'reading')
    try:
        waiting = deque(pool.submit(next, source, end) for _ in range(most))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc] # `end` is no item
    finally:
        pool.shutdown(cancel_futures=True)


def share_threads() -> int:
    """How many workers detect at once on a CPU; each has its share of PyTorch's threads from now.

    On two cores, two images with a thread each take less time than one after the other with two
    threads: at each of the network's layers, threads of one image wait for each other. Call it
    before a runtime other than PyTorch opens its file with as many threads as PyTorch has.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MOST_WORKERS)
    torch.set_num_threads(threads // workers)
    return workers


def work_ahead(
    function: Callable[[T], R], items: Iterable[T], workers: int
) -> Generator[R, None, None]:
    """``function`` of each item, in their order, while ``workers`` threads compute the next ones.

    One worker has one item at a time: the next may be a camera's, and late. Of several workers, the
    first ``PROBES`` items are computed one at a time, too; the workers compute side by side only if
    each of these took ``LEAST`` seconds or more. What the function or the items raise is raised in
    its place. Closing the iterator ends the threads, after the items that they are at.
    """
    pool = ThreadPoolExecutor(workers, 'detecting')
    ahead = 0
    seconds: list[float] = []
    waiting: deque[Future[R]] = deque()

    def timed(item: T) -> R:
        start = time.perf_counter()
        result = function(item)
        if len(seconds) < PROBES:  # a camera's stream may have no end
            seconds.append(time.perf_counter() - start)
        return result

    try:
        for item in items:
            waiting.append(pool.submit(timed, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
            if workers > 1 and len(seconds) == PROBES and min(seconds) >= LEAST:
                ahead = workers
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class WriteBehind:
    """Hands images to writers in a thread, in order; at most ``most`` of them wait.

    What a writer raises is raised by a later :meth:`write`, or when the context is left. Left by an
    error, Ctrl-C or an early end, it writes what the thread is at and nothing more.
    """

    def __init__(self, writers: Sequence[Writer], most: int) -> None:
        self.writers, self.most = writers, most
        self.pool = ThreadPoolExecutor(1, 'writing')
        self.waiting: deque[Future] = deque()

    def write(self, image: Image, found: InstanceData) -> None:
        """Have an image and its detections written."""
        if len(self.waiting) == self.most:
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(self._write, image, found))

    def _write(self, image: Image, found: InstanceData) -> None:
        for writer in self.writers:
            writer.write(image, found)

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self.waiting:
                self.waiting.popleft().result()
        finally:
            self.pool.shutdown(cancel_futures=True)
