"""Boxes and their labels, drawn on an image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from mmengine.structures import InstanceData

from ssd_plugin.visualization.fonts import FONT
from ssd_plugin.visualization.style import PALETTE, label_places, text_color

LETTERS = 0.022  # height of letters, as a share of the image's mean side
LEAST = 10  # height of letters in pixels, below which they can't be read
# Of a label, as shares of its letters' height: height, baseline from above, room at both ends.
HEIGHT, BASELINE, PAD = 1.4, 1.05, 0.15


def draw(image: np.ndarray, found: InstanceData, classes: Sequence[str]) -> np.ndarray:
    """Draw detections with their classes and scores, each class in a colour.

    The image is (h, w, 3) uint8 BGR; the result is a new one. The detections have ``bboxes``
    (n, 4) xyxy in pixels, ``scores`` and ``labels`` as NumPy arrays, the highest score first.
    """
    texts = [f'{classes[i]} {score:.2f}' for i, score in zip(found.labels, found.scores)]
    return draw_boxes(image, found.bboxes, texts, colors_of(found.labels))


def colors_of(labels: np.ndarray) -> list[str]:
    """The colours of classes, which repeat."""
    return [PALETTE[label % len(PALETTE)] for label in labels]


def draw_boxes(
    image: np.ndarray, bboxes: np.ndarray, texts: Sequence[str], colors: Sequence[str]
) -> np.ndarray:
    """Draw boxes and a text at each, the first on top, in sizes that fit the image's.

    The image is (h, w, 3) uint8 BGR; the result is a new one, contiguous in memory. The boxes,
    (n, 4) xyxy in pixels, are clipped to the image; those with NaN are left out. The colours are
    ``#RRGGBB``.
    """
    drawn = np.array(image, order='C')
    height, width = image.shape[:2]
    bboxes = np.asarray(bboxes, np.float64).reshape(-1, 4)
    valid = np.flatnonzero(~np.isnan(bboxes).any(1)).tolist()
    bboxes = bboxes[valid].clip(0, [width - 1, height - 1] * 2)  # the last pixel
    # Line breaks and other characters without a glyph, at half a surrogate OpenCV would crash.
    texts = [''.join(c if c.isprintable() else '?' for c in texts[i]) for i in valid]
    colors = [colors[i] for i in valid]

    letters = round(max(LETTERS * (height * width) ** 0.5, LEAST))  # pixels
    pad, label_height = round(PAD * letters), round(HEIGHT * letters)
    sides = [(FONT.width(text, letters) + 2 * pad, label_height) for text in texts]
    places = label_places(bboxes, sides, (width, height)).round().astype(int)

    lowest_first = range(len(bboxes))[::-1]  # what is drawn later lies on top
    corners = bboxes.round().astype(int).tolist()
    for i in lowest_first:
        x1, y1, x2, y2 = corners[i]
        cv2.rectangle(drawn, (x1, y1), (x2, y2), _bgr(colors[i]), max(round(letters / 6), 2))
    for i in lowest_first:
        (x, y), (w, h) = places[i].tolist(), sides[i]
        cv2.rectangle(drawn, (x, y), (x + w - 1, y + h - 1), _bgr(colors[i]), cv2.FILLED)
        place = x + pad, y + round(BASELINE * letters)
        FONT.write(drawn, texts[i], place, letters, 255 * (text_color(colors[i]) == 'white'))
    return drawn


def _bgr(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color[1:]))[::-1]
