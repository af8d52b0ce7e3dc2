"""How all figures look: colours, boxes, titles, legends, files.

Figures are matplotlib's: priors may leave the image. What stays on an image, as objects and
detections do, ``detections.draw_boxes`` draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN = '#000000', '#E69F00', '#56B4E9', '#009E73'
YELLOW, BLUE, RED, PURPLE = '#F0E442', '#0072B2', '#D55E00', '#CC79A7'
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW)
LIGHT = (YELLOW, SKY, ORANGE, PURPLE)  # on these, black letters are easier to read than white
DASHES: tuple[str | tuple, ...] = ('-', (0, (4, 1.5)), (0, (1, 1)))
DPI = 110
FONT = 9  # points


class Stroke(NamedTuple):
    """How a line is drawn."""

    color: str
    dashes: str | tuple = '-'
    width: float = 1.8  # points

    def handle(self, label: str) -> Line2D:
        """An entry of a legend."""
        look: dict[str, Any] = dict(color=self.color, linestyle=self.dashes, label=label)
        look.update(linewidth=max(self.width, 1.8), path_effects=halo(self.width))
        return Line2D([], [], **look)


def halo(width: float) -> list:
    """A white rim around lines or letters, so that they show on any image."""
    return [patheffects.withStroke(linewidth=width + 1.6, foreground='white')]


def strokes(number: int) -> list[Stroke]:
    """A number of strokes that differ by colour, then by dashes; from the 22nd on they repeat."""
    known = cycle(Stroke(color, dashes) for dashes in DASHES for color in PALETTE)
    return list(islice(known, number))


def text_color(background: str) -> str:
    """The colour of letters on a background."""
    return 'black' if background in LIGHT else 'white'


def add_title_and_legend(
    figure: Figure, title: str, handles: Sequence[Line2D] = (), columns: int = 6
) -> None:
    """Write a title above all panels of a figure, and a legend below them."""
    figure.suptitle(title, fontsize=13, fontweight='bold')
    if handles:
        look: dict[str, Any] = dict(ncols=min(len(handles), columns), frameon=False)
        figure.legend(handles=handles, loc='outside lower center', fontsize=FONT + 1, **look)


def add_panels(figure: Figure, number: int, columns: int, **kwargs: Any) -> Sequence[Axes]:
    """Add so many panels in rows; ``kwargs`` are those of ``figure.subplots``."""
    panels = figure.subplots(ceil(number / columns), columns, squeeze=False, **kwargs).ravel()
    for axes in panels[number:]:
        axes.axis('off')
    return panels[:number]


def add_grid(axes: Axes) -> None:
    """Draw grid lines, behind everything else."""
    axes.grid(color='#e5e5e5')
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=FONT)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG, creating the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Put an image (h, w, 3) uint8 RGB on axes, whose unit then is a pixel of it."""
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation='antialiased')
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def add_boxes(
    axes: Axes, bboxes: Iterable, stroke: Stroke, zorder: float = 3, rim: bool = True
) -> None:
    """Draw boxes (n, 4) xyxy in pixels, with a white rim unless they are too many for it."""
    style: dict[str, Any] = dict(edgecolor=stroke.color, linestyle=stroke.dashes, fill=False)
    style.update(linewidth=stroke.width, zorder=zorder)
    if rim:
        style['path_effects'] = halo(stroke.width)
    for x1, y1, x2, y2 in bboxes:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **style))
