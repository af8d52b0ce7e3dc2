"""Drawn JPEG files like photographs, with EXIF data."""

import io

import cv2
import numpy as np
from PIL import Image

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def drawn_image(height, width, seed=0):
    """An image of coarse and fine structures, about as smooth as photographs."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120, np.float32)
    for side, strength in ((128, 40), (32, 25), (8, 10), (3, 3)):
        grid = rng.standard_normal((height // side + 2, width // side + 2, 3)).astype(np.float32)
        image += strength * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def encode_jpeg(image, orientation=1, mode='RGB', **options):
    """A JPEG file of an image BGR, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = dict(quality=95, exif=exif.tobytes()) | options
    buffer = io.BytesIO()
    Image.fromarray(image[..., ::-1]).convert(mode).save(buffer, 'JPEG', **options)
    return buffer.getvalue()


def decode_whole(content):
    """What OpenCV decodes it to."""
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
