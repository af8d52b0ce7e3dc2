"""Loss, mean average precision and learning rate of training runs, from MMEngine's logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.errors import InputError
from ssd_plugin.visualization import style

SIZE = (11, 9.5)  # inches
Series = dict[str, list[tuple[int, float]]]  # for each name (iteration, value), by iteration


def read_work_dir(work_dir: Path) -> Series:
    """What has been logged in a work directory, by name and iteration.

    The runs in it (``TIME/vis_data/scalars.json``) are joined in the order of their names, which
    are times. From its first iteration on, a later run replaces what earlier ones have logged,
    whether it was resumed or is a new start. MMEngine numbers evaluations by epochs; here, they
    stand at the last iteration that was logged before them, in this run or in those that it
    continues. One that was repeated on resumption replaces the other.

    Raises:
        InputError: If no training has been logged there.
    """
    joined: Series = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        run = read_log(path)
        if 'loss' not in run:  # a test, or nothing yet
            continue
        begin = run['loss'][0][0]
        before = max((step for step, _ in joined.get('loss', []) if step < begin), default=0)
        for name in dict.fromkeys([*joined, *run]):
            points = [(step or before, value) for step, value in run.get(name, [])]
            end = points[0][0] if points else begin
            kept = [point for point in joined.get(name, []) if point[0] < min(begin, end)]
            joined[name] = kept + points
    if not joined:
        raise InputError(f'no training has been logged in {work_dir}/*/vis_data/scalars.json')
    return joined


def read_log(path: Path) -> Series:
    """Read the log of one run: a line of JSON for each time that something was logged.

    What was logged before the first loss, which is an evaluation, has iteration 0.
    """
    series: Series = {}
    step = 0
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # cut off, as by a full disk
            continue
        if 'loss' in entry:
            step = entry['step']
        for name, value in entry.items():
            series.setdefault(name, []).append((step, value))
    return series


def draw_curves(runs: dict[str, Series], title: str) -> Figure:
    """Draw loss, mAP and learning rate over iterations, in panels below each other.

    ``runs`` is what has been logged, by the name of each run; each gets a colour of its own.
    """
    figure = Figure(figsize=SIZE, layout='constrained')
    loss, precision, rate = figure.subplots(3, 1, sharex=True, height_ratios=[2, 2, 1])
    names = dict.fromkeys(name for run in runs.values() for name in run)  # as they were logged
    losses = [['loss'], *([name] for name in names if name.startswith('loss_'))]
    metrics = [[name] for name in names if name.endswith('mAP')]
    _draw_panel(loss, runs, losses, 'loss')
    _draw_panel(precision, runs, metrics, 'mean average precision', marker='o')
    # 'lr' is that of the first parameter group, which may be only a part of the config's.
    _draw_panel(rate, runs, [['base_lr', 'lr']], 'learning rate')
    loss.set_ylim(bottom=0)
    precision.set_ylim(0, 1)
    if not metrics:
        precision.text(0.5, 0.5, 'not evaluated', ha='center', transform=precision.transAxes)
    rate.set_yscale('log')
    rate.set_xlabel('iterations', fontsize=style.FONT + 1)
    handles = [stroke.handle(run) for run, stroke in zip(runs, style.strokes(len(runs)))]
    style.add_title_and_legend(figure, title, handles, columns=4)
    return figure


def _draw_panel(
    axes: Axes,
    runs: dict[str, Series],
    groups: Sequence[Sequence[str]],
    label: str,
    marker: str | None = None,
) -> None:
    """Draw a line for each run and group of names: the first series of the group that it has."""
    dashes = list(islice(cycle(style.DASHES), len(groups)))
    for series, stroke in zip(runs.values(), style.strokes(len(runs))):
        for number, (group, dash) in enumerate(zip(groups, dashes)):
            name = next((name for name in group if name in series), None)
            if name is not None:
                look: dict[str, Any] = dict(color=stroke.color, linestyle=dash, marker=marker)
                look.update(markersize=5, linewidth=1.1 if number else 2)
                axes.plot(*zip(*series[name]), **look)
    axes.set_ylabel(label, fontsize=style.FONT + 1)
    style.add_grid(axes)
    axes.spines[['top', 'right']].set_visible(False)
    if len(groups) > 1:
        lines = [style.Stroke(style.BLACK, dash, 1.2) for dash in dashes]
        handles = [line.handle(group[0]) for line, group in zip(lines, groups)]
        axes.legend(handles=handles, frameon=False, fontsize=style.FONT)
