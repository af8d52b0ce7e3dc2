"""Detect on images and videos: python tools/detect.py CONFIG CHECKPOINT INPUT... --out DIR"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import _common as common
from rich import progress
from rich.text import Text

if TYPE_CHECKING:  # they import PyTorch
    from ssd_plugin.inference.inferencer import StreamInferencer
    from ssd_plugin.inference.stream import Tally
    from ssd_plugin.inference.writers import Writer

# Threads of PyTorch that wait sleep, and leave the cores to reading and writing. It is read when
# PyTorch is imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
INTERRUPTED = 130  # exit status of shells after Ctrl-C


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Detect on images and videos.')
    common.add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint, or .onnx file of tools/export_onnx.py')
    text = "an image, a folder, a pattern 'a/**/*.jpg', or a video"
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help=text)
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='for all results')
    text = 'least score that is drawn and written (0.3)'
    parser.add_argument('--score-thr', type=float, default=0.3, help=text)
    text = 'images at a time (1)'
    parser.add_argument('--batch-size', type=common.positive, default=1, help=text)
    parser.add_argument('--device', help='where to compute: cpu, cuda:0; by default the best')
    text = 'also write DIR/voc, which --data-root reads'
    parser.add_argument('--voc-xml', action='store_true', help=text)
    parser.add_argument('--no-draw', action='store_true', help='draw nothing, which is faster')
    return common.parse_args(parser)


def main() -> None:
    args = parse_args()
    try:
        with common.one_line_errors(args):
            tally = detect(args)
    except KeyboardInterrupt:
        print(f'interrupted: what was written until then is in {args.out}', file=sys.stderr)
        sys.exit(INTERRUPTED)
    report(args, tally)


def detect(args: argparse.Namespace) -> Tally:
    """Detect on all inputs, under a progress bar; returns what has been done."""
    cfg = common.prepare(args, (), args.checkpoint)
    from ssd_plugin.inference.inferencer import build_inferencer
    from ssd_plugin.inference.inputs import count_images, find_inputs, read_inputs
    from ssd_plugin.inference.stream import detect_stream
    from ssd_plugin.inference.threads import read_ahead

    paths = find_inputs(args.inputs, leave_out=(args.out / 'vis', args.out / 'voc'))
    inferencer = build_inferencer(cfg, args.checkpoint, args.device)
    with ExitStack() as stack:
        writers = [stack.enter_context(closing(w)) for w in open_writers(args, inferencer)]
        bar = stack.enter_context(progress_bar())
        task = bar.add_task('Detecting', total=count_images(paths))
        # Only the json needs no more pixels than the network does.
        shrink = inferencer.shrink if args.no_draw and not args.voc_xml else None
        reading = read_ahead(read_inputs(paths, shrink), args.batch_size)
        images = stack.enter_context(closing(reading))
        tallies = detect_stream(inferencer, images, writers, args.batch_size, args.score_thr)
        for tally in stack.enter_context(closing(tallies)):
            bar.update(task, completed=tally.read)
        bar.update(task, total=tally.read)  # a video may have fewer frames than it says
    return tally


def open_writers(args: argparse.Namespace, inferencer: StreamInferencer) -> list[Writer]:
    """The writers of what the options ask for."""
    from ssd_plugin.inference.writers import CocoWriter, DrawingWriter, VocWriter

    writers: list[Writer] = [CocoWriter(args.out, inferencer.classes)]
    if not args.no_draw:
        writers.append(DrawingWriter(args.out / 'vis', inferencer.classes))
    if args.voc_xml:
        writers.append(VocWriter(args.out / 'voc', inferencer.classes))
    return writers


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


def report(args: argparse.Namespace, tally: Tally) -> None:
    """Print what was found and skipped, and where it is."""
    if tally.faults:
        print(f'skipped {len(tally.faults)}, which could not be read:')
        for fault in tally.faults:
            print(f'  {fault.path}: {fault.detail or fault.kind}')
    if not tally.images:
        sys.exit(f'none of the {len(tally.faults)} inputs could be read')
    found = f'{tally.images} images, {tally.detections} detections'
    print(f'{found} with a score of {args.score_thr:g} or more')
    names = ['detections.json', 'images.json']
    names += [] if args.no_draw else ['vis']
    names += ['voc'] if args.voc_xml else []
    print(*(args.out / name for name in names), sep='\n')


if __name__ == '__main__':
    main()
