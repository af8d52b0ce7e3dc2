"""Anti-aliased letters on images: OpenCV 5 writes them itself; for OpenCV 4 Pillow does."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from pathlib import Path
from threading import Lock

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FILE = str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'))


class OpenCVFont:
    """OpenCV 5's letters: Pillow takes ten times as long, and has no Chinese characters.

    OpenCV has characters of its own for those that ``FILE`` lacks. Its face serves one thread.
    """

    def __init__(self) -> None:
        self.face, self.lock = cv2.FontFace(FILE), Lock()

    def width(self, text: str, size: int) -> int:
        """The width of a text in pixels, for letters of ``size`` pixels."""
        with self.lock:
            return cv2.getTextSize((0, 0), text, (0, 0), self.face, self._scaled(size))[2]

    def write(
        self, image: np.ndarray, text: str, place: tuple[int, int], size: int, color: int
    ) -> None:
        """Write a text on an image (h, w, 3) uint8, in place, in a grey ``color``.

        The ``place`` (x, y), neither negative, is the left end of the letters' baseline. What does
        not fit into the image is cut off.
        """
        with self.lock:
            cv2.putText(image, text, place, (color,) * 3, self.face, self._scaled(size))

    def _scaled(self, size: int) -> int:
        """The size with which letters are as large as Pillow's."""
        return ceil(0.93 * size)


class PillowFont:
    """Pillow's letters, with the methods of ``OpenCVFont``."""

    def width(self, text: str, size: int) -> int:
        """As ``OpenCVFont.width``."""
        return _render(text, size)[0].shape[1]

    def write(
        self, image: np.ndarray, text: str, place: tuple[int, int], size: int, color: int
    ) -> None:
        """As ``OpenCVFont.write``."""
        letters, ascent = _render(text, size)
        x, y = place
        above = max(ascent - y, 0)  # the rows of the letters above the image
        region = image[y - ascent + above :, x:][: len(letters) - above, : letters.shape[1]]
        height, width = region.shape[:2]
        opacity = letters[above:][:height, :width, None]
        region[:] = region + (np.float32(color) - region) * opacity + 0.5


@lru_cache(maxsize=1000)  # scores have two digits: texts come back from image to image
def _render(text: str, size: int) -> tuple[np.ndarray, int]:
    """The opacity (h, w) of a text's pixels, in [0, 1], and the rows above its baseline."""
    font = _load(size)
    ascent, descent = font.getmetrics()
    letters = Image.new('L', (ceil(font.getlength(text)), ascent + descent))
    ImageDraw.Draw(letters).text((0, ascent), text, 255, font, anchor='ls')
    return np.asarray(letters, np.float32) / 255, ascent


@lru_cache(maxsize=8)
def _load(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FILE, size)


def printable(text: str) -> str:
    """A text whose line breaks and other characters without a glyph are question marks.

    At half a surrogate OpenCV would crash.
    """
    return ''.join(c if c.isprintable() else '?' for c in text)


FONT = OpenCVFont() if hasattr(cv2, 'FontFace') else PillowFont()
