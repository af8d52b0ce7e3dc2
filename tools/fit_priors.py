"""Fit a config's priors to the boxes of its training set: python tools/fit_priors.py CONFIG"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _common as common


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Fit priors to the boxes of a training set.')
    common.add_config(parser)
    add = parser.add_argument
    where = 'the new config, by default WORK_DIR/fitted_priors.py; a figure goes beside it'
    add('--out', type=Path, help=where)
    sample = 'of a larger training set, so many images are drawn at random (5000)'
    add('--max-images', type=common.positive, default=5000, help=sample)
    add('--seed', type=int, default=0, help='of that draw and of the search')
    args = common.parse_args(parser)
    if args.out and args.out.suffix != '.py':
        parser.error(f'--out is a config, NAME.py, not {args.out}')
    return args


def main() -> None:
    args = parse_args()
    with common.one_line_errors(args):
        fit(args)


def fit(args: argparse.Namespace) -> None:
    cfg = common.prepare(args, ('train',))
    out = args.out or Path(cfg.work_dir, 'fitted_priors.py')
    common.require_writable(out)
    if out.resolve() == Path(args.config).resolve():
        sys.exit(f'{out} is the config itself: name another file by --out')
    import torch

    from ssd_plugin.analysis.fit_priors import report
    from ssd_plugin.analysis.fit_priors.fitting import fit_priors
    from ssd_plugin.visualization.fitted_priors import draw_fit
    from ssd_plugin.visualization.style import save

    torch.set_num_threads(1)  # its tensors are small: a second thread costs more than it gives
    console = common.console()
    with console.status('Reading the annotations, searching'):
        found = fit_priors(cfg, args.max_images, args.seed)
    console.print(report.describe_boxes(found), highlight=False)
    console.print(report.coverage_table(found), report.levels_table(found))

    title = f'Priors of {Path(args.config).name} and {len(found.boxes.labels)} objects'
    figure = save(draw_fit(found, title), out.with_suffix('.png'))
    if found.proposed:
        out.write_text(report.config_text(found, args.config, out), encoding='utf-8')
        print(f'{out}: the config with the proposed priors')
    else:
        print('Nothing better was found: keep these priors')
    print(f'{figure}: objects and priors')


if __name__ == '__main__':
    main()
