"""Precision over recall, a panel for each class."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.evaluation.pr import Curve
from ssd_plugin.visualization import style

PANEL, MAX_COLUMNS = 2.7, 6  # inches


def draw_pr(curves: Sequence[Curve], title: str) -> Figure:
    """Draw a panel for each class, of which there is at least one."""
    columns = min(len(curves), MAX_COLUMNS, max(3, ceil(len(curves) ** 0.5)))
    rows = ceil(len(curves) / columns)
    figure = Figure(figsize=(PANEL * columns, (PANEL + 0.4) * rows + 0.8), layout='constrained')
    panels = style.add_panels(figure, len(curves), columns, sharex=True, sharey=True)
    for axes, curve in zip(panels, curves):
        _draw_curve(axes, curve)
    for axes in panels[-columns:]:  # the last one of its column
        axes.tick_params(labelbottom=True)
    figure.supxlabel('recall', fontsize=style.FONT + 2)
    figure.supylabel('precision', fontsize=style.FONT + 2)
    style.add_title_and_legend(figure, title)
    return figure


def _draw_curve(axes: Axes, curve: Curve) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    style.add_grid(axes)
    axes.set_title(f'{curve.name}: AP {curve.ap:.3f}', fontsize=style.FONT + 1, fontweight='bold')
    note = f'{curve.num_gts} objects, no detections'
    if len(curve.recall):
        recall = np.concatenate([[0], curve.recall])
        precision = np.concatenate([curve.precision[:1], curve.precision])
        axes.fill_between(recall, precision, color=style.BLUE, alpha=0.15, linewidth=0)
        axes.plot(recall, precision, color=style.BLUE, linewidth=1.8)
        f1, index = curve.best
        best: dict[str, Any] = dict(marker='o', markersize=8, clip_on=False)
        best.update(color=style.ORANGE, markeredgecolor='black')
        axes.plot(curve.recall[index], curve.precision[index], **best)
        note = f'{curve.num_gts} objects\nbest F1 {f1:.2f}, score {curve.scores[index]:.2f}'
    frame = dict(facecolor='white', edgecolor='none', alpha=0.8, pad=1.5)
    axes.text(0.04, 0.05, note, fontsize=style.FONT - 1, transform=axes.transAxes, bbox=frame)
