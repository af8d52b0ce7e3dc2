"""Fit a config's priors to the objects of its training set: python tools/fit_priors.py CONFIG"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Fit priors to the objects of a training set.')
    _config.add_config(parser)
    parser.add_argument(
        '--out',
        type=Path,
        help='the new config, by default WORK_DIR/fitted_priors.py; an image goes beside it',
    )
    parser.add_argument(
        '--max-images',
        type=int,
        default=5000,
        help='of a larger training set, so many images are drawn at random (5000)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of that draw and of the search')
    args = _config.parse_args(parser)
    if args.max_images < 1:
        parser.error(f'--max-images must be at least 1, not {args.max_images}')
    if args.out and args.out.suffix != '.py':
        parser.error(f'--out is a config, NAME.py, not {args.out}')
    return args


def main() -> None:
    args = parse_args()
    cfg = _config.read(args, ('train',))
    import torch

    from ssd_plugin.analysis.fit_priors.fitting import fit_priors
    from ssd_plugin.analysis.fit_priors.report import (
        config_text,
        coverage_table,
        describe_objects,
        levels_table,
    )
    from ssd_plugin.visualization.fitted_priors import draw_fit
    from ssd_plugin.visualization.style import save

    torch.set_num_threads(1)  # its tensors are small: a second thread costs more than it gives
    console = _config.console()
    try:
        with console.status('Reading the objects, searching'):
            fit = fit_priors(cfg, args.max_images, args.seed)
    except ValueError as error:
        sys.exit(f'{args.config}: {error}')
    console.print(describe_objects(fit), highlight=False)
    console.print(coverage_table(fit), levels_table(fit))

    out = args.out or Path(cfg.work_dir, 'fitted_priors.py')
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = [('as they are', fit.given, fit.before)]
    if fit.proposed:
        settings = [('before', fit.given, fit.before), ('after', fit.proposed, fit.after)]
    title = f'Priors of {Path(args.config).name} and {len(fit.objects.labels)} objects'
    image = save(draw_fit(fit.objects, settings, title), out.with_suffix('.png'))
    if fit.proposed:
        out.write_text(config_text(fit, args.config, out), encoding='utf-8')
        print(f'{out}: the config with the proposed priors\n{image}: objects and priors')
    else:
        print(f'Nothing better was found: keep these priors\n{image}: objects and priors')


if __name__ == '__main__':
    main()
