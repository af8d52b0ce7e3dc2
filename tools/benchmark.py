"""Measure the plugin beside MMDetection and torchvision: python tools/benchmark.py all"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import _common as common  # which finds the package in a clone that has not been installed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LEAST_REPEATS = 7
REPEATS = dict(pipeline=9, loss=11, growth=7, postprocess=21, step=7, detect=7)
ALL = ('pipeline', 'loss', 'postprocess', 'step')
PLOT_TYPES = ('.png', '.svg', '.pdf')
PARTS = {
    'pipeline': 'a JPEG file to an augmented, packed sample',
    'loss': "a head's maps to matching, loss and gradient",
    'growth': 'the loss for other batches, numbers of boxes and input sizes',
    'postprocess': "a head's maps to detections",
    'step': 'training steps of SSD300-VGG: the model alone, and from JPEG files',
    'detect': 'your own model in your own files, with where the time goes, beside its peers',
    'all': f'{", ".join(ALL[:-1])} and {ALL[-1]}',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure the plugin beside its peers.')
    commands = parser.add_subparsers(dest='part', required=True, metavar='PART')
    for part, summary in PARTS.items():
        command = commands.add_parser(part, help=summary, description=f'Measure {summary}.')
        add = command.add_argument
        add('--json', type=Path, help='file for every sample')
        add('--plot', type=Path, help='file for a bar chart')
        add('--repeats', type=int, help=f'rounds that count, {LEAST_REPEATS} or more')
        if part != 'pipeline':
            add('--device', choices=['cpu', 'cuda'], default='cpu')
        if part in ('step', 'all'):
            add('--amp', action='store_true', help='train ours as with --amp')
            add('--batch', type=int, help='images a training step')
            add('--workers', type=int, help="processes of each step's loader")
        if part == 'detect':
            add_detect(command)
        if part == 'step':
            add('--config', type=Path, help="another of the plugin's configs for VOC, by itself")
    # The defaults of options that only some parts have.
    parser.set_defaults(device='cpu', amp=False, batch=None, workers=None, config=None, models=())
    args = common.parse_args(parser)
    check(args)
    return args


def add_detect(command: argparse.ArgumentParser) -> None:
    """Add what is detected with, on what, and how."""
    common.add_config(command)
    add = command.add_argument
    add('models', nargs='+', metavar='MODEL', help='checkpoints, and exported .onnx and .tflite')
    text = "images, folders, patterns 'a/**/*.jpg' or videos; by default drawn photographs"
    add('--images', nargs='+', metavar='INPUT', help=text)
    numbers: dict[str, Any] = dict(nargs='+', type=common.positive, metavar='N')
    add('--batch', dest='batches', default=[1, 8], help='images at a time (1 8)', **numbers)
    text = "threads of PyTorch, OpenCV and the runtimes, by default PyTorch's choice"
    add('--threads', help=text, **numbers)
    text = "measure the process's CPU time, where others compute at the same time"
    add('--cpu-time', action='store_true', help=text)


def check(args: argparse.Namespace) -> None:
    """End the program with one line if an option has an impossible value."""
    if args.repeats is not None and args.repeats < LEAST_REPEATS:
        sys.exit(f'--repeats must be {LEAST_REPEATS} or more, for a median that means something')
    if args.batch is not None and args.batch < 1:
        sys.exit('--batch must be 1 or more')
    if args.workers is not None and args.workers < 0:
        sys.exit('--workers must be 0 or more')
    if args.plot and args.plot.suffix not in PLOT_TYPES:
        sys.exit(f'--plot takes a name that ends in {", ".join(PLOT_TYPES)}')
    for model in args.models:
        common.require_checkpoint(model)
    if args.part == 'step' and args.config and not args.config.is_file():
        sys.exit(f'--config: there is no file {args.config}')
    for path in filter(None, (args.json, args.plot)):
        target = path if path.exists() else path.absolute().parent
        if path.is_dir() or not os.access(target, os.W_OK):
            sys.exit(f"can't write {path}")


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore', category=DeprecationWarning)
    if args.part == 'detect':
        os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')  # as tools/detect.py has it
    require_device(args.device)
    from _bench import plot, report
    from _bench.acceptance import judge

    from ssd_plugin.engine.host_memory import keep_freed_memory

    keep_freed_memory()  # as the other commands; it serves all contestants

    console = Console(width=None if sys.stdout.isatty() else 120)
    facts = report.describe_environment(args.device)
    report.print_environment(console, facts)
    cases = []
    for part in ALL if args.part == 'all' else (args.part,):
        measured = measure(part, args)
        report.print_part(console, part, measured)
        cases += measured
    verdicts = judge(cases, args.device, args.amp)
    if verdicts:
        report.print_verdicts(console, verdicts)
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ('json', 'plot')}
        settings['config'] = args.config and str(args.config)
        described = [report.describe_case(case) for case in cases]
        document = dict(environment=facts, settings=settings, cases=described, acceptance=verdicts)
        args.json.write_text(json.dumps(document, indent=1) + '\n')
    if args.plot:
        plot.save_plot(args.plot, cases, facts)


def require_device(device: str) -> None:
    """End the program with one line if there is no such device; hide a GPU that isn't asked for."""
    if device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # MMEngine would train on a GPU that it sees
    import torch

    if device == 'cuda' and not torch.cuda.is_available():
        sys.exit('--device cuda needs a GPU that PyTorch can use')


