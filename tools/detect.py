"""Detect on images, videos and cameras: tools/detect.py CONFIG CHECKPOINT INPUT... --out DIR"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import _common as common
from rich import progress
from rich.text import Text

if TYPE_CHECKING:  # they import PyTorch
    import numpy as np

    from ssd_plugin.datasets.faults import DataFault
    from ssd_plugin.inference.inferencer import StreamInferencer
    from ssd_plugin.inference.inputs import Image
    from ssd_plugin.inference.live import LiveStream
    from ssd_plugin.inference.stream import Tally
    from ssd_plugin.inference.window import Window
    from ssd_plugin.inference.writers import Writer

# Threads of PyTorch that wait sleep, and leave the cores to reading and writing. It is read when
# PyTorch is imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
DEFAULT_THRESHOLD = 0.3
INTERRUPTED = 130  # exit status of shells after Ctrl-C


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Detect on images, videos and cameras.')
    common.add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint, or exported .onnx or .tflite')
    text = "an image, a folder, a pattern 'a/**/*.jpg', a video, a camera (0), or rtsp://..."
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help=text)
    text = 'for all results; FILE.mp4 for the drawn video of one video, camera or stream alone'
    parser.add_argument('--out', type=Path, metavar='DIR', help=text)
    parser.add_argument('--show', action='store_true', help='show in a window; q ends')
    text = 'least score that is drawn and written (0.3), or FILE.json: {"class": 0.3, ...}'
    parser.add_argument('--score-thr', type=common.score_thr, metavar='SCORE', help=text)
    text = 'images at a time (1)'
    parser.add_argument('--batch-size', type=common.positive, default=1, help=text)
    parser.add_argument('--device', help='where to compute: cpu, cuda:0; by default the best')
    text = 'compute with bfloat16 or float16, where the hardware does'
    parser.add_argument('--half', action='store_true', help=text)
    text = 'also write DIR/voc, which --data-root reads'
    parser.add_argument('--voc-xml', action='store_true', help=text)
    parser.add_argument('--no-draw', action='store_true', help='draw nothing, which is faster')
    args = common.parse_args(parser)
    if not args.out and not args.show:
        parser.error('--out DIR, --show, or both')
    if is_video_file(args.out) and (args.no_draw or args.voc_xml):
        parser.error(f'--out {args.out} is the drawn video alone: name a folder')
    return args


def is_video_file(out: Path | None) -> bool:
    """Whether ``--out`` names a video, and no folder."""
    return out is not None and out.suffix.lower() == '.mp4'


def main() -> None:
    args = parse_args()
    try:
        with common.one_line_errors(args):
            outcome = detect(args)
    except KeyboardInterrupt:
        where = f': what was written until then is in {args.out}' if args.out else ''
        print(f'interrupted{where}', file=sys.stderr)
        sys.exit(INTERRUPTED)
    report(args, outcome)
    if outcome.broken:
        sys.exit(outcome.broken)


class Outcome(NamedTuple):
    """What detecting has come to."""

    tally: Tally
    threshold: str  # in words: what a detection had to reach
    broken: str  # a line if a stream ended because it broke off


def detect(args: argparse.Namespace) -> Outcome:
    """Detect on all inputs, under a progress bar."""
    cfg = common.prepare(args, (), args.checkpoint)
    from ssd_plugin.inference.inferencer import build_inferencer
    from ssd_plugin.inference.inputs import count_images
    from ssd_plugin.inference.live import LiveStream
    from ssd_plugin.inference.stream import Tally, detect_stream

    with ExitStack() as stack:
        bar = progress_bar()
        say = partial(bar.console.print, markup=False, highlight=False)
        source = open_source(args, say)
        if isinstance(source, LiveStream):
            stack.enter_context(closing(source))
            # Whoever stops a service wants whole files, too.
            before = signal.signal(signal.SIGTERM, signal.default_int_handler)
            stack.callback(signal.signal, signal.SIGTERM, before)
        workers = count_workers(args, source)
        inferencer = build_inferencer(cfg, args.checkpoint, args.device, args.half)
        window = stack.enter_context(closing(open_window(inferencer))) if args.show else None
        thresholds, in_words = choose_thresholds(args, inferencer)
        writers = [stack.enter_context(closing(w)) for w in open_writers(args, inferencer)]
        images: LiveStream | Generator
        if isinstance(source, LiveStream):
            images, total = source, None
        else:
            ahead = workers * args.batch_size
            images = stack.enter_context(closing(read_files(args, source, inferencer, ahead)))
            total = count_images(source)
        stack.enter_context(bar)
        task, tally = bar.add_task('Detecting', total=total), Tally()
        tallies = detect_stream(inferencer, images, writers, args.batch_size, thresholds, workers)
        for tally in stack.enter_context(closing(tallies)):
            bar.update(task, completed=tally.read)
            if window and not all(window.show(*shown) for shown in tally.batch):
                break
        bar.update(task, total=tally.read)  # a video may have fewer frames than it says
    broken = ''
    if isinstance(source, LiveStream):
        print(f'{source.dropped} frames came while the detector was busy, and were left out')
        if source.broken:
            broken = f'{source.path} broke off, and could not be opened again'
    return Outcome(tally, in_words, broken)


def open_source(args: argparse.Namespace, say: Callable[[str], None]) -> LiveStream | list[str]:
    """A live stream, or the paths of the files to detect on."""
    from ssd_plugin.errors import InputError
    from ssd_plugin.inference.inputs import find_inputs, is_video
    from ssd_plugin.inference.live import LiveStream, is_live

    live = [text for text in args.inputs if is_live(text) and not os.path.exists(text)]
    if live and len(args.inputs) > 1:
        raise InputError(f'{live[0]} is a camera or a stream, and has to be the only input')
    if live:
        return LiveStream(live[0], say)
    paths = find_inputs(args.inputs, leave_out=replaced_paths(args.out))
    if is_video_file(args.out) and not (len(paths) == 1 and is_video(paths[0])):
        raise InputError(f'--out {args.out} takes one video, camera or stream: name a folder')
    return paths


def replaced_paths(out: Path | None) -> list[Path]:
    """The file, or the folders, in which results may replace inputs."""
    if out is None:
        return []
    return [out] if is_video_file(out) else [out / 'vis', out / 'voc']


def count_workers(args: argparse.Namespace, source: LiveStream | list[str]) -> int:
    """How many batches to detect on at once; on a CPU, it shares out PyTorch's threads."""
    from mmengine.device import get_device

    from ssd_plugin.inference.threads import share_threads

    # Of a live stream the newest image is wanted, as soon as can be.
    is_live = not isinstance(source, list)
    on_cpu = (args.device or get_device()).startswith('cpu')
    return share_threads() if on_cpu and not is_live else 1


