"""Draw what :mod:`.errors` has found: the worst images, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.datasets.samples import read_image
from ssd_plugin.evaluation.errors import (
    CONFUSED,
    DUPLICATE,
    FALSE,
    FOUND,
    MISSED,
    OBJECT_STATES,
    PLACED,
    WRONG,
    Counts,
    Diagnosis,
)
from ssd_plugin.visualization.style import (
    BLUE,
    FONT,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Stroke,
    draw_boxes,
    show_image,
    write_labels,
)

COLUMNS, CELL = 3, 4.6  # of the sheet; inches
STROKES = {
    FOUND: Stroke(GREEN, width=1.2),
    MISSED: Stroke(ORANGE, (0, (4, 1.5)), 2.2),
    CONFUSED: Stroke(BLUE, width=2),
    PLACED: Stroke(PURPLE, width=2),
    DUPLICATE: Stroke(SKY, width=1.6),
    FALSE: Stroke(RED, width=2),
}
LABEL_SIZE = 7.5
BAR = 0.34  # height of a class, in inches


def draw_sheet(
    diagnoses: Sequence[Diagnosis], counts: Counts, classes: Sequence[str], title: str
) -> Figure:
    """A contact sheet: each image with what is right and wrong in it.

    Args:
        diagnoses: Of the images, at least one.
        counts: Of all images of the data set, for the legend.
        classes: Names of all classes.
        title: Of the whole.
    """
    images = [read_image(d.result.path) for d in diagnoses]
    columns = min(len(images), COLUMNS)
    rows = ceil(len(images) / columns)
    aspect = float(np.median([p.shape[0] / p.shape[1] for p in images]))
    figure = Figure(
        figsize=(CELL * columns, (CELL * aspect + 0.3) * rows + 0.9), layout='constrained'
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(images) :]:
        axes.axis('off')
    for axes, diagnosis, image in zip(panels, diagnoses, images):
        scale = min(CELL / image.shape[1], CELL * aspect / image.shape[0])
        _draw_diagnosis(axes, diagnosis, image, classes, points=72 * scale)
    figure.suptitle(title, fontsize=13, fontweight='bold')
    numbers = {**counts.detections, MISSED: counts.objects[MISSED]}
    figure.legend(
        handles=[
            stroke.handle(f'{kind} ({numbers.get(kind, 0)} in all)')
            for kind, stroke in STROKES.items()
        ],
        loc='outside lower center',
        ncols=len(STROKES),
        frameon=False,
        fontsize=FONT + 1,
    )
    return figure


def _draw_diagnosis(
    axes: Axes,
    diagnosis: Diagnosis,
    image: np.ndarray,
    classes: Sequence[str],
    points: float,
) -> None:
    """One image; ``points`` is how many points a pixel takes."""
    show_image(axes, image)
    boxes, texts, colors = [], [], []
    for kind, box, text in marks(diagnosis, classes):
        draw_boxes(axes, [box], STROKES[kind], zorder=3 if kind == FOUND else 4)
        if text:
            boxes.append(box)
            texts.append(text)
            colors.append(STROKES[kind].color)
    write_labels(axes, boxes, texts, colors, points, LABEL_SIZE)
    tally = [(kind, diagnosis.kinds.count(kind)) for kind in WRONG]
    tally.append((MISSED, diagnosis.states.count(MISSED)))
    summary = ', '.join(f'{number} {kind}' for kind, number in tally if number)
    name = diagnosis.result.path.replace('\\', '/').rsplit('/', 1)[-1]
    axes.set_title(f'{name}: {summary}', fontsize=FONT)


def marks(diagnosis: Diagnosis, classes: Sequence[str]) -> list[tuple[str, np.ndarray, str]]:
    """What is drawn in an image: kind, box (4,) and text of each; what is right has no text."""
    result = diagnosis.result
    drawn = []
    for box, label, state in zip(result.bboxes, result.labels, diagnosis.states):
        if state == MISSED:
            drawn.append((MISSED, box, classes[label]))
    for d, kind in enumerate(diagnosis.kinds):
        if kind not in STROKES:
            continue
        text = f'{classes[result.det_labels[d]]} {result.det_scores[d]:.2f}'
        if kind == FOUND:
            text = ''
        elif kind == CONFUSED:
            text += f', is {classes[result.labels[diagnosis.of_object[d]]]}'
        elif kind == PLACED:
            text += f', IoU {diagnosis.overlaps[d]:.2f}'
        drawn.append((kind, result.det_bboxes[d], text))
    return drawn


def draw_counts(counts: Sequence[Counts], classes: Sequence[str], title: str) -> Figure:
    """Bars for each class: what became of its objects, and what its detections are."""
    figure = Figure(figsize=(12, BAR * len(classes) + 2.2), layout='constrained')
    left, right = figure.subplots(1, 2)
    objects = [[one.objects[state] for state in OBJECT_STATES] for one in counts]
    kinds = (FOUND, *WRONG)
    detections = [[one.detections[kind] for kind in kinds] for one in counts]
    _draw_bars(left, objects, OBJECT_STATES, classes)
    _draw_bars(right, detections, kinds, classes)
    left.set_title('objects of the class', fontsize=FONT + 2)
    right.set_title('detections that name the class', fontsize=FONT + 2)
    figure.suptitle(title, fontsize=13, fontweight='bold')
    handles = [Stroke(stroke.color, width=7).handle(kind) for kind, stroke in STROKES.items()]
    figure.legend(
        handles=handles, loc='outside lower center', ncols=6, frameon=False, fontsize=FONT + 1
    )
    return figure


def _draw_bars(
    axes: Axes, numbers: Sequence[Sequence[int]], kinds: Sequence[str], classes: Sequence[str]
) -> None:
    """Stacked bars, a class each, with the numbers in those parts that have room for them."""
    table = np.array(numbers).reshape(len(classes), len(kinds))
    ends = table.cumsum(1)
    longest = max(int(ends[:, -1].max(initial=0)), 1)
    places = np.arange(len(classes))
    for column, kind in enumerate(kinds):
        values, starts = table[:, column], ends[:, column] - table[:, column]
        axes.barh(places, values, 0.72, starts, color=STROKES[kind].color)
        for y, (value, start) in enumerate(zip(values, starts)):
            if value > longest * 0.012 * (1 + len(str(value))):
                light = kind in (MISSED, DUPLICATE)
                axes.text(
                    start + value / 2,
                    y,
                    str(value),
                    ha='center',
                    va='center_baseline',
                    fontsize=FONT,
                    color='black' if light else 'white',
                )
    axes.set_yticks(places, classes, fontsize=FONT + 1)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.02)
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(axis='x', labelsize=FONT)