def measure(part: str, args: argparse.Namespace) -> list:
    """Run one part; a progress line is drawn between the turns of the contestants, never in one."""
    from _bench import contestants, images, loss, pipeline, postprocess, step, timing, training

    repeats = args.repeats or REPEATS[part]
    slow = part == 'step' and args.device == 'cpu'
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    screen: dict[str, Any] = dict(console=Console(stderr=True), auto_refresh=False, transient=True)
    bar = Progress(*columns, **screen)
    with bar, tempfile.TemporaryDirectory() as folder:
        task = bar.add_task(part, total=repeats)

        def tell(what: str, turn: int) -> None:
            phase = what if turn > 0 else f'{what} (warm-up)'
            bar.update(task, description=f'{part}: {phase}', completed=max(turn, 0), refresh=True)

        stopwatch = timing.Stopwatch(
            args.device, repeats, warmup=1 if slow or part == 'detect' else 3, tell=tell
        )
        runs: dict = dict(loss=loss.run, growth=loss.run_growth, postprocess=postprocess.run)
        if part in runs:
            return runs[part](stopwatch)
        if part == 'detect':
            return measure_detection(stopwatch, args, Path(folder))
        tell('drawing images', 0)
        root = images.write_images(Path(folder, 'images'))
        if part == 'pipeline':
            return pipeline.run(stopwatch, root)
        settings = training.Settings(
            batch=args.batch or (2 if slow else 32),
            workers=min(4, os.cpu_count() or 1) if args.workers is None else args.workers,
            iterations=1 if slow else 10,
            amp=args.amp,
            config=args.config or contestants.OUR_CONFIG,
        )
        return step.run(stopwatch, root, Path(folder), settings)


def measure_detection(stopwatch: Any, args: argparse.Namespace, folder: Path) -> list:
    """Run the part ``detect``, in which a user's files may be wrong."""
    import torch
    from _bench import detect, images

    from ssd_plugin.inference.inputs import find_inputs

    with common.one_line_errors(args):
        cfg = common.prepare(args, ())
        drawn = [] if args.images else [f'{images.write_images(folder / "images")}/**/*.jpg']
        settings = detect.Settings(
            cfg=cfg,
            models=args.models,
            paths=find_inputs(args.images or drawn),
            device=args.device,
            batches=args.batches,
            threads=args.threads or [torch.get_num_threads()],
            timer=time.process_time if args.cpu_time else time.perf_counter,
        )
        return detect.run(stopwatch, settings, folder)


if __name__ == '__main__':
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no worker paused
    try:
        main()
    finally:
        signal.signal(signal.SIGTERM, before)
