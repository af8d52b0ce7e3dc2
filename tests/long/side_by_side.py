"""How well does ours learn a data set, beside what a user would train instead?

    python -m tests.long.side_by_side data/bccd --config configs/ssdlite320_efficientnetlite0.py \
        --weights weights.pth --epochs 60 --seed 0 --detector torchvision --out runs/a.json
    python -m tests.long.side_by_side --report runs

The first form trains one detector as `tools/train.py CONFIG --data-root DIR` would, then tests
the last weights, in float32: ours, MMDetection's `SSDHead`, or torchvision's `SSD`. Images, their
order and augmentation, normalisation, backbone and neck with their weights, optimizer, schedule,
priors and evaluation are the same; see `tests.support.peer_detectors`. The second form prints a
table of all runs in a folder, and draws it as side_by_side.png there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from rich.table import Table

import ssd_plugin  # noqa: F401  (first: it prepares what MMDetection needs)
from tests.support.commands import ROOT
from tests.support.peer_detectors import DETECTORS, with_detector

# isort: split
import torch
from matplotlib.figure import Figure
from mmengine.hooks import Hook

from ssd_plugin.engine.amp import enable_amp
from ssd_plugin.engine.launch import build_runner
from ssd_plugin.visualization import style

sys.path.insert(0, str(ROOT / 'tools'))
import _common as common
import train as train_tool
from _own_data import fit_for_training

NAMES = dict(ours='ssd_plugin', mmdet="MMDetection's SSDHead", torchvision="torchvision's SSD")
PLOT = 'side_by_side.png'


class StopwatchHook(Hook):
    """Seconds that passed in the epochs of training, with loading and without evaluations."""

    def __init__(self):
        self.seconds = 0.0

    def before_train_epoch(self, runner):
        self.begin = time.perf_counter()

    def after_train_epoch(self, runner):
        self.seconds += time.perf_counter() - self.begin


# --- a run ---------------------------------------------------------------------------------------


def run(args):
    """Train and test one detector: what is written as its json."""
    options = [f'randomness.seed={args.seed}', *args.cfg_options]
    sys.argv = [
        'train.py', str(args.config), '--data-root', str(args.data_root),
        '--work-dir', str(args.out.with_suffix('')), '--cfg-options', *options,
        *(['--epochs', str(args.epochs)] if args.epochs else []),
    ]  # fmt: skip
    told = train_tool.parse_args()
    cfg = common.load_config(told)
    if args.weights:
        set_weights(cfg.model.backbone, str(args.weights.resolve()))
    common.fit_input(cfg, told)
    cfg = fit_for_training(cfg, told)
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None  # one evaluation, at the end
    epochs = cfg.train_cfg.max_epochs
    cfg.default_hooks.checkpoint.update(interval=epochs, save_best=None)
    common.set_up(cfg)
    with_detector(cfg, args.detector)
    if args.amp:
        enable_amp(cfg)
    runner = common.with_console(build_runner(cfg), told)
    stopwatch = StopwatchHook()
    runner.register_hook(stopwatch)
    runner.train()
    return dict(
        detector=args.detector,
        data=args.data_root.resolve().name,
        config=args.config.stem,
        seed=args.seed,
        epochs=epochs,
        amp=args.amp,
        metrics={name: float(value) for name, value in runner.test().items()},
        seconds=stopwatch.seconds,
        parameters=sum(value.numel() for value in runner.model.parameters()),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
        torch=torch.__version__,
    )


def set_weights(backbone, file):
    """Have a backbone start from a file, by the argument that its config has for that."""
    for key in ('pretrained', 'weights'):  # of TimmBackbone, of TorchvisionBackbone
        if key in backbone:
            backbone[key] = file
            return
    backbone.init_cfg = dict(type='Pretrained', checkpoint=file)


# --- the report ----------------------------------------------------------------------------------


def read_runs(folder):
    """The runs in a folder by (data, config, epochs, amp, device), and in these by detector."""
    groups = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob('*.json')):
        found = json.loads(path.read_text())
        if 'detector' in found:
            keys = ('data', 'config', 'epochs', 'amp', 'device')
            groups[tuple(found[key] for key in keys)][found['detector']].append(found)
    if not groups:
        sys.exit(f'no runs in {folder}/*.json')
    return {
        group: {name: runs[name] for name in DETECTORS if name in runs}
        for group, runs in sorted(groups.items())
    }


def precision(found):
    """The mAP of a run."""
    return next(value for name, value in found['metrics'].items() if name.endswith('mAP'))


def make_table(group, detectors):
    """A row for each detector on a data set: mean and standard deviation over the seeds."""
    data, config, epochs, amp, device = group
    title = (
        f'{data}: {config}, {epochs} epochs, {"mixed precision" if amp else "float32"}, {device}'
    )
    table = Table('detector', 'seeds', 'mAP', 'lowest', 'highest', 's a run', title=title)
    for name, runs in detectors.items():
        values = [precision(found) for found in runs]
        spread = f' ± {stdev(values):.3f}' if len(values) > 1 else ''
        seconds = mean(found['seconds'] for found in runs)
        table.add_row(
            NAMES[name], str(len(runs)), f'{mean(values):.3f}{spread}', f'{min(values):.3f}',
            f'{max(values):.3f}', f'{seconds:.0f}',
        )  # fmt: skip
    return table


def draw(groups):
    """A panel for each data set: a line is the mean of a detector's runs, a dot is a run."""
    figure = Figure(figsize=(max(6.5, 3.4 * len(groups)), 3.6), layout='constrained')
    panels = style.add_panels(figure, len(groups), len(groups), sharey=True)
    lowest = 1.0
    for axes, (group, detectors) in zip(panels, groups.items()):
        for place, runs in enumerate(detectors.values()):
            values, color = [precision(found) for found in runs], style.PALETTE[place]
            axes.hlines(mean(values), place - 0.3, place + 0.3, color=color, linewidth=3, zorder=2)
            places = [place + 0.12 * (i - (len(values) - 1) / 2) for i in range(len(values))]
            axes.scatter(places, values, color=color, edgecolor='white', s=40, zorder=3)
            # Below, since the axis ends at 1, of which the best come near.
            look = dict(textcoords='offset points', ha='center', va='top', fontsize=style.FONT + 1)
            axes.annotate(f'{mean(values):.3f}', (place, min(values)), (0, -8), **look)
            lowest = min(lowest, *values)
        labels = [NAMES[name].replace(' ', '\n') for name in detectors]
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        axes.set_title(f'{group[0]}, {group[2]} epochs', fontsize=style.FONT + 2)
        style.add_grid(axes)
        axes.grid(visible=False, axis='x')
    panels[0].set_ylim(max(0, lowest - 0.1) // 0.05 * 0.05, 1.0)
    panels[0].set_ylabel('mAP at IoU 0.5, test images')
    configs = ', '.join(dict.fromkeys(config for _, config, *_ in groups))
    style.add_title_and_legend(figure, f'Mean and single runs: {configs}')
    return figure


# --- the command ---------------------------------------------------------------------------------


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data_root', type=Path, nargs='?')
    parser.add_argument('--report', type=Path, metavar='FOLDER', help='of jsons: no run')
    parser.add_argument('--config', type=Path, help='of ours, with the recipe')
    parser.add_argument('--weights', type=Path, help="of the backbone, by default the config's")
    parser.add_argument('--epochs', type=int, help="by default the recipe's, as in tools/train.py")
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--detector', choices=DETECTORS, default='ours')
    parser.add_argument('--out', type=Path, help='a json; logs go into the folder of that name')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='as those of tools/train.py')
    args = parser.parse_args()
    if not args.report and not (args.data_root and args.config and args.out):
        parser.error('DATA_ROOT, --config and --out, or --report FOLDER')
    return args


def main():
    args = parse_args()
    if args.report:
        groups = read_runs(args.report)
        common.console().print(*(make_table(*group) for group in groups.items()), sep='\n')
        print(style.save(draw(groups), args.report / PLOT))
        return
    result = run(args)
    args.out.write_text(json.dumps(result, indent=1))
    print(f'{NAMES[args.detector]}: mAP {precision(result):.3f} in {result["seconds"]:.0f} s')


if __name__ == '__main__':
    main()
