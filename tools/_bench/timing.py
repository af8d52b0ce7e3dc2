"""How contestants are timed: in turns, after a warm-up, with every sample kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch

OURS = 'ssd_plugin'
MMDET = 'MMDetection'
TORCHVISION = 'torchvision'
FLOOR = 'decode + resize'
BARE = 'bare convolutions'
NO_LOADING = 'ours from memory'

Work = Callable[[], object]
Clock = Callable[[Work], float]


def cpu_clock(work: Work) -> float:
    """Seconds that ``work`` takes."""
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    del result  # nobody pays for throwing results away
    return seconds


def cuda_clock(work: Work) -> float:
    """Seconds from an idle GPU until it has done all that ``work`` asks of it."""
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
    """What one comparison measured.

    Args:
        part: The part of the benchmark that it belongs to.
        name: What was compared.
        unit: What a sample is the time of, such as an image.
        samples: Seconds per unit of each contestant, a number a round.
        facts: What else is worth reading beside the times, such as how many detections each had.
    """

    part: str
    name: str
    unit: str
    samples: dict[str, list[float]]
    facts: dict[str, object] = field(default_factory=dict)

    def median(self, contestant: str) -> float:
        """Median seconds per unit."""
        return median(self.samples[contestant])

    def spread(self, contestant: str) -> dict[str, float]:
        """Minimum, quartiles and maximum, in seconds per unit."""
        samples = self.samples[contestant]
        low, _, high = quantiles(samples, method='inclusive') if len(samples) > 1 else samples * 3
        return dict(min=min(samples), q1=low, q3=high, max=max(samples))

    def ratio(self, peer: str) -> float:
        """How many times as long as ours the peer takes."""
        return self.median(peer) / self.median(OURS)


@dataclass
class Stopwatch:
    """Times contestants in turns: A B C, A B C, ...

    What slows the machine down for a while so slows all of them.

    Args:
        device: ``cpu`` or ``cuda``.
        repeats: Rounds that count.
        warmup: Rounds before them, that don't.
        clock: Times one contestant; by default with the device's own clock.
        tell: Called before each turn with the contestant's name and the round, from 1; in the
            warm-up with a round of 0 or less.
    """

    device: str = 'cpu'
    repeats: int = 7
    warmup: int = 2
    clock: Clock | None = None
    tell: Callable[[str, int], None] = lambda contestant, turn: None

    def alternate(self, contestants: dict[str, Work], per: int = 1) -> dict[str, list[float]]:
        """Seconds of each contestant in each round, divided by ``per``."""
        clock = self.clock or (cuda_clock if self.device == 'cuda' else cpu_clock)
        samples = {name: [] for name in contestants}
        for turn in range(1 - self.warmup, self.repeats + 1):
            for name, work in contestants.items():
                self.tell(name, turn)
                seconds = clock(work) / per
                if turn > 0:
                    samples[name].append(seconds)
        return samples
