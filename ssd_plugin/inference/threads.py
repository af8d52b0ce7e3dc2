"""Reading ahead and writing behind in threads: decoding, detecting and drawing overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mmengine.structures import InstanceData

from ssd_plugin.inference.inputs import Image
from ssd_plugin.inference.writers import Writer

T = TypeVar('T')


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
