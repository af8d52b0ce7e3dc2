"""Does memory grow, or do training and detection slow down, over thousands of rounds?

    python -m tests.long.soak
    python -m tests.long.soak --rounds 200 --out work_dirs/short_soak

Trains the demo's detector on images of random sizes with random numbers of objects, with all
of SSD's augmentation, two workers, validations and checkpoints; then detects on as many images.
Compares the medians of the last quarter of the rounds with those of the second, the first being
for caches to fill. Writes all figures as OUT/soak.json. The exit code is 1 if something grew or
was left behind. Reads /proc: Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

import ssd_plugin  # noqa: F401  (first: it prepares what MMDetection needs)
from tests.support.commands import ROOT
from tests.support.data_folders import write_boxes

# isort: split
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope

from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.engine.launch import build_runner
from ssd_plugin.inference.inferencer import StreamInferencer

SIDES = (32, 641)  # of images, in pixels
MOST_OBJECTS = 60
IMAGES, TEST_IMAGES = 200, 8
SAMPLES = 200  # of a phase
MEMORY_LIMIT = 0.02  # by how much the median of the last quarter may exceed that of the second
TIME_LIMIT = 0.2  # the same for the processors' time, which depends on what else they do
MIB = 2**20

CONFIG = """
_base_ = [{base!r}]
train_dataloader = dict(
    batch_size=4, num_workers=2, sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(data_root={data!r}, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
        dict(type='SSDAugment', scale=160), dict(type='PackDetInputs')]))
val_dataloader = dict(
    batch_size=4, persistent_workers=False, dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters={rounds}, val_interval={quarter})
