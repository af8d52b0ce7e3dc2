"""Files: the images and folders there are, how large an image is, and writing."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
JPEG_START, JPEG_SCAN, JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'
ORIENTATION = 0x0112  # EXIF's tag; from 5 on, the image is to be turned by a quarter
# A limit against images that are too large to decode; only headers are read here.
Image.MAX_IMAGE_PIXELS = None


def list_images(folder: Path) -> dict[str, str]:
    """The names of the images in a folder, by their stems."""
    names = [name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES)]
    return {os.path.splitext(name)[0]: name for name in sorted(names, reverse=True)}  # jpg wins


def image_size(path: Path) -> tuple[int, int]:
    """Width and height that the image will have when OpenCV has decoded it.

    Raises:
        OSError: There is no such file, it is not an image, or it is a JPEG that is cut off.
    """
    try:
        if is_cut_off(path):
            raise OSError('the file is cut off')
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except OSError:
        raise
    except Exception as error:  # of broken headers, Pillow's readers raise nearly anything
        raise OSError(f'{type(error).__name__}: {error}') from error


def is_cut_off(path: Path) -> bool:
    """Whether a JPEG ends before its image does; of a whole one only both ends are read.

    Within the data of a scan the mark of the end can't occur; behind it other things may follow.
    """
    with open(path, 'rb') as file:
        if file.read(2) != JPEG_START:
            return False
        file.seek(-2, os.SEEK_END)
        if file.read() == JPEG_END:
            return False
        file.seek(0)
        content = file.read()
    return content.rfind(JPEG_END) < content.rfind(JPEG_SCAN)


def subfolder(folder: Path, *names: str) -> Path | None:
    """The subfolder with the first of these names, in small or capital letters."""
    found = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((found[name] for name in names if name in found), None)


def write_text(path: Path, text: str) -> None:
    """Write a file whole: processes that train together all write it, none sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(text, encoding='utf-8')
    part.replace(path)
