"""Contact sheets: images in a grid, each with its boxes and a line above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ssd_plugin.visualization.detections import bgr, draw_boxes
from ssd_plugin.visualization.fonts import FONT, printable

GAP = 8  # pixels between images
TITLE, LINE = 20, 14  # height of letters in pixels: above the sheet; above an image, in the legend


class Cell(NamedTuple):
    """An image on a sheet."""

    line: str  # above it
    image: np.ndarray  # (h, w, 3) uint8, BGR
    bboxes: np.ndarray  # (n, 4) xyxy in its pixels, the first on top
    texts: Sequence[str]  # a label for each box, '' for none
    colors: Sequence[str]  # of the boxes, #RRGGBB


class Entry(NamedTuple):
    """What a colour means, for the legend."""

    text: str
    color: str  # #RRGGBB


def draw_sheet(
    title: str, cells: Sequence[Cell], columns: int, width: int, legend: Sequence[Entry] = ()
) -> np.ndarray:
    """Draw images, at least one, in rows, each resized to a ``width`` in pixels.

    All have the same room, of the images' median shape; an image of another shape is fitted into
    it. The result is (H, W, 3) uint8 BGR.
    """
    columns = min(columns, len(cells))
    shape = np.median([cell.image.shape[0] / cell.image.shape[1] for cell in cells])
    panels = [_draw_cell(cell, width, round(width * shape)) for cell in cells]
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % columns)
    rows = [np.hstack(panels[i : i + columns]) for i in range(0, len(panels), columns)]
    across = rows[0].shape[1]
    return np.vstack([_text_line(title, across, TITLE), *rows, *_legend_lines(legend, across)])


def _draw_cell(cell: Cell, width: int, height: int) -> np.ndarray:
    """An image with its boxes in the middle of its room, and its line above."""
    scale = min(width / cell.image.shape[1], height / cell.image.shape[0])
    size = [max(round(side * scale), 1) for side in cell.image.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(cell.image, size, interpolation=how)
    drawn = draw_boxes(image, np.asarray(cell.bboxes) * scale, cell.texts, cell.colors)
    room = np.full((height + GAP, width + GAP, 3), 255, np.uint8)
    x, y = (width + GAP - size[0]) // 2, (height - size[1]) // 2
    room[y : y + size[1], x : x + size[0]] = drawn
    return np.vstack([_text_line(cell.line, width + GAP, LINE), room])


def _text_line(text: str, width: int, letters: int) -> np.ndarray:
    """A text in the middle of a white strip, in smaller letters if it has no room."""
    strip = np.full((2 * letters, width, 3), 255, np.uint8)
    text = printable(text)
    room, needed = width - GAP, FONT.width(text, letters)
    if needed > room:
        letters = max(letters * room // needed, 1)
        needed = FONT.width(text, letters)
    place = max(width - needed, 0) // 2, round(0.7 * len(strip))
    FONT.write(strip, text, place, letters, 0)
    return strip


def _legend_lines(legend: Sequence[Entry], width: int) -> list[np.ndarray]:
    """Squares with their meanings, in as few rows of equal columns as have room."""
    if not legend:
        return []
    widest = max(FONT.width(printable(entry.text), LINE) for entry in legend) + 4 * LINE
    rows = -(-len(legend) // max(width // widest, 1))
    columns = -(-len(legend) // rows)
    lines = []
    for first in range(0, len(legend), columns):
        line = np.full((2 * LINE, width, 3), 255, np.uint8)
        for i, entry in enumerate(legend[first : first + columns]):
            x = i * width // columns + LINE
            color = bgr(entry.color)
            cv2.rectangle(line, (x, LINE // 2), (x + LINE, LINE * 3 // 2), color, cv2.FILLED)
            FONT.write(line, printable(entry.text), (x + LINE * 3 // 2, LINE * 3 // 2), LINE, 0)
        lines.append(line)
    return lines
