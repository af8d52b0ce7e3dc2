"""Ground-truth boxes and priors by width and height, before and after fitting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssd_plugin.analysis.fit_priors.fitting import Fit
from ssd_plugin.analysis.fit_priors.reach import shapes_of
from ssd_plugin.visualization.style import BLUE, ORANGE, add_grid, add_title_and_legend

TICKS = (2, 5, 10, 20, 50, 100, 200, 500, 1000)


def draw_fit(fit: Fit, title: str) -> Figure:
    """Draw a panel for each setting: which boxes it reaches, and the sides of its priors.

    Where fitting proposes nothing, there is one panel.
    """
    settings = [('as they are', fit.given, fit.before)]
    if fit.proposed and fit.after:
        settings = [('before', fit.given, fit.before), ('after', fit.proposed, fit.after)]
    figure = Figure(figsize=(5.6 * len(settings) + 0.4, 6.9), layout='constrained')
    panels = figure.subplots(1, len(settings), squeeze=False, sharex=True, sharey=True)[0]
    shapes = [[shapes_of(*level) for level in zip(*args)] for _, args, _ in settings]
    sides = np.concatenate([fit.boxes.sides, *sum(shapes, [])], axis=1)
    limits = sides.min() / 1.2, sides.max() * 1.2
    for axes, levels, (name, _, coverage) in zip(panels, shapes, settings):
        _draw_boxes_and_priors(axes, fit.boxes.sides, coverage.iou >= 0.5, levels)
        axes.set(xscale='log', yscale='log')
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(TICKS, [str(tick) for tick in TICKS])
            axis.set_ticks([], minor=True)
        axes.set(xlim=limits, ylim=limits)  # last, as ticks widen the limits
        add_grid(axes)
        share50, share70, mean, matched = coverage.figures()
        axes.set_title(
            f'{name}: {share50:.1%} reached at IoU 0.5, {share70:.1%} at 0.7\n'
            f'mean best IoU {mean:.3f}, {matched:.1f} matched priors an object',
            fontsize=11,
        )
        axes.set_xlabel('width in pixels of the network input', fontsize=10)
    panels[0].set_ylabel('height in pixels of the network input', fontsize=10)
    dot: dict[str, Any] = dict(linestyle='', marker='o', markersize=6)
    box: dict[str, Any] = dict(dot, marker='s', markersize=10, markeredgecolor='black')
    handles = [
        Line2D([], [], color=BLUE, label='object reached at IoU 0.5', **dot),
        Line2D([], [], color=ORANGE, label='object not reached', **dot),
        Line2D([], [], color='white', label='prior, with the number of its level', **box),
    ]
    add_title_and_legend(figure, title, handles)
    return figure


def _draw_boxes_and_priors(
    axes: Axes, sides: np.ndarray, reached: np.ndarray, levels: Sequence[np.ndarray]
) -> None:
    """Draw boxes with sides (2, N) as dots, the priors (2, A_k) of each level as its number."""
    dots: dict[str, Any] = dict(s=9, linewidth=0)
    axes.scatter(*sides[:, reached], color=BLUE, alpha=0.35, zorder=1, **dots)
    # The few that are not reached lie above the many that are.
    axes.scatter(*sides[:, ~reached], color=ORANGE, alpha=0.8, zorder=2, **dots)
    frame = dict(boxstyle='square,pad=0.2', facecolor='white', edgecolor='black')
    look: dict[str, Any] = dict(ha='center', va='center', fontsize=7.5, zorder=3, bbox=frame)
    for level, shapes in enumerate(levels):
        for side in shapes.T:
            axes.annotate(str(level), side, **look)
