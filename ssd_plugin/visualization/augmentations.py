"""Images of a training set beside what augmentation makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.datasets.samples import Sample
from ssd_plugin.visualization import style

PANEL = 2.6  # inches
MAX_CLASSES = 24  # in the legend
IGNORED = style.Stroke(style.BLACK, (0, (1, 1)), 1.2)


def draw_augment(
    rows: Sequence[tuple[Sample, Sequence[Sample]]], classes: Sequence[str], title: str
) -> Figure:
    """Draw a row of panels for each image: as it is, then what augmentation has made of it."""
    columns = 1 + max(len(drawn) for _, drawn in rows)
    samples = [sample for first, drawn in rows for sample in (first, *drawn)]
    # A stroke for each class that occurs, so that few differ by their dashes alone.
    present = np.unique(np.concatenate([sample.labels for sample in samples])).tolist()
    styles = dict(zip(present, style.strokes(len(present))))
    shown = present[:MAX_CLASSES]
    height = (PANEL + 0.25) * len(rows) + 0.6 + 0.25 * -(-len(shown) // 6)
    figure = Figure(figsize=(PANEL * columns, height), layout='constrained')
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis('off')
    for panels, (first, drawn) in zip(grid, rows):
        _draw_sample(panels[0], first, styles, first.name)
        for axes, sample in zip(panels[1:], drawn):
            number = len(sample.bboxes)
            _draw_sample(axes, sample, styles, f'{number} object{"s" * (number != 1)}')
    handles = [styles[label].handle(classes[label]) for label in shown]
    if any(len(sample.ignored) for sample in samples):
        handles.append(IGNORED.handle('ignored'))
    if len(shown) < len(present):
        more = f'and {len(present) - len(shown)} classes more'
        handles.append(style.Stroke('white').handle(more))
    style.add_title_and_legend(figure, title, handles)
    return figure


def _draw_sample(axes: Axes, sample: Sample, styles: dict[int, style.Stroke], title: str) -> None:
    """Draw an image and its ground-truth boxes in the strokes of their classes."""
    axes.axis('on')
    style.show_image(axes, sample.image)
    axes.set_title(title, fontsize=style.FONT)
    style.add_boxes(axes, sample.ignored, IGNORED)
    for label, stroke in styles.items():
        style.add_boxes(axes, sample.bboxes[sample.labels == label], stroke)
