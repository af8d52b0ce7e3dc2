"""Images of a training set beside what augmentation makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.datasets.samples import Sample
from ssd_plugin.visualization.style import BLACK, FONT, Stroke, draw_boxes, show_image, strokes

PANEL = 2.6  # inches
MAX_CLASSES = 24  # in the legend
IGNORED = Stroke(BLACK, (0, (1, 1)), 1.2)


def draw_augment(
    rows: Sequence[tuple[Sample, Sequence[Sample]]], classes: Sequence[str], title: str
) -> Figure:
    """A row for each image: as it is, then augmented.

    Args:
        rows: The image as it is, and what was made of it.
        classes: Names of all classes.
        title: Of the whole.
    """
    columns = 1 + max(len(drawn) for _, drawn in rows)
    samples = [sample for first, drawn in rows for sample in (first, *drawn)]
    styles = class_strokes(samples)
    legend_rows = -(-min(len(styles), MAX_CLASSES) // 6)
    figure = Figure(
        figsize=(PANEL * columns, (PANEL + 0.25) * len(rows) + 0.6 + 0.25 * legend_rows),
        layout='constrained',
    )
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_of_row, (first, drawn) in zip(grid, rows):
        for axes in axes_of_row:
            axes.axis('off')
        for axes, sample in zip(axes_of_row, (first, *drawn)):
            draw_sample(axes, sample, styles)
        axes_of_row[0].set_title(first.name, fontsize=FONT)
        for axes, sample in zip(axes_of_row[1:], drawn):
            axes.set_title(_count(len(sample.bboxes), 'object'), fontsize=FONT)
    figure.suptitle(title, fontsize=13, fontweight='bold')
    class_legend(figure, styles, classes, any(len(sample.ignored) for sample in samples))
    return figure


def class_strokes(samples: Sequence[Sample]) -> dict[int, Stroke]:
    """A stroke for each class that some sample has, so that few classes differ by colour alone."""
    present = np.unique(np.concatenate([sample.labels for sample in samples]))
    return dict(zip(present.tolist(), strokes(len(present))))


def draw_sample(axes: Axes, sample: Sample, styles: dict[int, Stroke]) -> None:
    """An image and its objects' boxes in the strokes of their classes."""
    axes.axis('on')
    show_image(axes, sample.image)
    draw_boxes(axes, sample.ignored, IGNORED)
    for label, style in styles.items():
        draw_boxes(axes, sample.bboxes[sample.labels == label], style)


def class_legend(
    figure: Figure, styles: dict[int, Stroke], classes: Sequence[str], with_ignored: bool
) -> None:
    """Below the panels: which stroke is which class."""
    shown = list(styles.items())[:MAX_CLASSES]
    handles = [style.handle(classes[label]) for label, style in shown]
    if with_ignored:
        handles.append(IGNORED.handle('ignored'))
    if len(shown) < len(styles):
        handles.append(Stroke('white').handle(f'and {len(styles) - len(shown)} classes more'))
    if handles:
        figure.legend(
            handles=handles,
            loc='outside lower center',
            ncols=min(len(handles), 6),
            frameon=False,
            fontsize=FONT + 1,
        )


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
