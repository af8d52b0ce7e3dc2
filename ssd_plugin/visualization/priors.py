"""Each level's priors of one cell, on an image."""

from __future__ import annotations

from math import ceil

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ssd_plugin.analysis.prior_grid import PriorGrid
from ssd_plugin.visualization.style import FONT, draw_boxes, show_image, strokes

PANEL, LEGEND = 3.9, 0.19  # sides of an image, height of a line of its legend, in inches


def middle_cell(priors: Tensor, featmap_size: tuple[int, int]) -> np.ndarray:
    """Priors (A, 4) of the cell in the middle of a level, of priors (h * w * A, 4)."""
    height, width = featmap_size
    return priors.reshape(height, width, -1, 4)[height // 2, width // 2].numpy()


def draw_priors(grid: PriorGrid, image: np.ndarray, title: str) -> Figure:
    """A panel for each level, all in the same scale.

    Args:
        grid: The priors.
        image: (h, w, 3) uint8 RGB of any size; it is resized to the network input.
        title: Of the whole.
    """
    image = cv2.resize(image, grid.input_size, interpolation=cv2.INTER_AREA)
    cells = [middle_cell(*level) for level in zip(grid.priors(), grid.featmap_sizes)]
    # Priors may be larger than the image: all panels show as much around it as the largest takes.
    low = np.minimum(0, np.min([priors[:, :2].min(0) for priors in cells], 0)) - 4
    high = np.maximum(grid.input_size, np.max([priors[:, 2:].max(0) for priors in cells], 0)) + 4

    columns = 2 if len(cells) in (2, 4) else min(len(cells), 3)
    rows = ceil(len(cells) / columns)
    lines = ceil(max(map(len, cells)) / 2)
    width, height = high - low
    panel_height = PANEL * height / width + LEGEND * (lines + 1) + 0.4
    figure = Figure(figsize=(PANEL * columns, panel_height * rows + 0.5), layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for level, (axes, priors) in enumerate(zip(panels, cells)):
        show_image(axes, image)
        axes.set_xlim(low[0], high[0])
        axes.set_ylim(high[1], low[1])
        axes.set_facecolor('#f2f2f2')
        _draw_level(axes, grid, level, priors)
    for axes in panels[len(cells) :]:
        axes.axis('off')
    total = sum(len(priors) for priors in grid.priors())
    size = ' x '.join(map(str, grid.input_size))
    figure.suptitle(f'{title}: {total} priors on {size} pixels', fontsize=13, fontweight='bold')
    return figure


def _draw_level(axes: Axes, grid: PriorGrid, level: int, priors: np.ndarray) -> None:
    """The cells as a grid, the priors of the middle one with their sizes."""
    stride, (down, across) = grid.generator.strides[level], grid.featmap_sizes[level]
    for draw, step, number, most in (
        (axes.vlines, stride[0], across, grid.input_size[1]),
        (axes.hlines, stride[1], down, grid.input_size[0]),
    ):
        draw(np.arange(number + 1) * step, 0, most, color='white', linewidth=0.5, alpha=0.6)
    centre = (priors[0, :2] + priors[0, 2:]) / 2
    axes.plot(*centre, marker='+', color='black', markersize=8, zorder=5)
    styles = strokes(len(priors))
    sizes = [f'{w:.4g} x {h:.4g}' for w, h in priors[:, 2:] - priors[:, :2]]
    for prior, style in zip(priors, styles):
        draw_boxes(axes, [prior], style)
    step = f'{stride[0]:g}' if stride[0] == stride[1] else f'{stride[0]:g} x {stride[1]:g}'
    number = across * down * len(priors)
    axes.set_title(
        f'level {level}: {across} x {down} cells of {step} px, {number} priors', fontsize=FONT + 1
    )
    axes.legend(
        handles=[style.handle(size) for style, size in zip(styles, sizes)],
        loc='upper center',
        bbox_to_anchor=(0.5, -0.01),
        ncols=2,
        fontsize=FONT,
        frameon=False,
        title='width x height, in pixels',
        title_fontsize=FONT,
    )
