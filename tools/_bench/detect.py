"""Detection as a user waits for it: images a second from files and from memory, and its stages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from mmengine.config import Config

from ssd_plugin.errors import InputError
from ssd_plugin.export.runtime import ExportedDetector
from ssd_plugin.inference.inputs import Image, read_inputs
from ssd_plugin.inference.stream import above_threshold
from ssd_plugin.inference.writers import DrawingWriter

from .detectors import (
    SCORE_THR,
    Contestant,
    Job,
    Plugin,
    Torchvision,
    in_its_threads,
    make_detectors,
)
from .timing import ALL, Case, Stopwatch, clock_of

TURN, MOST = 0.5, 32  # seconds that a turn should take, and the most images of one
STAGES = ('decoding', 'resizing, batching', 'network', 'post-processing', 'drawing, writing')


class Settings(NamedTuple):
    """What is measured."""

    cfg: Config
    models: Sequence[str]  # files, the first of which the others are compared with
    paths: Sequence[str]  # of images and videos
    device: str
    batches: Sequence[int]
    threads: Sequence[int]
    timer: Callable[[], float] = time.perf_counter  # or that of the process's CPU time


def run(stopwatch: Stopwatch, settings: Settings, folder: Path) -> list[Case]:
    """Time each number of threads and each batch: with drawing, without, from memory; the stages.

    The results of all are on the host, so a GPU has finished when they are there.

    Raises:
        SSDPluginError: The models do not go together with the config, or nothing can be decoded.
        OSError: A file can't be read.
    """
    stopwatch = replace(stopwatch, clock=clock_of(settings.timer))
    cases = []
    for threads in settings.threads:
        cv2.setNumThreads(threads)
        detectors = make_detectors(settings.cfg, settings.models, settings.device, threads)
        first = next(iter(detectors.values()))
        paths, images = choose_images(first, settings.paths, max(settings.batches), settings.timer)
        for batch in settings.batches:
            job = Job(paths, images, batch, folder)
            name = f'batch {batch}, {threads} thread' + 's' * (threads > 1)
            cases += time_detectors(stopwatch, detectors, job, name)
            ours = {who: d for who, d in detectors.items() if isinstance(d, Plugin)}
            cases += time_stages(stopwatch, ours, job, name, settings)
    return sorted(cases, key=attrgetter('part'))


def choose_images(
    detector: Contestant, paths: Sequence[str], multiple: int, timer: Callable[[], float]
) -> tuple[list[str], list[Image]]:
    """As many images as take about ``TURN`` seconds, evenly spaced, or that many first frames.

    Their number is a multiple of ``multiple``, as far as there are so many.
    """
    first = decode(paths, 1)
    if not first:
        raise InputError(f'{paths[0]}: nothing of what --images names can be decoded')
    job = Job([first[0].path], first, 1, Path())
    detector.from_memory(job)  # warms up
    clock = clock_of(timer)
    seconds = clock(partial(detector.from_memory, job)) + clock(partial(decode, paths, 1))
    number = max(min(round(TURN / seconds), MOST), 1)
    number += -number % multiple
    if first[0].frame is None and len(paths) > number:
        paths = [paths[i * len(paths) // number] for i in range(number)]
    images = decode(paths, number)
    return list(dict.fromkeys(image.path for image in images)), images


def decode(paths: Sequence[str], number: int) -> list[Image]:
    """The first images or frames of files that can be decoded."""
    return [*islice((item for item in read_inputs(paths) if isinstance(item, Image)), number)]


def time_detectors(
    stopwatch: Stopwatch, detectors: dict[str, Contestant], job: Job, name: str
) -> list[Case]:
    """Compare the contestants, each in what it can do: only ours read videos, torchvision's draws
    nothing."""
    base, facts = next(iter(detectors)), describe(job)
    on_files = {
        who: d for who, d in detectors.items() if isinstance(d, Plugin) or not job.has_video
    }
    drawing = {who: d for who, d in on_files.items() if not isinstance(d, Torchvision)}
    kinds: dict[str, dict[str, Callable[[], object]]] = {
        'from files, drawn': {
            w: partial(in_its_threads, d, d.from_files, job, True) for w, d in drawing.items()
        },
        'from files': {
            w: partial(in_its_threads, d, d.from_files, job, False) for w, d in on_files.items()
        },
        'from memory': {
            w: partial(in_its_threads, d, d.from_memory, job) for w, d in detectors.items()
        },
    }
    return [
        Case(
            'detect', f'{kind}, {name}', 'image',
            stopwatch.alternate(works, per=len(job.images)), facts, base,
        )
        for kind, works in kinds.items()
    ]  # fmt: skip


def describe(job: Job) -> dict[str, object]:
    """The number of images, and their sizes."""
    sizes = sorted({image.pixels.shape[1::-1] for image in job.images})
    text = ' and '.join(f'{width} x {height}' for width, height in sizes[:3])
    return dict(images=len(job.images), size=text + ' and others' * (len(sizes) > 3))


def time_stages(
    stopwatch: Stopwatch, detectors: dict[str, Plugin], job: Job, name: str, settings: Settings
) -> list[Case]:
    """How much of a detection from files each stage takes, if none overlaps with another."""
    cases = []
    for who, detector in detectors.items():
        samples: dict[str, list[float]] = {stage: [] for stage in (ALL, *STAGES)}
        with StageClock(detector, settings.device, settings.timer) as clock:
            for turn in range(1 - stopwatch.warmup, stopwatch.repeats + 1):
                stopwatch.tell(f'stages of {who}', turn)
                seconds = clock.run(job)
                if turn > 0:
                    for stage in STAGES:
                        samples[stage].append(seconds[stage] / len(job.images))
                    samples[ALL].append(sum(seconds.values()) / len(job.images))
        facts = dict(describe(job), contestant=who, run=name)
        cases.append(Case('stages', f'{who}, {name}', 'image', samples, facts, ALL))
    return cases


class StageClock:
    """Times the stages of a model of the user's, while the context is entered.

    A stage that calls another is charged with its own time only.
    """

    def __init__(self, detector: Plugin, device: str, timer: Callable[[], float]) -> None:
        self.detector, self.inferencer, self.timer = detector, detector.inferencer, timer
        self.synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner = [0.0]  # seconds of the stages called by those that are running
        self.wrapped: list[tuple[Any, str]] = []

    def __enter__(self) -> StageClock:
        inferencer, model = self.inferencer, self.inferencer.model
        self.wrap(inferencer, 'detect', 'resizing, batching')
        if isinstance(model, ExportedDetector):  # what is not in the file comes after it
            self.wrap(inferencer, 'forward', 'post-processing')
            self.wrap(model, 'run', 'network')
            return self
        self.wrap(inferencer, 'forward', 'network')
        if hasattr(model, 'bbox_head'):
            self.wrap(model.bbox_head, 'predict_by_feat', 'post-processing')
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name in self.wrapped:
            delattr(owner, name)  # which uncovers the class's own

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Time a method of an object as a stage."""
        setattr(owner, name, self.timed(stage, getattr(owner, name)))
        self.wrapped.append((owner, name))

    def timed(self, stage: str, function: Callable) -> Callable:
        """The function, whose calls are timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.inner.append(0.0)
            start = self.timer()
            result = function(*args, **kwargs)
            self.synchronize()
            took = self.timer() - start
            self.seconds[stage] += took - self.inner.pop()
            self.inner[-1] += took
            return result

        return call

    def run(self, job: Job) -> dict[str, float]:
        """Seconds of each stage for all images of a job."""
        self.seconds.clear()
        torch.set_num_threads(self.detector.torch_threads)
        read = self.timed('decoding', partial(next, read_inputs(job.paths), None))
        images = islice(iter(read, None), len(job.images))
        with closing(DrawingWriter(job.folder / 'vis', self.inferencer.classes)) as writer:
            write = self.timed('drawing, writing', writer.write)
            while batch := [*islice(images, job.batch)]:
                found = self.inferencer.detect([image.pixels for image in batch])
                for image, instances in zip(batch, found):
                    write(image, above_threshold(instances, SCORE_THR))
        return dict(self.seconds)
