"""Objects and priors by width and height, before and after fitting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssd_plugin.analysis.fit_priors.arguments import PriorArgs
from ssd_plugin.analysis.fit_priors.coverage import Coverage
from ssd_plugin.analysis.fit_priors.objects import Objects
from ssd_plugin.analysis.fit_priors.reach import shapes_of
from ssd_plugin.visualization.style import BLUE, ORANGE

TICKS = (2, 5, 10, 20, 50, 100, 200, 500, 1000)


def draw_fit(
    objects: Objects, settings: Sequence[tuple[str, PriorArgs, Coverage]], what: str
) -> Figure:
    """A panel for each setting: which objects it reaches, and the sides of its priors.

    Args:
        objects: The objects.
        settings: Name, arguments and coverage of each.
        what: The title of the whole.
    """
    figure = Figure(figsize=(5.6 * len(settings) + 0.4, 6.9), layout='constrained')
    panels = figure.subplots(1, len(settings), squeeze=False, sharex=True, sharey=True)[0]
    shapes = [[shapes_of(*level) for level in zip(*args)] for _, args, _ in settings]
    sides = np.concatenate([objects.sides, *sum(shapes, [])], axis=1)
    limits = sides.min() / 1.2, sides.max() * 1.2
    for axes, levels, (name, _, coverage) in zip(panels, shapes, settings):
        _draw_panel(axes, objects, levels, coverage, limits)
        share50, share70, mean, matched = coverage.figures(np.ones(len(coverage.iou), dtype=bool))
        axes.set_title(
            f'{name}: {share50:.1%} reached at IoU 0.5, {share70:.1%} at 0.7\n'
            f'mean best IoU {mean:.3f}, {matched:.1f} matched priors an object',
            fontsize=11,
        )
    panels[0].set_ylabel('height in pixels of the network input', fontsize=10)
    figure.suptitle(what, fontsize=13, fontweight='bold')
    dot = dict(linestyle='', marker='o', markersize=6)
    box = dict(dot, marker='s', markersize=10, markeredgecolor='black')
    handles = [
        Line2D([], [], color=BLUE, label='object reached at IoU 0.5', **dot),
        Line2D([], [], color=ORANGE, label='object not reached', **dot),
        Line2D([], [], color='white', label='prior, with the number of its level', **box),
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=3, frameon=False, fontsize=10)
    return figure


def _draw_panel(
    axes: Axes,
    objects: Objects,
    levels: Sequence[np.ndarray],
    coverage: Coverage,
    limits: tuple[float, float],
) -> None:
    """Objects as dots, the priors (2, A_k) of each level as numbers in boxes."""
    width, height = objects.sides
    reached = coverage.iou >= 0.5
    # The few that are not reached are to be seen among the many that are.
    for members, style in (
        (reached, dict(color=BLUE, alpha=0.35, zorder=1)),
        (~reached, dict(color=ORANGE, alpha=0.8, zorder=2)),
    ):
        axes.scatter(width[members], height[members], s=9, linewidth=0, **style)
    for level, shapes in enumerate(levels):
        for w, h in shapes.T:
            axes.annotate(
                str(level),
                (w, h),
                fontsize=7.5,
                ha='center',
                va='center',
                zorder=3,
                bbox=dict(boxstyle='square,pad=0.2', facecolor='white', edgecolor='black'),
            )
    for axis, set_scale, set_limits in (
        (axes.xaxis, axes.set_xscale, axes.set_xlim),
        (axes.yaxis, axes.set_yscale, axes.set_ylim),
    ):
        set_scale('log')
        axis.set_ticks(TICKS, [str(tick) for tick in TICKS])
        axis.set_ticks([], minor=True)
        set_limits(limits)
    axes.grid(color='#e5e5e5')
    axes.set_axisbelow(True)
    axes.set_xlabel('width in pixels of the network input', fontsize=10)
