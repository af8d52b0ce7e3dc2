"""What fitting has found, in tables and as a config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ssd_plugin.analysis.fit_priors.fitting import Fit, groups

CONFIG = """\
# Made by tools/fit_priors.py. {boxes}.
# Reached by a prior at IoU 0.5: {after[0]:.1%}, at 0.7: {after[1]:.1%} \
(before: {before[0]:.1%} and {before[1]:.1%}).
_base_ = {base!r}
work_dir = {work_dir!r}  # of its own: the base's has the training to compare with

model = dict(
    bbox_head=dict(
        anchor_generator=dict(
{arguments}
        )
    )
)
"""


def describe_boxes(fit: Fit) -> str:
    """How many objects were read, and how many were left out and why."""
    boxes = fit.boxes
    text = f'{len(boxes.labels)} objects in {boxes.num_images} images'
    left_out = ', '.join(f'{number} {reason}' for reason, number in boxes.left_out.most_common())
    return f'{text}; left out: {left_out}' if left_out else text


def coverage_table(fit: Fit) -> Table:
    """What the priors reach, before and after, for groups of ground-truth boxes."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column('objects', overflow='fold')
    for name in ('number', '% at IoU 0.5', '% at 0.7', 'mean best IoU', 'matched'):
        table.add_column(name, justify='right', no_wrap=True)
    coverages = [fit.before] + ([fit.after] if fit.after else [])
    for name, members in groups(fit.boxes):
        figures = zip(*(coverage.figures(members) for coverage in coverages))
        formats = ('{:.1%}', '{:.1%}', '{:.2f}', '{:.1f}')
        cells = [
            ' → '.join(form.format(value).rstrip('%') for value in values)
            for form, values in zip(formats, figures)
        ]
        table.add_row(Text(name), str(members.sum()), *cells, end_section=name == 'all')
    return table


def levels_table(fit: Fit) -> Table:
    """The priors' arguments, before and after, for each level."""
    table = Table(box=SIMPLE_HEAD)
    for name in ('level', 'stride', 'cells', 'min size', 'max size', 'ratios'):
        table.add_column(name, justify='right')
    settings = [fit.given] + ([fit.proposed] if fit.proposed else [])
    rows = zip(fit.grid.generator.strides, fit.grid.featmap_sizes)
    for level, ((width, height), (down, across)) in enumerate(rows):
        stride = f'{width:g}' if width == height else f'{width:g} x {height:g}'
        numbers = zip(*([_format(values[level]) for values in args] for args in settings))
        cells = [' → '.join(dict.fromkeys(values)) for values in numbers]
        table.add_row(str(level), stride, f'{across} x {down}', *cells)
    return table


def _format(value: float | Sequence[float]) -> str:
    """A number, or several, with no more digits than needed."""
    return ', '.join(f'{number:.4g}' for number in np.atleast_1d(value))


def config_text(fit: Fit, base: str | Path, path: str | Path) -> str:
    """A config, to be written to ``path``, that inherits ``base`` and has the proposed priors."""
    if fit.proposed is None or fit.after is None:
        raise ValueError('no priors are proposed')
    args = fit.proposed._asdict()
    if fit.by_linear_rule:
        args['basesize_ratio_range'] = None  # sizes are given in one way only
    return CONFIG.format(
        boxes=describe_boxes(fit), before=fit.before.figures(), after=fit.after.figures(),
        work_dir=Path(path).with_suffix('').as_posix(),
        base=Path(os.path.relpath(base, Path(path).parent)).as_posix(),
        arguments='\n'.join(f'{12 * " "}{name}={value!r},' for name, value in args.items()),
    )  # fmt: skip
