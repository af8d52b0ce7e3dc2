"""Images of a training set beside what augmentation makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_plugin.datasets.samples import Sample
from ssd_plugin.visualization.detections import colors_of
from ssd_plugin.visualization.sheet import Cell, draw_sheet
from ssd_plugin.visualization.style import BLACK

WIDTH = 340  # of an image on the sheet, in pixels


def draw_augment(
    rows: Sequence[tuple[Sample, Sequence[Sample]]], classes: Sequence[str], title: str
) -> np.ndarray:
    """Draw a row for each image, as it is, then the same number of times as augmentation made it.

    The result is (H, W, 3) uint8 BGR.
    """
    cells = []
    for first, drawn in rows:
        cells.append(sample_cell(first, first.name, classes))
        for sample in drawn:
            number = len(sample.bboxes)
            cells.append(sample_cell(sample, f'{number} object{"s" * (number != 1)}', classes))
    return draw_sheet(title, cells, len(cells) // len(rows), WIDTH)


def sample_cell(sample: Sample, line: str, classes: Sequence[str]) -> Cell:
    """An image with its ground-truth boxes, those that are ignored in black."""
    number = len(sample.ignored)
    return Cell(
        line,
        sample.image[..., ::-1],
        np.concatenate([sample.bboxes, sample.ignored]),
        [classes[label] for label in sample.labels] + ['ignored'] * number,
        colors_of(sample.labels) + [BLACK] * number,
    )
