"""Large JPEG files, decoded with no more resolution than is needed."""

from __future__ import annotations

from io import BytesIO
from typing import IO, Any, Literal

import cv2
import numpy as np
from PIL import Image

from ssd_plugin.datasets.jpeg import JPEG_START

LARGE = 4_000_000  # pixels; smaller images are decoded whole
# Resolution that is kept, over that of the output. With 1 the output differs twice as much from
# that of the whole image (0.9 grey levels on drawn noise, 0.5 with 1.5), and is 1 ms of 20 faster.
MARGIN = 1.5
EXIF_ORIENTATION = 0x0112  # from 2 on, the image is displayed mirrored or turned; from 5 transposed
# What JPEG's decoder can divide the sides by: it then does a smaller inverse DCT of each block.
REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}

# A limit against images that are too large to decode; Pillow reads only headers here.
Image.MAX_IMAGE_PIXELS = None


class LargeJpeg:
    """A JPEG image of more than 4 megapixels that is not decoded yet.

    It stands in place of the image, with its ``shape`` (h, w, 3), ``size`` and ``dtype``, until a
    transform knows how much of its resolution it needs, and calls :meth:`decode`.

    Args:
        content: The file.
        size: (w, h) of the image when it is decoded.
        turned: Whether it is mirrored or turned when it is decoded, as its EXIF data say.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, content: bytes, size: tuple[int, int], turned: bool = False) -> None:
        self.content, self.turned = content, turned
        self.shape = size[1], size[0], 3
        self.size = size[0] * size[1] * 3

    @classmethod
    def read(cls, content: bytes) -> LargeJpeg | None:
        """The image in a file, if it is a JPEG of more than 4 megapixels with a sound header."""
        if not content.startswith(JPEG_START):
            return None
        try:
            size, orientation = read_header(BytesIO(content))
        except Exception:  # Pillow's readers raise nearly anything; OpenCV may be able to decode it
            return None
        return cls(content, size, orientation != 1) if size[0] * size[1] > LARGE else None

    def decode(self, scale: float) -> tuple[np.ndarray, int]:
        """Decode for an output at a scale, the larger of the factors of both sides.

        Returns:
            The image (h / d, w / d, 3) uint8 BGR, both sides rounded up, and the divisor d. A pixel
            is d x d of the file's. d is the largest of 8, 4 and 2 with which at least 1.5 times the
            output's resolution is left, or 1.

        Raises:
            ValueError: OpenCV can't decode it, or not to the size in its header.
        """
        divisor = next(
            d for d in REDUCED if d == 1 or (d * scale * MARGIN <= 1 and self._divides(d))
        )
        image = cv2.imdecode(np.frombuffer(self.content, np.uint8), REDUCED[divisor])
        if image is None:
            raise ValueError("OpenCV can't decode this JPEG")
        expected = tuple(-(-side // divisor) for side in self.shape[:2])
        if image.shape[:2] != expected:
            raise ValueError(f'a JPEG of {self.shape[:2]} is decoded to {image.shape[:2]}')
        return image, divisor

    def _divides(self, divisor: int) -> bool:
        # Where the sides are rounded up, the last pixel reaches beyond the image; and in a turned
        # image the first, which would shift it.
        return not self.turned or all(side % divisor == 0 for side in self.shape[:2])


def decode(image: np.ndarray | LargeJpeg, scale: float) -> tuple[np.ndarray, int]:
    """The pixels for an output at a scale and the divisor, as of :meth:`LargeJpeg.decode`."""
    return image.decode(scale) if isinstance(image, LargeJpeg) else (image, 1)


def resize_by_area(image: np.ndarray | LargeJpeg, size: tuple[int, int]) -> np.ndarray:
    """Shrink an image (h, w, 3) uint8 to (w, h), each pixel the mean of those it covers."""
    fx, fy = size[0] / image.shape[1], size[1] / image.shape[0]
    pixels, divisor = decode(image, max(fx, fy))
    # OpenCV's mean of 2 x 2 is fast: 6 ms for 12 megapixels, where shrinking at once takes 23.
    while 2 * divisor * max(fx, fy) * MARGIN <= 1 and not any(s % 2 for s in pixels.shape[:2]):
        pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        divisor *= 2
    # Given factors instead of a size, cv2.resize keeps to them where sides were rounded up.
    factors: dict[str, Any] = dict(fx=fx * divisor, fy=fy * divisor)
    return cv2.resize(pixels, None, **factors, interpolation=cv2.INTER_AREA)[: size[1], : size[0]]


def read_header(file: str | IO[bytes]) -> tuple[tuple[int, int], int]:
    """(w, h) that OpenCV decodes an image to, and its EXIF orientation, 1 to 8.

    Raises:
        Exception: Pillow's readers raise nearly anything for files that they can't read.
    """
    with Image.open(file) as image:
        if image.format in ('JPEG', 'MPO'):
            orientation = jpeg_orientation(image.info.get('exif', b''))
        else:
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size, orientation


def jpeg_orientation(exif: bytes) -> int:
    """The orientation in a JPEG's EXIF data as OpenCV reads it; 1 if there is none.

    OpenCV takes two bytes, whatever type and number they say to have. Pillow's orientation may
    differ: it follows the type, and also takes one from XMP data.
    """
    tiff = exif.removeprefix(b'Exif\0\0')
    order: Literal['little', 'big'] = 'little' if tiff.startswith(b'II') else 'big'

    def number(place: int, length: int) -> int:
        return int.from_bytes(tiff[place : place + length], order)

    table = number(4, 4)  # of entries of 12 bytes: tag, type, count, value
    for entry in range(table + 2, table + 2 + 12 * number(table, 2), 12):
        if number(entry, 2) == EXIF_ORIENTATION:
            return number(entry + 8, 2)
    return 1
