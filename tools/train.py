"""Train a detector: python tools/train.py configs/ssd300_voc.py"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import _common as common
from mmengine.config import Config

if TYPE_CHECKING:  # it imports PyTorch
    from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector.')
    common.add_config(parser)
    common.add_run_options(parser)
    parser.add_argument(
        '--epochs',
        type=common.positive,
        metavar='N',
        help='train for N passes over the data; by default as the config says, with --data-root '
        'by the size of the data',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision, bfloat16 if possible')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch over all processes',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or without a value from the last one in the work dir',
    )
    text = 'begin with the weights of this checkpoint, as far as it knows the classes'
    parser.add_argument('--load-from', metavar='CHECKPOINT', help=text)
    parser.add_argument('--tensorboard', action='store_true', help='also log for TensorBoard')
    return common.parse_args(parser)


def main() -> None:
    args = parse_args()
    cfg = common.load_config(args)
    cfg.load_from = args.load_from or cfg.get('load_from')
    load_from = cfg.load_from
    if args.resume not in (None, 'auto'):
        cfg.resume, cfg.load_from = True, args.resume
    if args.tensorboard:
        log_for_tensorboard(cfg)
    if args.auto_scale_lr and not args.data_root:  # which scales it anyway
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            sys.exit(f'--auto-scale-lr needs auto_scale_lr.base_batch_size in {args.config}')
        cfg.auto_scale_lr.enable = True
    for option in ('train_cfg.max_iters', 'train_cfg.max_epochs'):
        if args.epochs and option in (args.cfg_options or {}):
            sys.exit(f'--epochs N and {option} exclude each other')
    if args.resume != 'auto':
        common.require_checkpoint(cfg.load_from)
    with common.one_line_errors(args):
        cfg, runner = prepare(cfg, args)
    if args.resume:  # the config that is written repeats the run, and does not go on with it
        runner.cfg.update(resume=False, load_from=load_from)
        runner.dump_config()
    with common.one_line_errors(args, also=()):
        runner.train()
    from _next_steps import print_next_steps

    print_next_steps(cfg, runner)


def prepare(cfg: Config, args: argparse.Namespace) -> tuple[Config, Runner]:
    """Check the data, fit the config to them, and build the runner."""
    if args.data_root:
        from _own_data import fit_for_training

        common.fit_input(cfg, args)
        cfg = fit_for_training(cfg, args)
    else:
        common.require_data(cfg, ('train', 'val'))
        common.fit_input(cfg, args)
    common.set_up(cfg, args.verbose)
    if args.resume == 'auto':
        resume_from_last(cfg, args)
    from ssd_plugin.datasets.check import require_sound_data
    from ssd_plugin.engine.amp import enable_amp
    from ssd_plugin.engine.launch import build_runner

    if not args.data_root:
        set_schedule(cfg, args)
    if args.strict:
        require_sound_data(cfg, ('train', 'val'))
    if args.amp:
        enable_amp(cfg)
    return cfg, common.with_console(build_runner(cfg), args)


def set_schedule(cfg: Config, args: argparse.Namespace) -> None:
    """Train for the epochs that the user wants, and say what the batch means for the rest."""
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    from ssd_plugin.engine.schedule import describe_scaled_batch, fit_batch, fit_schedule

    rank, processes = common.place_among_processes(args.launcher)
    lines = []
    if args.epochs:
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        num_images = len(DATASETS.build(cfg.train_dataloader.dataset))
        lines.append(fit_batch(cfg, num_images, processes))
        lines.append(fit_schedule(cfg, num_images, processes, args.epochs))
        common.merge_options(cfg, args)
    if args.auto_scale_lr:
        lines.append(describe_scaled_batch(cfg, processes))
    if rank == 0 and any(lines):
        print(*filter(None, lines), sep='\n', flush=True)


def resume_from_last(cfg: Config, args: argparse.Namespace) -> None:
    """Have training go on from the last checkpoint in the work directory, if there is one.

    A run that was killed before its first checkpoint begins as it did, from ``load_from``.
    """
    from ssd_plugin.engine.runner.checkpoint_files import has_checkpoints

    cfg.resume = has_checkpoints(Path(cfg.work_dir))
    if cfg.resume:
        cfg.load_from = None
        return
    common.require_checkpoint(cfg.load_from)
    rank, _ = common.place_among_processes(args.launcher)
    if rank == 0:
        print(f'No checkpoint in {cfg.work_dir}: training begins at its start', flush=True)


def log_for_tensorboard(cfg: Config) -> None:
    """Add MMEngine's TensorBoard backend to those of the config's visualizer."""
    if importlib.util.find_spec('tensorboard') is None:
        sys.exit('--tensorboard needs the package: pip install tensorboard')
    visualizer = cfg.setdefault('visualizer', dict(type='DetLocalVisualizer'))
    backends = list(visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
    if not any(backend['type'] == 'TensorboardVisBackend' for backend in backends):
        backends.append(dict(type='TensorboardVisBackend'))
    visualizer.vis_backends = backends


if __name__ == '__main__':
    main()
