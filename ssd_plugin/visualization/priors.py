"""The priors of one cell of each level, on an image."""

from __future__ import annotations

from math import ceil
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.analysis.prior_grid import PriorGrid
from ssd_plugin.visualization import style

PANEL, LEGEND = 3.9, 0.19  # side of an image, and height of a line of its legend, in inches


def draw_priors(grid: PriorGrid, image: np.ndarray, title: str) -> Figure:
    """Draw a panel for each level, all to the same scale, on an image (h, w, 3) uint8 RGB.

    The image has any size; it is resized to the network input. The number of priors completes the
    title.
    """
    image = cv2.resize(image, grid.input_size, interpolation=cv2.INTER_AREA)
    levels = grid.priors()
    cells = []  # the priors (A, 4) of the cell in the middle of each level
    for priors, (down, across) in zip(levels, grid.featmap_sizes):
        cells.append(priors.reshape(down, across, -1, 4)[down // 2, across // 2].numpy())
    # Priors may be larger than the image: all panels show as much around it as the largest needs.
    low = np.minimum(0, np.min([priors[:, :2].min(0) for priors in cells], 0)) - 4
    high = np.maximum(grid.input_size, np.max([priors[:, 2:].max(0) for priors in cells], 0)) + 4

    columns = 2 if len(cells) in (2, 4) else min(len(cells), 3)
    lines = ceil(max(map(len, cells)) / 2)
    width, height = high - low
    panel_height = PANEL * height / width + LEGEND * (lines + 1) + 0.4
    height = panel_height * ceil(len(cells) / columns) + 0.5
    figure = Figure(figsize=(PANEL * columns, height), layout='constrained')
    for level, axes in enumerate(style.add_panels(figure, len(cells), columns)):
        style.show_image(axes, image)
        axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), facecolor='#f2f2f2')
        _draw_level(axes, grid, level, cells[level])
    size = ' x '.join(map(str, grid.input_size))
    style.add_title_and_legend(figure, f'{title}: {sum(map(len, levels))} priors on {size} pixels')
    return figure


def _draw_level(axes: Axes, grid: PriorGrid, level: int, priors: np.ndarray) -> None:
    """Draw the cells as a grid, and the priors (A, 4) of the middle one with their sizes."""
    stride, (down, across) = grid.generator.strides[level], grid.featmap_sizes[level]
    width, height = grid.input_size
    lines: dict[str, Any] = dict(color='white', linewidth=0.5, alpha=0.6)
    axes.vlines(np.arange(across + 1) * stride[0], 0, height, **lines)
    axes.hlines(np.arange(down + 1) * stride[1], 0, width, **lines)
    centre = (priors[0, :2] + priors[0, 2:]) / 2
    axes.plot(*centre, marker='+', color='black', markersize=8, zorder=5)
    styles = style.strokes(len(priors))
    sizes = [f'{w:.4g} x {h:.4g}' for w, h in priors[:, 2:] - priors[:, :2]]
    for prior, stroke in zip(priors, styles):
        style.add_boxes(axes, [prior], stroke)
    step = f'{stride[0]:g}' if stride[0] == stride[1] else f'{stride[0]:g} x {stride[1]:g}'
    title = f'level {level}: {across} x {down} cells of {step} px'
    axes.set_title(f'{title}, {across * down * len(priors)} priors', fontsize=style.FONT + 1)
    handles = [stroke.handle(size) for stroke, size in zip(styles, sizes)]
    below: dict[str, Any] = dict(loc='upper center', bbox_to_anchor=(0.5, -0.01), ncols=2)
    look: dict[str, Any] = dict(fontsize=style.FONT, title_fontsize=style.FONT, frameon=False)
    axes.legend(handles=handles, title='width x height, in pixels', **below, **look)