def read_files(
    args: argparse.Namespace, paths: list[str], inferencer: StreamInferencer, ahead: int
) -> Generator[Image | DataFault, None, None]:
    """The images of files, ``ahead`` of which are read before they are needed."""
    from ssd_plugin.inference.inputs import read_inputs
    from ssd_plugin.inference.threads import read_ahead

    # Only the json needs no more pixels than the network does.
    only_json = args.no_draw and not args.voc_xml and not args.show
    shrink = inferencer.shrink if only_json else None
    return read_ahead(read_inputs(paths, shrink), ahead)


def open_window(inferencer: StreamInferencer) -> Window:
    """The window of ``--show``."""
    from ssd_plugin.inference.window import Window

    return Window(inferencer.classes)


def open_writers(args: argparse.Namespace, inferencer: StreamInferencer) -> list[Writer]:
    """The writers of what the options ask for."""
    from ssd_plugin.inference.writers import CocoWriter, DrawingWriter, DrawnVideo, VocWriter

    if not args.out:
        return []
    if is_video_file(args.out):
        return [DrawnVideo(args.out, inferencer.classes)]
    writers: list[Writer] = [CocoWriter(args.out, inferencer.classes)]
    if not args.no_draw:
        writers.append(DrawingWriter(args.out / 'vis', inferencer.classes))
    if args.voc_xml:
        writers.append(VocWriter(args.out / 'voc', inferencer.classes))
    return writers


def choose_thresholds(
    args: argparse.Namespace, inferencer: StreamInferencer
) -> tuple[float | np.ndarray, str]:
    """The command line's thresholds, or else the exported file's, or else one; and in words."""
    from ssd_plugin.inference.thresholds import check_thresholds, read_thresholds

    classes, carried = inferencer.classes, getattr(inferencer.model, 'score_thr', None)
    if isinstance(args.score_thr, Path):
        return read_thresholds(args.score_thr, classes), f'the score that {args.score_thr} asks for'
    if args.score_thr is None and carried is not None:
        thresholds = check_thresholds(carried, classes, args.checkpoint)
        return thresholds, f'the score that {args.checkpoint} asks for'
    score = DEFAULT_THRESHOLD if args.score_thr is None else args.score_thr
    return score, f'a score of {score:g}'


def progress_bar() -> progress.Progress:
    """A bar with the number of images and images per second, which rich's own has not."""
    numbers = progress.MofNCompleteColumn(), Rate(), progress.TimeRemainingColumn()
    columns = progress.TextColumn('{task.description}'), progress.BarColumn(), *numbers
    return progress.Progress(*columns, console=common.console())


class Rate(progress.ProgressColumn):
    """Images per second."""

    def render(self, task: progress.Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f'{speed:.1f} images/s' if speed else '')


def report(args: argparse.Namespace, outcome: Outcome) -> None:
    """Print what was found and skipped, and where it is."""
    tally = outcome.tally
    if tally.faults:
        print(f'skipped {len(tally.faults)}, which could not be read:')
        for fault in tally.faults:
            print(f'  {fault.path}: {fault.detail or fault.kind}')
    if tally.faults and not tally.images:
        sys.exit(f'none of the {len(tally.faults)} inputs could be read')
    found = f'{tally.images} images, {tally.detections} detections'
    print(f'{found} with {outcome.threshold} or more')
    for path in written_paths(args):
        print(path)


def written_paths(args: argparse.Namespace) -> list[Path]:
    """The files and folders with what was found."""
    if not args.out or is_video_file(args.out):
        return [args.out] if args.out else []
    names = ['detections.json', 'images.json']
    names += [] if args.no_draw else ['vis']
    names += ['voc'] if args.voc_xml else []
    return [args.out / name for name in names]


if __name__ == '__main__':
    main()
