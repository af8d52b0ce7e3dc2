"""Files: the pictures and folders there are, how large a picture is, and writing."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
ORIENTATION = 0x0112  # EXIF's tag; from 5 on, the picture is to be turned by a quarter
# A limit against pictures that are too large to decode; only headers are read here.
Image.MAX_IMAGE_PIXELS = None


def list_pictures(folder: Path) -> dict[str, str]:
    """The names of the pictures in a folder, by their stems."""
    names = [name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES)]
    return {os.path.splitext(name)[0]: name for name in sorted(names, reverse=True)}  # jpg wins


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height that the picture will have when OpenCV has decoded it.

    Raises:
        OSError: There is no such file, or it is not a picture.
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except OSError:
        raise
    except Exception as error:  # of broken headers, Pillow's readers raise nearly anything
        raise OSError(f'{type(error).__name__}: {error}') from error


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