param_scheduler = [dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=30)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval={quarter}))
log_processor = dict(by_epoch=False)
work_dir = {work_dir!r}
"""


class MeterHook(Hook):
    """Has a meter look after each iteration, and after all that other hooks do then."""

    priority = 'LOWEST'

    def __init__(self, meter: Callable[[int], None]) -> None:
        self.meter = meter

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.meter(runner.iter + 1)


def draw_image(rng: np.random.Generator) -> tuple[np.ndarray, list]:
    """An image (h, w, 3) of random size, and its objects as `write_boxes` takes them."""
    height, width = rng.integers(*SIDES, size=2)
    image = np.full((height, width, 3), rng.integers(0, 256, size=3), np.uint8)
    objects = []
    for _ in range(rng.integers(MOST_OBJECTS + 1)):
        sides = rng.integers(4, [width, height])
        left_top = rng.integers(0, [width, height] - sides + 1)
        label, (x1, y1), (x2, y2) = rng.integers(len(CLASSES)), left_top, left_top + sides - 1
        color = (50 * int(label), 255 - 50 * int(label), 128)  # so that there is something to learn
        cv2.rectangle(image, (int(x1), int(y1)), (int(x2), int(y2)), color, -1)
        objects.append((CLASSES[label], (x1, y1, x2, y2), False))
    return image, objects


def write_images(folder: Path, rng: np.random.Generator) -> None:
    """Write a VOC tree of such images, to train and to validate on."""
    for split, number in (('trainval', IMAGES), ('test', TEST_IMAGES)):
        drawn = [draw_image(rng) for _ in range(number)]
        sizes = [(image.shape[1::-1], objects) for image, objects in drawn]
        write_boxes(folder, sizes, split)
        for index, (image, _) in enumerate(drawn):
            cv2.imwrite(str(folder / 'JPEGImages' / f'{split}{index:03d}.jpg'), image)


def predict(
    detect: Callable[[list[np.ndarray]], object], rounds: int, meter: Callable[[int], None]
) -> None:
    """Detect on so many images of random sizes, one at a time, with a meter."""
    rng = np.random.default_rng(1)
    for done in range(1, rounds + 1):
        image, _ = draw_image(rng)
        detect([image])
        meter(done)


def soak(rounds: int, folder: Path) -> dict[str, list[Sample]]:
    """Train and detect for so many rounds each, with all files in a folder: samples by phase."""
    init_default_scope('mmdet')
    quarter = max(1, rounds // 4)
    write_images(folder / 'data', np.random.default_rng(0))
    config = folder / 'soak.py'
    config.write_text(CONFIG.format(
        base=str(ROOT / 'configs/demo_shapes.py'), data=f'{folder}/data/', rounds=rounds,
        quarter=quarter, work_dir=str(folder / 'work_dir'),
    ))  # fmt: skip
    cfg = Config.fromfile(config)
    training = Meter(rounds)
    runner = build_runner(cfg)  # as tools/train.py does
    runner.register_hook(MeterHook(training))
    runner.train()
    del runner
    gc.collect()  # a runner and its parts refer to each other: it ends its workers now
    detection = Meter(rounds)
    checkpoint = str(folder / 'work_dir' / f'iter_{rounds}.pth')
    predict(StreamInferencer(cfg, checkpoint).detect, rounds, detection)
    return dict(training=training.samples, detection=detection.samples)


# --- what a process and its workers use: in /proc, on Linux only ---------------------------------


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


def round_time(samples: list[Sample]) -> list[float]:
    """Milliseconds on processors that a round took, between each sample and the next."""
    return [
        1000 * (after.cpu_seconds - before.cpu_seconds) / (after.round - before.round)
        for before, after in zip(samples, samples[1:])
    ]


def checks(samples: list[Sample]) -> list[Check]:
    """Compare the last quarter of a phase with its second, by their medians."""
    quantities = (
        ('memory', lambda part: [s.rss / MIB for s in part], 'MiB', MEMORY_LIMIT),
        ("memory of the loader's workers", lambda part: [s.workers_rss / MIB for s in part],
         'MiB', MEMORY_LIMIT),
        ('processor time of a round', round_time, 'ms', TIME_LIMIT),
    )  # fmt: skip
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    return [
        Check(name, median(values(early)), median(values(late)), unit, limit)
        for name, values, unit, limit in quantities
        if median(values(samples))  # without workers there is nothing to compare
    ]


# --- the command -----------------------------------------------------------------------------


def table(found: dict[str, list[Check]], left: dict[str, list[str]]) -> Table:
    """All verdicts."""
    rows = Table('phase', 'what', '2nd quarter', 'last quarter', 'change', 'limit', '')
    for phase, lines in found.items():
        for check in lines:
            rows.add_row(
                phase, check.name, f'{check.early:.1f} {check.unit}',
                f'{check.late:.1f} {check.unit}', f'{check.growth:+.1%}', f'{check.limit:+.0%}',
                'ok' if check.passed else 'FAILED',
            )  # fmt: skip
    for what, things in left.items():
        rows.add_row('end', f'{what} left behind', '', str(len(things)), '', '0',
                     'FAILED' if things else 'ok')  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=2000, help='of each phase, at least 20')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/soak'))
    args = parser.parse_args()
    if args.rounds < 20:
        sys.exit(f'--rounds {args.rounds}: take at least 20, of which the quarters are compared')
    files, processes = open_files(), children()
    with TemporaryDirectory() as folder:
        phases = soak(args.rounds, Path(folder))
        gc.collect()
        multiprocessing.active_children()  # takes note of those that have ended
        # MMEngine keeps the log of a run open for as long as the process lives.
        left_files = [name for name in open_files() - files if not name.endswith('.log')]
    left = dict(files=left_files, processes=[str(pid) for pid in children() - processes])
    found = {phase: checks(samples) for phase, samples in phases.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    report = dict(
        samples={phase: [s._asdict() for s in samples] for phase, samples in phases.items()},
        checks={phase: [c._asdict() for c in lines] for phase, lines in found.items()},
        left=left,
    )
    (args.out / 'soak.json').write_text(json.dumps(report))
    console = Console() if sys.stdout.isatty() else Console(width=110)  # a file has no width
    console.print(table(found, left))
    for what, things in left.items():
        for thing in things:
            console.print(f'left behind: {what}: {thing}', markup=False)
    passed = all(check.passed for lines in found.values() for check in lines)
    sys.exit(not passed or any(left.values()))


if __name__ == '__main__':
    main()
