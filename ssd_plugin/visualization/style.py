"""How all figures look: colours, boxes and their labels, titles, legends, files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
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
LETTER_WIDTH = 0.62  # of digits and small letters, as a share of the font size


class Stroke(NamedTuple):
    """How a line is drawn."""

    color: str
    dashes: str | tuple = '-'
    width: float = 1.8  # points

    def handle(self, label: str) -> Line2D:
        """An entry of a legend."""
        style: dict[str, Any] = dict(color=self.color, linestyle=self.dashes)
        style.update(linewidth=max(self.width, 1.8), path_effects=halo(self.width))
        return Line2D([], [], label=label, **style)


def halo(width: float) -> list:
    """A white rim around lines or letters, so that they show on any image."""
    return [patheffects.withStroke(linewidth=width + 1.6, foreground='white')]


def strokes(number: int) -> list[Stroke]:
    """A number of strokes that differ by colour, then by dashes; from the 22nd on they repeat."""
    known = [Stroke(color, dashes) for dashes in DASHES for color in PALETTE]
    return [known[i % len(known)] for i in range(number)]


def text_color(background: str) -> str:
    """The colour of letters on a background."""
    return 'black' if background in LIGHT else 'white'


def add_title_and_legend(
    figure: Figure, title: str, handles: Sequence[Line2D] = (), columns: int = 6
) -> None:
    """Write a title above all panels of a figure, and a legend below them."""
    figure.suptitle(title, fontsize=13, fontweight='bold')
    if handles:
        figure.legend(
            handles=handles,
            loc='outside lower center',
            ncols=min(len(handles), columns),
            frameon=False,
            fontsize=FONT + 1,
        )


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
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_boxes(
    axes: Axes, bboxes: Iterable, stroke: Stroke, zorder: float = 3, rim: bool = True
) -> None:
    """Draw boxes (n, 4) xyxy in pixels, with a white rim unless they are too many for it."""
    style: dict[str, Any] = dict(edgecolor=stroke.color, linestyle=stroke.dashes, fill=False)
    style.update(linewidth=stroke.width, zorder=zorder)
    if rim:
        style['path_effects'] = halo(stroke.width)
    for x1, y1, x2, y2 in bboxes:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **style))


def write_labels(
    axes: Axes,
    bboxes: Iterable,
    texts: Sequence[str],
    colors: Sequence[str],
    points: float,
    size: float = 7,
) -> None:
    """Write a text at each box, inside the image and where it covers no other text.

    Args:
        axes: Axes with an image on them.
        bboxes: (n, 4) xyxy in pixels.
        texts: The text of each box.
        colors: The background of each text.
        points: How many points a pixel of the image takes on paper.
        size: Font size, in points.
    """
    limits = axes.get_xlim()[1], axes.get_ylim()[0]
    sides = [((LETTER_WIDTH * len(t) * size + 4) / points, (size + 4) / points) for t in texts]
    places = label_places(bboxes, sides, limits)
    for (x, y), (w, h), text, color in zip(places, sides, texts, colors):
        axes.text(
            x + w / 2,
            y + h / 2,
            text,
            fontsize=size,
            color=text_color(color),
            ha='center',
            va='center_baseline',
            zorder=6,
            bbox=dict(boxstyle='square,pad=0.2', facecolor=color, edgecolor='white', linewidth=0.6),
        )


def label_places(
    bboxes: Iterable, sides: Sequence[tuple[float, float]], limits: tuple[float, float]
) -> list[tuple[float, float]]:
    """Top left corners of labels, one for each box.

    A label is above its box where there is room, or else below it, or else inside at the top or
    the bottom, each from the box's left or right end: the first of these places where it overlaps
    no label that has been placed, or the one where it overlaps least. It never leaves the image.

    Args:
        bboxes: (n, 4) xyxy.
        sides: (w, h) of each label.
        limits: (w, h) of the image.
    """
    taken: list[tuple[float, float, float, float]] = []
    for (x1, y1, x2, y2), (w, h) in zip(bboxes, sides, strict=True):
        tries: list[tuple[float, int, tuple[float, float, float, float]]] = []
        for y, x in product((y1 - h, y2, y1, y2 - h), (x1, x2 - w)):
            x = max(min(x, limits[0] - w), 0)
            y = max(min(y, limits[1] - h), 0)
            place = (x, y, x + w, y + h)
            tries.append((sum(_intersection(place, other) for other in taken), len(tries), place))
        taken.append(min(tries)[2])
    return [place[:2] for place in taken]


def _intersection(a: tuple, b: tuple) -> float:
    """Area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)
