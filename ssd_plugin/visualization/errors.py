"""Figures of a detector's errors: the worst images, and counts by kind and class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PureWindowsPath
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.datasets.samples import read_image
from ssd_plugin.evaluation import errors
from ssd_plugin.evaluation.errors import FOUND, MISSED, WRONG, Counts, Diagnosis
from ssd_plugin.visualization import style
from ssd_plugin.visualization.sheet import Cell, Entry, draw_sheet

COLUMNS, WIDTH = 3, 500  # of the sheet; of an image on it, in pixels
COLORS = {
    FOUND: style.GREEN,
    MISSED: style.ORANGE,
    errors.CONFUSED: style.BLUE,
    errors.PLACED: style.PURPLE,
    errors.DUPLICATE: style.SKY,
    errors.FALSE: style.RED,
}
BAR = 0.34  # height of a class, in inches


def draw_errors(
    diagnoses: Sequence[Diagnosis], counts: Counts, classes: Sequence[str], title: str
) -> np.ndarray:
    """Draw a contact sheet: each image, at least one, with what is right and what is wrong in it.

    The legend has the counts of the whole data set. The result is (H, W, 3) uint8 BGR.
    """
    numbers = {**counts.kinds, MISSED: counts.gt_states[MISSED]}
    legend = [
        Entry(f'{kind} ({numbers.get(kind, 0)} in all)', color) for kind, color in COLORS.items()
    ]
    cells = [diagnosed_cell(diagnosis, classes) for diagnosis in diagnoses]
    return draw_sheet(title, cells, COLUMNS, WIDTH, legend)


def diagnosed_cell(diagnosis: Diagnosis, classes: Sequence[str]) -> Cell:
    """An image with its errors, each labelled, above the detections that are right."""
    tally = [(kind, diagnosis.kinds.count(kind)) for kind in WRONG]
    tally.append((MISSED, diagnosis.gt_states.count(MISSED)))
    summary = ', '.join(f'{number} {kind}' for kind, number in tally if number)
    path = diagnosis.result.path
    marks = sorted(_marks(diagnosis, classes), key=lambda mark: mark[0] == FOUND)
    return Cell(
        # It takes both '/' and '\' for separators, as paths in annotations may have either.
        f'{PureWindowsPath(path).name}: {summary}',
        read_image(path)[..., ::-1],
        np.reshape([box for _, box, _ in marks], (-1, 4)),
        [text for _, _, text in marks],
        [COLORS[kind] for kind, _, _ in marks],
    )


def _marks(diagnosis: Diagnosis, classes: Sequence[str]) -> list[tuple[str, np.ndarray, str]]:
    """Kind, box (4,) and text of all that is drawn in an image; what is right has no text."""
    result = diagnosis.result
    drawn = [
        (MISSED, box, f'{classes[label]}, missed')
        for box, label, state in zip(result.gt_bboxes, result.gt_labels, diagnosis.gt_states)
        if state == MISSED
    ]
    for d, kind in enumerate(diagnosis.kinds):
        if kind not in COLORS:
            continue
        text = f'{classes[result.det_labels[d]]} {result.det_scores[d]:.2f}'
        if kind == FOUND:
            text = ''
        elif kind == errors.CONFUSED:
            text += f', is {classes[result.gt_labels[diagnosis.gt_inds[d]]]}'
        elif kind == errors.PLACED:
            text += f', IoU {diagnosis.ious[d]:.2f}'
        drawn.append((kind, result.det_bboxes[d], text))
    return drawn


def draw_counts(counts: Sequence[Counts], classes: Sequence[str], title: str) -> Figure:
    """Draw bars for each class: states of its ground-truth boxes, kinds of its detections."""
    figure = Figure(figsize=(12, BAR * len(classes) + 2.2), layout='constrained')
    left, right = figure.subplots(1, 2)
    _draw_bars(left, [one.gt_states for one in counts], errors.GT_STATES, classes)
    _draw_bars(right, [one.kinds for one in counts], (FOUND, *WRONG), classes)
    left.set_title('objects of the class', fontsize=style.FONT + 2)
    right.set_title('detections that name the class', fontsize=style.FONT + 2)
    handles = [style.Stroke(color, width=7).handle(kind) for kind, color in COLORS.items()]
    style.add_title_and_legend(figure, title, handles)
    return figure


def _draw_bars(
    axes: Axes, numbers: Sequence[dict[str, int]], kinds: Sequence[str], classes: Sequence[str]
) -> None:
    """Draw a stacked bar for each class, with the number in each part that has room for it."""
    ends = np.zeros(len(classes), dtype=int)
    longest = max([sum(one[kind] for kind in kinds) for one in numbers] + [1])
    for kind in kinds:
        values = np.array([one[kind] for one in numbers])
        color = COLORS[kind]
        bars = axes.barh(np.arange(len(classes)), values, 0.72, ends, color=color)
        texts = [str(v) if v > longest * 0.012 * (1 + len(str(v))) else '' for v in values]
        look: dict[str, Any] = dict(fontsize=style.FONT, color=style.text_color(color))
        axes.bar_label(bars, texts, label_type='center', **look)
        ends += values
    axes.set_yticks(np.arange(len(classes)), classes, fontsize=style.FONT + 1)
    axes.set(ylim=(len(classes) - 0.4, -0.6), xlim=(0, longest * 1.02))
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(axis='x', labelsize=style.FONT)
