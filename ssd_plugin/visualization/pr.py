"""The plot of ``show.py pr``: precision over recall, a panel for each class."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.evaluation.pr import Curve
from ssd_plugin.visualization.style import BLUE, FONT, ORANGE

PANEL, MAX_COLUMNS = 2.7, 6  # inches


def draw_pr(curves: Sequence[Curve], title: str) -> Figure:
    """A panel for each class.

    Args:
        curves: At least one.
        title: Of the whole.
    """
    columns = min(len(curves), MAX_COLUMNS, max(3, ceil(len(curves) ** 0.5)))
    rows = ceil(len(curves) / columns)
    figure = Figure(figsize=(PANEL * columns, (PANEL + 0.4) * rows + 0.8), layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, curve in zip(panels.ravel(), curves):
        _draw_curve(axes, curve)
    for axes in panels.ravel()[len(curves) :]:
        axes.axis('off')
    for axes in panels.ravel()[max(len(curves) - columns, 0) : len(curves)]:
        axes.tick_params(labelbottom=True)  # the last in its column
    figure.supxlabel('recall', fontsize=FONT + 2)
    figure.supylabel('precision', fontsize=FONT + 2)
    figure.suptitle(title, fontsize=13, fontweight='bold')
    return figure


def _draw_curve(axes: Axes, curve: Curve) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(labelsize=FONT)
    axes.grid(color='#e5e5e5')
    axes.set_axisbelow(True)
    title = f'{curve.name}: AP {curve.ap:.3f}'
    axes.set_title(title, fontsize=FONT + 1, fontweight='bold')
    note = f'{curve.num_objects} objects, no detections'
    if len(curve.recall):
        recall = np.concatenate([[0], curve.recall])
        precision = np.concatenate([curve.precision[:1], curve.precision])
        axes.fill_between(recall, precision, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(recall, precision, color=BLUE, linewidth=1.8)
        f1, index = curve.best
        axes.plot(
            curve.recall[index],
            curve.precision[index],
            marker='o',
            markersize=8,
            color=ORANGE,
            markeredgecolor='black',
            clip_on=False,
        )
        note = f'{curve.num_objects} objects\nbest F1 {f1:.2f}, score {curve.scores[index]:.2f}'
    axes.text(
        0.04,
        0.05,
        note,
        fontsize=FONT - 1,
        transform=axes.transAxes,
        bbox=dict(facecolor='white', edgecolor='none', alpha=0.8, pad=1.5),
    )
