"""How contestants are timed: in turns, after a warm-up, with every sample kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch

# The contestants, by the names that are printed.
OURS = 'ssd_plugin'
MMDET = 'MMDetection'
TORCHVISION = 'torchvision'
FLOOR = 'decode + resize'
BARE = 'bare convolutions'
NO_LOADING = 'ours from memory'
ALL = 'all stages'  # of a detection

Work = Callable[[], object]


def clock_of(timer: Callable[[], float]) -> Callable[[Work], float]:
    """The function that says how many seconds of a timer a work takes."""

    def clock(work: Work) -> float:
        start = timer()
        result = work()
        seconds = timer() - start
        del result  # freeing the result is not timed
        return seconds

    return clock


def cuda_clock(work: Work) -> float:
    """Seconds from an idle GPU until it has finished everything that ``work`` launches."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    result = work()
    end.record()
    torch.cuda.synchronize()
    del result
    return start.elapsed_time(end) / 1000


@dataclass
class Case:
    """The samples of one comparison."""

    part: str  # of the benchmark
    name: str
    unit: str  # what a sample is the time of, such as an image
    samples: dict[str, list[float]]  # by contestant: seconds per unit, one for each round
    facts: Mapping[str, object] = field(default_factory=dict)  # printed with them
    base: str = OURS  # the contestant with which the others are compared

    def median(self, contestant: str) -> float:
        """Median seconds per unit."""
        return median(self.samples[contestant])

    def spread(self, contestant: str) -> dict[str, float]:
        """Minimum, quartiles and maximum, in seconds per unit."""
        samples = self.samples[contestant]
        low, _, high = quantiles(samples, method='inclusive') if len(samples) > 1 else samples * 3
        return dict(min=min(samples), q1=low, q3=high, max=max(samples))

    def ratio(self, peer: str) -> float:
        """The peer's median time over the plugin's, or another's that is the base."""
        return self.median(peer) / self.median(self.base)


@dataclass
class Stopwatch:
    """Times contestants in turns: A B C, A B C, ...

    Whatever slows the machine down for a while then slows all of them. Before each turn ``tell``
    is called with the contestant's name and the round, from 1; in the warm-up it is 0 or less.
    """

    device: str = 'cpu'
    repeats: int = 7  # rounds that count
    warmup: int = 2  # rounds before them
    clock: Callable[[Work], float] | None = None  # by default that of the device
    tell: Callable[[str, int], None] = lambda contestant, turn: None

    def alternate(self, contestants: Mapping[str, Work], per: int = 1) -> dict[str, list[float]]:
        """Seconds of each contestant in each round, divided by ``per``."""
        of_device = cuda_clock if self.device == 'cuda' else clock_of(time.perf_counter)
        clock = self.clock or of_device
        samples: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(1 - self.warmup, self.repeats + 1):
            for name, work in contestants.items():
                self.tell(name, turn)
                seconds = clock(work) / per
                if turn > 0:
                    samples[name].append(seconds)
        return samples
