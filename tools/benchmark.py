"""Measure the plugin beside MMDetection and torchvision: python tools/benchmark.py all"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import _common  # noqa: F401 - finds the package in a clone that has not been installed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LEAST_REPEATS = 7
REPEATS = dict(pipeline=9, loss=11, growth=7, postprocess=21, step=7)
ALL = ('pipeline', 'loss', 'postprocess', 'step')
PLOT_TYPES = ('.png', '.svg', '.pdf')
PARTS = {
    'pipeline': 'a JPEG file to an augmented, packed sample',
    'loss': "a head's maps to matching, loss and gradient",
    'growth': 'the loss for other batches, numbers of objects and input sizes',
    'postprocess': "a head's maps to detections",
    'step': 'training steps of SSD300-VGG: the model alone, and from JPEG files',
    'all': f'{", ".join(ALL[:-1])} and {ALL[-1]}',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure the plugin beside its peers.')
    commands = parser.add_subparsers(dest='part', required=True, metavar='PART')
    for part, summary in PARTS.items():
        command = commands.add_parser(part, help=summary, description=f'Measure {summary}.')
        command.add_argument('--json', type=Path, help='file for every sample')
        command.add_argument('--plot', type=Path, help='file for a bar chart')
        command.add_argument(
            '--repeats', type=int, help=f'rounds that count, {LEAST_REPEATS} or more'
        )
        if part != 'pipeline':
            command.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
        if part in ('step', 'all'):
            command.add_argument('--amp', action='store_true', help='train ours as with --amp')
            command.add_argument('--batch', type=int, help='images a training step')
            command.add_argument('--workers', type=int, help="processes of each step's loader")
        if part == 'step':
            command.add_argument(
                '--config', type=Path, help="another of the plugin's configs for VOC, by itself"
            )
    # Those that not every part has.
    parser.set_defaults(device='cpu', amp=False, batch=None, workers=None, config=None)
    args = parser.parse_args()
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """End the program with one line if what is asked for can't be done."""
    if args.repeats is not None and args.repeats < LEAST_REPEATS:
        sys.exit(f'--repeats must be {LEAST_REPEATS} or more, for a median that means something')
    if args.batch is not None and args.batch < 1:
        sys.exit('--batch must be 1 or more')
    if args.workers is not None and args.workers < 0:
        sys.exit('--workers must be 0 or more')
    if args.plot and args.plot.suffix not in PLOT_TYPES:
        sys.exit(f'--plot takes a name that ends in {", ".join(PLOT_TYPES)}')
    if args.config and not args.config.is_file():
        sys.exit(f'--config: there is no file {args.config}')
    for path in filter(None, (args.json, args.plot)):
        target = path if path.exists() else path.absolute().parent
        if path.is_dir() or not os.access(target, os.W_OK):
            sys.exit(f"can't write {path}")


def require_device(device: str) -> None:
    """End the program with one line if there is no such device; hide a GPU that isn't asked for."""
    if device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # MMEngine would train on a GPU that it sees
    import torch

    if device == 'cuda' and not torch.cuda.is_available():
        sys.exit('--device cuda needs a GPU that PyTorch can use')


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no worker paused
    warnings.filterwarnings('ignore', category=DeprecationWarning)
    require_device(args.device)
    import ssd_plugin  # noqa: F401 - first: makes MMDetection importable without compiled ops

    # isort: split
    from _bench import environment, plot, report
    from _bench.acceptance import judge

    console = Console(width=None if sys.stdout.isatty() else 120)
    facts = environment.describe(args.device)
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
        document = report.to_json(facts, settings, cases, verdicts)
        args.json.write_text(json.dumps(document, indent=1) + '\n')
    if args.plot:
        plot.save_plot(args.plot, cases, facts)


def measure(part: str, args: argparse.Namespace) -> list:
    """Run one part, with a line of progress."""
    from _bench import configs, images, loss, pipeline, postprocess, step
    from _bench.timing import Stopwatch

    repeats = args.repeats or REPEATS[part]
    slow = part == 'step' and args.device == 'cpu'
    with progress(part, repeats) as tell, tempfile.TemporaryDirectory() as folder:
        stopwatch = Stopwatch(args.device, repeats, warmup=1 if slow else 3, tell=tell)
        if part in ('pipeline', 'step'):
            tell('drawing images', 0)
            root = images.write_images(Path(folder, 'images'))
        if part == 'pipeline':
            return pipeline.run(stopwatch, root)
        if part == 'step':
            settings = step.Settings(
                batch=args.batch or (2 if slow else 32),
                workers=min(4, os.cpu_count()) if args.workers is None else args.workers,
                iterations=1 if slow else 10,
                amp=args.amp,
                config=args.config or configs.OUR_CONFIG,
            )
            return step.run(stopwatch, root, Path(folder), settings)
        runs = dict(loss=loss.run, growth=loss.run_growth, postprocess=postprocess.run)
        return runs[part](stopwatch)


@contextmanager
def progress(part: str, repeats: int) -> Iterator[Callable[[str, int], None]]:
    """A line on the screen that says whose turn it is; drawn between the turns, never in them."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, auto_refresh=False, transient=True
    ) as bar:
        task = bar.add_task(part, total=repeats)

        def tell(what: str, turn: int) -> None:
            phase = what if turn > 0 else f'{what} (warm-up)'
            bar.update(task, description=f'{part}: {phase}', completed=max(turn, 0), refresh=True)

        yield tell


if __name__ == '__main__':
    main()
