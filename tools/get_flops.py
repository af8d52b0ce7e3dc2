"""Size and cost of models: python tools/get_flops.py CONFIG..."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import _common as common

if TYPE_CHECKING:
    from ssd_plugin.analysis.complexity import Complexity


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

    from ssd_plugin.analysis.complexity import measure_complexity

    rows = [[Path(path).stem, *describe(measure_complexity(cfg))] for path, cfg in configs]
    if args.markdown:
        print('\n'.join(f'| {" | ".join(row)} |' for row in rows))
        return
    table = Table('model')
    for name in ('input', 'priors', 'parameters', 'MACs'):
        table.add_column(name, justify='right')
    for row in rows:
        table.add_row(*row)
    common.console().print(table)


def describe(complexity: Complexity) -> list[str]:
    """A model's figures, as the table shows them."""
    width, height = complexity.input_size
    return [
        f'{width} x {height}',
        f'{complexity.num_priors}',
        f'{complexity.num_parameters / 1e6:.2f} M',
        f'{complexity.num_macs / 1e9:.2f} G',
    ]


if __name__ == '__main__':
    main()
