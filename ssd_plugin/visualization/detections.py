"""Boxes and their labels, drawn on an image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from mmengine.structures import InstanceData
from numpy.typing import ArrayLike

from ssd_plugin.visualization.fonts import FONT, printable
from ssd_plugin.visualization.style import PALETTE, text_color

LETTERS = 0.022  # height of letters, as a share of the image's mean side
LEAST = 10  # height of letters in pixels, below which they can't be read
# Of a label, as shares of its letters' height: height, baseline from above, room at both ends.
HEIGHT, BASELINE, PAD = 1.4, 1.05, 0.15


def draw(image: np.ndarray, found: InstanceData, classes: Sequence[str]) -> np.ndarray:
    """Draw detections with their classes and scores, each class in a colour.

    The image is (h, w, 3) uint8 BGR; the result is a new one. The detections have ``bboxes``
    (n, 4) xyxy in pixels, ``scores`` and ``labels`` as NumPy arrays, the highest score first.
    """
    return draw_boxes(image, found.bboxes, texts_of(found, classes), colors_of(found.labels))


def texts_of(found: InstanceData, classes: Sequence[str]) -> list[str]:
    """The labels of detections: class and score."""
    return [f'{classes[i]} {score:.2f}' for i, score in zip(found.labels, found.scores)]


def colors_of(labels: np.ndarray) -> list[str]:
    """The colours of classes, which repeat."""
    return [PALETTE[label % len(PALETTE)] for label in labels]


def draw_boxes(
    image: np.ndarray, bboxes: np.ndarray, texts: Sequence[str], colors: Sequence[str]
) -> np.ndarray:
    """Draw boxes and a text at each, '' for none, the first on top, in sizes that fit the image's.

    The image is (h, w, 3) uint8 BGR; the result is a new one, contiguous in memory. The boxes,
    (n, 4) xyxy in pixels, are clipped to the image; those with NaN are left out. The colours are
    ``#RRGGBB``.
    """
    drawn = np.array(image, order='C')
    height, width = image.shape[:2]
    bboxes = np.asarray(bboxes, np.float64).reshape(-1, 4)
    valid = np.flatnonzero(~np.isnan(bboxes).any(1)).tolist()
    bboxes = bboxes[valid].clip(0, [width - 1, height - 1] * 2)  # the last pixel
    texts = [printable(texts[i]) for i in valid]
    colors = [colors[i] for i in valid]

    letters = round(max(LETTERS * (height * width) ** 0.5, LEAST))  # pixels
    pad, label_height = round(PAD * letters), round(HEIGHT * letters)
    labelled = [i for i, text in enumerate(texts) if text]
    sides = [(FONT.width(texts[i], letters) + 2 * pad, label_height) for i in labelled]
    places = label_places(bboxes[labelled], sides, (width, height)).round().astype(int).tolist()

    # From the last to the first: what is drawn later lies on top.
    for (x1, y1, x2, y2), color in zip(bboxes[::-1].round().astype(int).tolist(), colors[::-1]):
        cv2.rectangle(drawn, (x1, y1), (x2, y2), bgr(color), max(round(letters / 6), 2))
    for i, (x, y), (w, h) in zip(labelled[::-1], places[::-1], sides[::-1]):
        cv2.rectangle(drawn, (x, y), (x + w - 1, y + h - 1), bgr(colors[i]), cv2.FILLED)
        place = x + pad, y + round(BASELINE * letters)
        FONT.write(drawn, texts[i], place, letters, 255 * (text_color(colors[i]) == 'white'))
    return drawn


def bgr(color: str) -> tuple[int, ...]:
    """A colour ``#RRGGBB`` for OpenCV."""
    return tuple(bytes.fromhex(color[1:]))[::-1]


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
