"""The windows of the random crop in SSD's augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Constants of the original that no recipe changes.
TRIALS = 50  # windows that each sampler draws
ASPECT_RANGE = (0.5, 2.0)  # width / height


def draw_window(
    generator: np.random.Generator, bboxes: np.ndarray, min_ious: Sequence[float], min_scale: float
) -> np.ndarray:
    """Draw one window as SSD's crop does.

    1. Each sampler offers a window: one the whole canvas, one any window. Each of the others, one
       for each of ``min_ious``, draws 50 windows and offers the first with which at least one box
       reaches that IoU, or none.
    2. One of the offers is taken with equal probability: the first in a random order of the
       samplers, so that those after it need not draw.

    The ground-truth boxes (G, 4) and the window that is returned, (4,), are xyxy as fractions of
    the canvas's sides; ``min_scale`` is the smallest scale of a window.
    """
    for sampler in generator.random(len(min_ious) + 2).argsort():
        if sampler == len(min_ious):
            return draw_windows(generator, 1, min_scale).reshape(4)
        if sampler > len(min_ious):
            break
        windows = draw_windows(generator, TRIALS, min_scale)
        met = meets(windows, bboxes, min_ious[sampler])
        if met.any():
            return windows[:, :, np.argmax(met)].reshape(4)
    return np.array([0.0, 0.0, 1.0, 1.0])


def draw_windows(generator: np.random.Generator, number: int, min_scale: float) -> np.ndarray:
    """Draw N windows, whatever is in them; the scale is the square root of a window's area.

    Returns an array (2, 2, N): x and y of the top left corners, then of the bottom right corners,
    as fractions of the canvas's sides. The aspect (width / height) is one of such fractions, too.
    """
    scale = generator.uniform(min_scale, 1, number)
    aspect = generator.uniform(*ASPECT_RANGE, number)
    # Between s^2 and 1/s^2, so that neither side is longer than the canvas's.
    area = scale * scale
    root = np.sqrt(np.maximum(np.minimum(aspect, 1 / area), area))
    windows = np.empty((2, 2, number))
    low, high = windows
    np.multiply(scale, root, out=high[0])  # the sides, for now
    np.divide(scale, root, out=high[1])
    np.multiply(generator.random((2, number)), 1 - high, out=low)
    high += low
    return windows


def meets(windows: np.ndarray, bboxes: np.ndarray, min_iou: float) -> np.ndarray:
    """Whether at least one box reaches an IoU, above 0, with a window, a bool array (N,).

    The windows (2, 2, N) are as from :func:`draw_windows`, the boxes (G, 4) xyxy in their unit.
    Boxes without area or with NaN reach none.
    """
    low, high = windows  # (2, N)
    corners = bboxes.T.reshape(2, 2, -1, 1)  # (2, 2, G, 1)
    sides = np.minimum(high[:, None], corners[1]) - np.maximum(low[:, None], corners[0])
    np.maximum(sides, 0, out=sides)  # (2, G, N)
    overlap = sides[0] * sides[1]
    window_sides, box_sides = high - low, np.maximum(corners[1] - corners[0], 0)
    union = window_sides[0] * window_sides[1] + box_sides[0] * box_sides[1] - overlap
    return (overlap >= min_iou * union).any(0)
