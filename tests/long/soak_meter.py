"""What a process and its workers use while they do something over and over: for soak.py.

Reads /proc: Linux only.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.visualization.style import BLUE, FONT, GREY, ORANGE

SAMPLES = 200  # of a phase
MEMORY_LIMIT = 0.02  # by how much the median of the last quarter may exceed that of the second
TIME_LIMIT = 0.2  # the same for the processors' time, which depends on what else they do
MIB = 2**20


class Process(NamedTuple):
    """A process, as /proc has it: who started it, its time on processors, its memory in RAM."""

    parent: int
    cpu_seconds: float
    rss: int  # bytes


class Sample(NamedTuple):
    """The state after a round; memory in bytes, times in seconds since the phase began."""

    round: int
    seconds: float
    cpu_seconds: float  # of the process and its workers
    rss: int
    workers_rss: int  # together; what they share with the process counts for each


class Check(NamedTuple):
    """One line of the verdict: a figure of the second quarter, and of the last."""

    name: str
    early: float
    late: float
    unit: str
    limit: float

    @property
    def growth(self) -> float:
        """By what part of itself the figure has grown."""
        return self.late / self.early - 1

    @property
    def passed(self) -> bool:
        return self.growth < self.limit


def read_process(pid: int | str) -> Process:
    """Read /proc/PID/stat.

    Raises:
        OSError: the process has ended.
    """
    text = Path('/proc', str(pid), 'stat').read_text()
    fields = text.rpartition(')')[2].split()  # from the third on: the second may have spaces
    ticks = int(fields[11]) + int(fields[12])
    return Process(
        parent=int(fields[1]),
        cpu_seconds=ticks / os.sysconf('SC_CLK_TCK'),
        rss=int(fields[21]) * os.sysconf('SC_PAGE_SIZE'),
    )


def children() -> dict[int, Process]:
    """The processes that this one has started and that have not ended, by their numbers."""
    found = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            process = read_process(folder.name)
        except OSError:  # ended since
            continue
        if process.parent == os.getpid():
            found[int(folder.name)] = process
    return found


def open_files() -> Counter[str]:
    """What this process has open: paths, and 'pipe:[NUMBER]' and the like."""
    found: Counter[str] = Counter()
    for link in Path('/proc/self/fd').iterdir():
        try:
            found[os.readlink(link)] += 1
        except OSError:  # the folder's own, which is closed by now
            continue
    return found


class Meter:
    """Takes a sample after every so many rounds of a phase.

    Args:
        rounds: How many there will be.
    """

    def __init__(self, rounds: int) -> None:
        self.interval = max(1, rounds // SAMPLES)
        self.samples: list[Sample] = []
        self._others = set(children())  # which have nothing to do with the phase
        self._start = time.perf_counter()

    def __call__(self, done: int) -> None:
        """Take a sample if it is time to, after this many rounds."""
        if done % self.interval:
            return
        process = read_process('self')
        workers = [child for pid, child in children().items() if pid not in self._others]
        self.samples.append(
            Sample(
                round=done,
                seconds=time.perf_counter() - self._start,
                cpu_seconds=process.cpu_seconds + sum(worker.cpu_seconds for worker in workers),
                rss=process.rss,
                workers_rss=sum(worker.rss for worker in workers),
            )
        )


def checks(samples: list[Sample]) -> list[Check]:
    """Compare the last quarter of a phase with its second, by their medians."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    found = [Check('memory', *(median(s.rss / MIB for s in part) for part in (early, late)),
                   'MiB', MEMORY_LIMIT)]  # fmt: skip
    if median(sample.workers_rss for sample in samples):
        workers = (median(s.workers_rss / MIB for s in part) for part in (early, late))
        found.append(Check("memory of the loader's workers", *workers, 'MiB', MEMORY_LIMIT))
    times = (median(per_round(part, 'cpu_seconds')) for part in (early, late))
    found.append(Check('processor time of a round', *(1000 * t for t in times), 'ms', TIME_LIMIT))
    return found


def per_round(samples: list[Sample], field: str) -> list[float]:
    """Seconds that a round took, between each sample and the next."""
    return [
        (getattr(after, field) - getattr(before, field)) / (after.round - before.round)
        for before, after in zip(samples, samples[1:])
    ]


def draw(phases: dict[str, list[Sample]]) -> Figure:
    """Memory and time over the rounds of each phase, the quarters that are compared in grey.

    The time is the processors', which other processes on the machine change little.
    """
    figure = Figure(figsize=(11, 6.5), layout='constrained')
    grid = figure.subplots(2, len(phases), sharex='col', squeeze=False, height_ratios=[2, 1])
    for (phase, samples), (memory, cost) in zip(phases.items(), grid.T):
        rounds = [sample.round for sample in samples]
        memory.plot(rounds, [s.rss / MIB for s in samples], color=BLUE, label='process')
        if any(sample.workers_rss for sample in samples):
            memory.plot(rounds, [s.workers_rss / MIB for s in samples], color=ORANGE,
                        label="the loader's workers, together")  # fmt: skip
        cost.plot(rounds[1:], [1000 * t for t in per_round(samples, 'cpu_seconds')], color=BLUE)
        cost.set_xlabel(f'rounds of {phase}', fontsize=FONT + 1)
        memory.legend(frameon=False, fontsize=FONT, loc='lower right')
        _finish(memory, rounds[-1], 'resident memory (MiB)')
        _finish(cost, rounds[-1], 'processor time of a round (ms)')
    return figure


def _finish(axes: Axes, rounds: int, label: str) -> None:
    """The scale from zero, so that a change is seen as large as it is, and the quarters."""
    for begin in (0.25, 0.75):
        axes.axvspan(begin * rounds, (begin + 0.25) * rounds, color=GREY, alpha=0.12, lw=0)
    axes.set_ylim(0, 1.15 * axes.dataLim.y1)
    axes.set_ylabel(label, fontsize=FONT)
    axes.grid(color='#e5e5e5')
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(labelsize=FONT)
