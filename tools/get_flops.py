"""Size and cost of models: python tools/get_flops.py CONFIG..."""

from __future__ import annotations

import argparse
from pathlib import Path

import _common as common


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Print priors, parameters and MACs of models.')
    parser.add_argument('configs', nargs='+', help='config files')
    parser.add_argument('--markdown', action='store_true', help='print rows of a Markdown table')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    configs = [(path, common.read_config(path)) for path in args.configs]

    import ssd_plugin  # noqa: F401 - first: makes MMDetection importable without compiled ops

    # isort: split
    from rich.table import Table

    from ssd_plugin.analysis.prior_grid import measure_complexity

    rows = []
    for path, cfg in configs:
        with common.one_line_errors(argparse.Namespace(config=path), also=()):
            common.import_plugin(cfg, verbose=False)
            (width, height), priors, parameters, macs = measure_complexity(cfg)
        counts = f'{priors}', f'{parameters / 1e6:.2f} M', f'{macs / 1e9:.2f} G'
        rows.append([Path(path).stem, f'{width} x {height}', *counts])
    if args.markdown:
        print('\n'.join(f'| {" | ".join(row)} |' for row in rows))
        return
    table = Table('model')
    for name in ('input', 'priors', 'parameters', 'MACs'):
        table.add_column(name, justify='right')
    for row in rows:
        table.add_row(*row)
    common.console().print(table)


if __name__ == '__main__':
    main()
