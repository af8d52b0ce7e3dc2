"""Figures of a detector's errors: the worst images, and counts by kind and class."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import PureWindowsPath
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.datasets.samples import read_image
from ssd_plugin.evaluation import errors
from ssd_plugin.evaluation.errors import FOUND, MISSED, WRONG, Counts, Diagnosis
from ssd_plugin.visualization import style

COLUMNS, CELL = 3, 4.6  # of the sheet; inches
STROKES = {
    FOUND: style.Stroke(style.GREEN, width=1.2),
    MISSED: style.Stroke(style.ORANGE, (0, (4, 1.5)), 2.2),
    errors.CONFUSED: style.Stroke(style.BLUE, width=2),
    errors.PLACED: style.Stroke(style.PURPLE, width=2),
    errors.DUPLICATE: style.Stroke(style.SKY, width=1.6),
    errors.FALSE: style.Stroke(style.RED, width=2),
}
LABEL_SIZE = 7.5  # points
BAR = 0.34  # height of a class, in inches


def draw_sheet(
    diagnoses: Sequence[Diagnosis], counts: Counts, classes: Sequence[str], title: str
) -> Figure:
    """Draw a contact sheet: each image with what is right and what is wrong in it.

    There is at least one image. The legend has the counts of the whole data set.
    """
    images = [read_image(d.result.path) for d in diagnoses]
    columns = min(len(images), COLUMNS)
    aspect = float(np.median([image.shape[0] / image.shape[1] for image in images]))
    height = (CELL * aspect + 0.3) * ceil(len(images) / columns) + 0.9
    figure = Figure(figsize=(CELL * columns, height), layout='constrained')
    panels = style.add_panels(figure, len(images), columns)
    for axes, diagnosis, image in zip(panels, diagnoses, images):
        scale = min(CELL / image.shape[1], CELL * aspect / image.shape[0])
        _draw_diagnosis(axes, diagnosis, image, classes, points=72 * scale)
    numbers = {**counts.kinds, MISSED: counts.gt_states[MISSED]}
    texts = [f'{kind} ({numbers.get(kind, 0)} in all)' for kind in STROKES]
    handles = [stroke.handle(text) for stroke, text in zip(STROKES.values(), texts)]
    style.add_title_and_legend(figure, title, handles, 2 * columns)  # as wide as the images
    return figure


def _draw_diagnosis(
    axes: Axes, diagnosis: Diagnosis, image: np.ndarray, classes: Sequence[str], points: float
) -> None:
    """Draw one image; ``points`` is how many points a pixel takes."""
    style.show_image(axes, image)
    drawn = _marks(diagnosis, classes)
    for kind, box, _ in drawn:
        style.add_boxes(axes, [box], STROKES[kind], zorder=3 if kind == FOUND else 4)
    labelled = [(box, text, STROKES[kind].color) for kind, box, text in drawn if text]
    if labelled:
        boxes, texts, colors = zip(*labelled)
        style.add_labels(axes, boxes, texts, colors, points, LABEL_SIZE)
    tally = [(kind, diagnosis.kinds.count(kind)) for kind in WRONG]
    tally.append((MISSED, diagnosis.gt_states.count(MISSED)))
    summary = ', '.join(f'{number} {kind}' for kind, number in tally if number)
    # It takes both '/' and '\' for separators, as paths in annotations may have either.
    axes.set_title(f'{PureWindowsPath(diagnosis.result.path).name}: {summary}', fontsize=style.FONT)


def _marks(diagnosis: Diagnosis, classes: Sequence[str]) -> list[tuple[str, np.ndarray, str]]:
    """Kind, box (4,) and text of all that is drawn in an image; what is right has no text."""
    result = diagnosis.result
    drawn = [
        (MISSED, box, classes[label])
        for box, label, state in zip(result.gt_bboxes, result.gt_labels, diagnosis.gt_states)
        if state == MISSED
    ]
    for d, kind in enumerate(diagnosis.kinds):
        if kind not in STROKES:
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
    handles = [style.Stroke(stroke.color, width=7).handle(kind) for kind, stroke in STROKES.items()]
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
        color = STROKES[kind].color
        bars = axes.barh(np.arange(len(classes)), values, 0.72, ends, color=color)
        texts = [str(v) if v > longest * 0.012 * (1 + len(str(v))) else '' for v in values]
        look: dict[str, Any] = dict(fontsize=style.FONT, color=style.text_color(color))
        axes.bar_label(bars, texts, label_type='center', **look)
        ends += values
    axes.set_yticks(np.arange(len(classes)), classes, fontsize=style.FONT + 1)
    axes.set(ylim=(len(classes) - 0.4, -0.6), xlim=(0, longest * 1.02))
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(axis='x', labelsize=style.FONT)
