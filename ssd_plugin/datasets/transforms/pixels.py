"""Pixels of SSD's augmentation: resizing and distorting the visible part of an image."""

from __future__ import annotations

from math import ceil, floor
from typing import Any, NamedTuple

import cv2
import numpy as np

# Starting positions that `visible_span` tries at least: an edge is then rarely off by a tenth of an
# output pixel.
MIN_LEADS = 8


class Span(NamedTuple):
    """The visible pixels of an image along one axis, and their place in the output."""

    source: slice  # pixels of the image
    lead: int  # how often the first of them is repeated before resizing
    skip: int  # pixels of the resized part before those of the target
    target: slice  # pixels of the output


def visible_span(
    start: int, stop: int, offset: int, size: int, length: int, divisor: int = 1
) -> Span | None:
    """The visible pixels of an image in a window, along one axis.

    The window goes from pixel ``start`` to ``stop`` of the canvas, the image of ``size`` pixels
    begins at ``offset``, and the output has ``length`` pixels. A pixel of the decoded image is
    ``divisor`` of these: those of the answer are pixels of the decoded image. The answer is None if
    less than half a pixel of the output would be visible.

    ``cv2.resize`` cannot begin between two pixels of its output. Where the image begins inside the
    window, or the window inside a pixel, that would shift it by up to half a pixel. So its first
    pixel is repeated as often as it takes for the beginning to fall nearly on a pixel of the
    output.
    """
    # From here on in pixels of the decoded image, from its beginning.
    near, far = (start - offset) / divisor, (stop - offset) / divisor
    end = min(far, size / divisor)  # of what is visible
    first, last = max(floor(near), 0), ceil(end)
    if max(near, 0) >= end:
        return None
    scale = length / (far - near)

    def distance(lead: int) -> float:  # to the nearest pixel of the output
        begin = (first - near - lead) * scale
        return abs(begin - round(begin))

    lead = min(range(MIN_LEADS + ceil(1 / scale)), key=distance)  # 0 if they coincide
    begin = round((first - near - lead) * scale)
    stop = begin + round((end - first + lead) * scale)  # as cv2.resize rounds
    target = slice(round(max(first - near, 0) * scale), min(stop, length))
    if target.start >= target.stop:
        return None
    return Span(slice(first, last), lead, target.start - begin, target)


def resize(
    part: np.ndarray,
    across: Span,
    down: Span,
    scale_factor: tuple[float, float],
    interpolation: int,
) -> np.ndarray:
    """Resize the visible part of an image to the size of its place in the output.

    The part is the spans' source pixels, (h, w, 3) uint8, the answer their target pixels. The
    factors (w, h) lead from pixels of the image to pixels of the output.
    """
    if across.lead or down.lead:
        part = cv2.copyMakeBorder(part, down.lead, 0, across.lead, 0, cv2.BORDER_REPLICATE)
    # Given factors instead of a size, cv2.resize keeps to them exactly.
    fx, fy = scale_factor
    factors: dict[str, Any] = dict(fx=fx, fy=fy, interpolation=interpolation)
    shrinks = max(scale_factor) < 1
    if interpolation == cv2.INTER_LANCZOS4 or (interpolation == cv2.INTER_AREA and shrinks):
        # OpenCV is faster here with floats than with 8 bits: twice for Lanczos, by a third for
        # area, which gives the same result.
        part = cv2.resize(part.astype(np.float32), None, **factors)
        part = cv2.convertScaleAbs(np.maximum(part, 0, out=part))  # rounds, at most 255
    else:
        part = cv2.resize(part, None, **factors)
    rows = slice(down.skip, down.skip + down.target.stop - down.target.start)
    columns = slice(across.skip, across.skip + across.target.stop - across.target.start)
    return part[rows, columns]


def distort(
    image: np.ndarray, brightness: int, contrast: float, saturation: float, hue: float
) -> np.ndarray:
    """Distort the colours of an image (h, w, 3) uint8, BGR, which is not changed.

    In this order: add grey levels, multiply them by the contrast, multiply the saturation, rotate
    the hue by degrees. Values are clipped to 0 and 255 after each step.
    """
    if brightness:
        image = cv2.add(image, (brightness, brightness, brightness, 0))  # type: ignore[call-overload]
    if contrast != 1:
        image = cv2.convertScaleAbs(image, alpha=contrast)
    if saturation != 1 or hue:
        # OpenCV's "full" HSV has 256 steps of hue, so that uint8 arithmetic wraps around.
        hues, saturations, values = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL))
        hues += np.uint8(round(hue * 256 / 360) % 256)
        saturations = cv2.convertScaleAbs(saturations, alpha=saturation)
        hsv = cv2.merge((hues, saturations, values))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL)
    return image
