"""Train a detector: python tools/train.py configs/ssd300_voc.py"""

from __future__ import annotations

import argparse
import sys

import _common as common


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector.')
    parser.add_argument('config', help='config file')
    common.add_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='mixed precision; on a CPU in bfloat16')
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
    return common.parse_args(parser)


def main() -> None:
    args = parse_args()
    cfg = common.load_config(args)
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr and not args.data_root:  # which scales it anyway
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            sys.exit(f'--auto-scale-lr needs auto_scale_lr.base_batch_size in {args.config}')
        cfg.auto_scale_lr.enable = True
    common.require_checkpoint(cfg.get('load_from'))
    if args.data_root:
        from _data_root.command import fit_for_training

        cfg = fit_for_training(cfg, args)
    else:
        common.require_data(cfg, ('train', 'val'))

    common.set_up(cfg)
    from ssd_plugin.amp import enable_amp
    from ssd_plugin.launch import build_runner

    if args.amp:
        enable_amp(cfg)
    build_runner(cfg).train()


if __name__ == '__main__':
    main()
