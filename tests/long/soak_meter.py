"""What a process and its workers use while they do something over and over: for soak.py.

Reads /proc: Linux only.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from matplotlib.figure import Figure

from ssd_plugin.visualization.style import BLUE, FONT, ORANGE

SAMPLES = 200  # of a phase
MEMORY_LIMIT = 0.02  # by how much the median of the last quarter may exceed that of the second
TIME_LIMIT = 0.2  # the same for the processors' time, which depends on what else they do
MIB = 2**20


class Sample(NamedTuple):
    """The state after a round; memory in RAM in bytes."""

    round: int
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


def read_process(pid: int | str) -> tuple[float, int]:
    """A process's time on processors in seconds, and its memory in RAM in bytes.

    Raises:
        OSError: the process has ended.
    """
    text = Path('/proc', str(pid), 'stat').read_text()
    fields = text.rpartition(')')[2].split()  # from the third on: the second may have spaces
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
    return seconds, int(fields[21]) * os.sysconf('SC_PAGE_SIZE')


def children() -> set[int]:
    """The processes that this one has started and that have not ended."""
    texts = [path.read_text() for path in Path('/proc/self/task').glob('*/children')]
    return {int(pid) for text in texts for pid in text.split()}


def open_files() -> Counter[str]:
    """What this process has open: paths, and 'pipe:[NUMBER]' and the like."""
    found: Counter[str] = Counter()
    for link in Path('/proc/self/fd').iterdir():
        with suppress(OSError):  # the folder's own, which is closed by now
            found[os.readlink(link)] += 1
    return found


class Meter:
    """Takes a sample after every so many of the ``rounds`` of a phase, which begins now."""

    def __init__(self, rounds: int) -> None:
        self.interval = max(1, rounds // SAMPLES)
        self.samples: list[Sample] = []
        self._others = children()  # which have nothing to do with the phase

    def __call__(self, done: int) -> None:
        """Take a sample if it is time to, after this many rounds."""
        if done % self.interval:
            return
        seconds, rss = read_process('self')
        workers = []
        for pid in children() - self._others:
            with suppress(OSError):  # ended since
                workers.append(read_process(pid))
        seconds += sum(worker[0] for worker in workers)
        self.samples.append(Sample(done, seconds, rss, sum(worker[1] for worker in workers)))


def memory(samples: list[Sample]) -> list[float]:
    """Of the process, in MiB."""
    return [sample.rss / MIB for sample in samples]


def workers_memory(samples: list[Sample]) -> list[float]:
    """Of the loader's workers together, in MiB."""
    return [sample.workers_rss / MIB for sample in samples]


def round_time(samples: list[Sample]) -> list[float]:
    """Milliseconds on processors that a round took, between each sample and the next."""
    return [
        1000 * (after.cpu_seconds - before.cpu_seconds) / (after.round - before.round)
        for before, after in zip(samples, samples[1:])
    ]


QUANTITIES = (
    ('memory', memory, 'MiB', MEMORY_LIMIT),
    ("memory of the loader's workers", workers_memory, 'MiB', MEMORY_LIMIT),
    ('processor time of a round', round_time, 'ms', TIME_LIMIT),
)


def checks(samples: list[Sample]) -> list[Check]:
    """Compare the last quarter of a phase with its second, by their medians."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    return [
        Check(name, median(values(early)), median(values(late)), unit, limit)
        for name, values, unit, limit in QUANTITIES
        if median(values(samples))  # without workers there is nothing to compare
    ]


def draw(phases: dict[str, list[Sample]]) -> Figure:
    """Memory and time over the rounds of each phase, the quarters that are compared in grey.

    The time is the processors', which other processes on the machine change little. The scales
    start at zero, so that a change is seen as large as it is.
    """
    figure = Figure(figsize=(11, 6.5), layout='constrained')
    grid = figure.subplots(2, len(phases), sharex='col', squeeze=False, height_ratios=[2, 1])
    for (phase, samples), column in zip(phases.items(), grid.T):
        rounds = [sample.round for sample in samples]
        column[0].plot(rounds, memory(samples), color=BLUE, label='process')
        if any(workers_memory(samples)):
            label = "the loader's workers, together"
            column[0].plot(rounds, workers_memory(samples), color=ORANGE, label=label)
        column[0].legend(frameon=False, fontsize=FONT, loc='lower right')
        column[1].plot(rounds[1:], round_time(samples), color=BLUE)
        column[1].set_xlabel(f'rounds of {phase}', fontsize=FONT + 1)
        for axes, label in zip(column, ('resident memory (MiB)', 'processor time of a round (ms)')):
            for begin in (0.25, 0.75):
                span = begin * rounds[-1], (begin + 0.25) * rounds[-1]
                axes.axvspan(*span, color='grey', alpha=0.12, lw=0)
            axes.set_ylim(0, 1.15 * axes.dataLim.y1)
            axes.set_ylabel(label, fontsize=FONT)
            axes.grid(color='#e5e5e5')
            axes.spines[['top', 'right']].set_visible(False)
            axes.tick_params(labelsize=FONT)
    return figure
