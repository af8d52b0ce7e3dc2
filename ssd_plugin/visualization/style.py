"""How all figures look: colours, boxes and their labels, titles, legends, files.

Figures are matplotlib's: their boxes have dashes, white rims and a legend, and may leave the image.
On an image itself, ``detections.draw_boxes`` draws.
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
from numpy.typing import ArrayLike

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN = '#000000', '#E69F00', '#56B4E9', '#009E73'
YELLOW, BLUE, RED, PURPLE = '#F0E442', '#0072B2', '#D55E00', '#CC79A7'
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW)
LIGHT = (YELLOW, SKY, ORANGE, PURPLE)  # on these, black letters are easier to read than white
DASHES: tuple[str | tuple, ...] = ('-', (0, (4, 1.5)), (0, (1, 1)))
DPI = 110
FONT = 9  # points
LETTER_WIDTH = 0.62  # of digits and small letters, as a share of the font size


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


def add_labels(
    axes: Axes,
    bboxes: ArrayLike,
    texts: Sequence[str],
    colors: Sequence[str],
    points: float,
    size: float = 7,
) -> None:
    """Write a text at each box (n, 4) xyxy, inside the image and where it covers no other text.

    The ``colors`` are those of the texts' backgrounds. A pixel of the image takes so many
    ``points`` on paper, and ``size`` is the font's, in points, too.
    """
    limits = axes.get_xlim()[1], axes.get_ylim()[0]
    sides = [((LETTER_WIDTH * len(t) * size + 4) / points, (size + 4) / points) for t in texts]
    places = label_places(bboxes, sides, limits)
    centred: dict[str, Any] = dict(ha='center', va='center_baseline', fontsize=size, zorder=6)
    for (x, y), (w, h), text, color in zip(places, sides, texts, colors):
        frame = dict(boxstyle='square,pad=0.2', facecolor=color, edgecolor='white', linewidth=0.6)
        axes.text(x + w / 2, y + h / 2, text, color=text_color(color), bbox=frame, **centred)


def label_places(
    bboxes: ArrayLike, sides: Sequence[tuple[float, float]], limits: tuple[float, float]
) -> np.ndarray:
    """Top left corners (n, 2) of labels for boxes (n, 4) xyxy, in an image of ``limits`` (w, h).

    A label with ``sides`` (w, h) is above its box where there is room, or else below it, or else
    inside at the top or the bottom, each from the box's left or right end: the first of these
    places where it overlaps no label that has been placed, or the one where it overlaps least. It
    never leaves the image.
    """
    boxes, sizes = np.reshape(bboxes, (-1, 4)), np.reshape(sides, (-1, 2))
    (x1, y1, x2, y2), (w, h) = boxes.T, sizes.T
    corners = np.array([(x, y) for y in (y1 - h, y2, y1, y2 - h) for x in (x1, x2 - w)])
    low = np.minimum(corners.transpose(2, 0, 1), (limits - sizes)[:, None]).clip(0)  # (n, 8, 2)
    high = low + sizes[:, None]
    placed = np.zeros((2, len(boxes), 2))  # top left and bottom right corners
    for i in range(len(boxes)):
        left_top, right_bottom = placed[:, :i]
        shared = np.minimum(high[i, :, None], right_bottom) - np.maximum(low[i, :, None], left_top)
        best = shared.clip(0).prod(2).sum(1).argmin()
        placed[:, i] = low[i, best], high[i, best]
    return placed[0]
