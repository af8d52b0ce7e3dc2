"""Images, folders, patterns and videos to detect on, decoded one at a time."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmcv import VideoReader
from mmcv.image import imfrombytes
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

from ssd_plugin.datasets.faults import DataFault, Kind, decode_file
from ssd_plugin.datasets.large_images import LargeJpeg
from ssd_plugin.errors import InputError

VIDEO_EXTENSIONS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
Shrink = Callable[[LargeJpeg], np.ndarray]
DEFAULT_RATE = 25.0  # frames per second of a video that doesn't say
MAX_RATE = 240.0  # more is a unit of time, as 90000, and not a rate


class Image(NamedTuple):
    """An image, or a frame of a video."""

    path: str  # of the file, as found
    name: str  # the path below the folder that all inputs have in common, with '/'
    pixels: np.ndarray  # (h, w, 3) uint8 BGR
    frame: int | None = None  # of a video or a stream, from 0
    rate: float | None = None  # of a video or a stream, in frames per second
    seconds: float | None = None  # since the start of a stream
    whole: tuple[int, int] | None = None  # (w, h) in the file, where the pixels are shrunk

    @property
    def size(self) -> tuple[int, int]:
        """(w, h) in the file."""
        return self.whole or self.pixels.shape[1::-1]


def find_inputs(
    inputs: Sequence[str],
    leave_out: Sequence[Path] = (),
    suffixes: Sequence[str] = IMG_EXTENSIONS + VIDEO_EXTENSIONS,
) -> list[str]:
    """Paths of the files that the arguments of a command name, each once, in their order.

    1. A file is taken whatever its name is; it is a video if it has the suffix of one.
    2. Of a folder, its images are taken, as ``DetInferencer`` does: not those of folders in it.
    3. Anything else is a pattern with ``*``, ``?``, ``[...]``, and ``**`` for folders of any
       depth. It takes files with one of ``suffixes``, by default images and videos.

    Folders and patterns take files by suffix, in small or capital letters, and in the order of
    their names. Patterns take nothing from the files and folders ``leave_out``, where results are
    written.

    Raises:
        InputError: An argument names nothing that can be detected on, or a file that results would
            replace.
    """
    found: dict[str, str] = {}
    for text in inputs:
        for path in _matches(text, leave_out, suffixes):
            found.setdefault(os.path.abspath(path), path)
    for path in found.values():
        if _is_in(path, leave_out):
            raise InputError(f'{path} is where results are written: name another --out')
    return list(found.values())


def _matches(text: str, leave_out: Sequence[Path], suffixes: Sequence[str]) -> list[str]:
    if os.path.isfile(text):
        return [text]
    if os.path.isdir(text):
        found = [os.path.join(text, name) for name in sorted(os.listdir(text))]
        found = [path for path in found if _has_suffix(path, IMG_EXTENSIONS)]
        if not found:
            raise InputError(
                f'{text}: no images in this folder ({" ".join(IMG_EXTENSIONS)}); those in '
                f"folders below it are '{os.path.join(text, '**', '*.jpg')}'"
            )
        return found
    found = [
        path
        for path in sorted(glob.glob(text, recursive=True))
        if _has_suffix(path, suffixes) and not _is_in(path, leave_out)
    ]
    if not found:
        raise InputError(f'{text}: no such file or folder, and as a pattern it matches no image')
    return found


def _is_in(path: str, places: Sequence[Path]) -> bool:
    """Whether a path is one of the files, or lies in one of the folders."""
    return any(Path(os.path.abspath(path)).is_relative_to(os.path.abspath(p)) for p in places)


def _has_suffix(path: str, suffixes: Sequence[str]) -> bool:
    return path.lower().endswith(tuple(suffixes)) and os.path.isfile(path)


def is_video(path: str) -> bool:
    """Whether a path has the suffix of a video."""
    return path.lower().endswith(VIDEO_EXTENSIONS)


def read_inputs(
    paths: Sequence[str], shrink: Shrink | None = None
) -> Generator[Image | DataFault, None, None]:
    """Decode files one after the other into images, frames, and faults of those that can't be.

    Of large JPEG files, ``shrink`` makes the pixels that are detected on; by default all pixels
    are decoded.
    """
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    for path in paths:
        name = Path(os.path.relpath(path, folder)).as_posix()
        if is_video(path):
            yield from _read_video(path, name)
            continue
        made = decode_file(path, partial(_decode, shrink=shrink))
        yield made if isinstance(made, DataFault) else Image(path, name, made[0], whole=made[1])


def _decode(content: bytes, shrink: Shrink | None) -> tuple[np.ndarray, tuple | None] | None:
    """The pixels of a file, and its (w, h) where they are shrunk."""
    large = LargeJpeg.read(content) if shrink else None
    if shrink and large:
        return shrink(large), large.shape[1::-1]
    pixels = imfrombytes(content)
    return None if pixels is None else (pixels, None)


def _read_video(path: str, name: str) -> Generator[Image | DataFault, None, None]:
    # mmcv.VideoReader seeks where frames are not evenly spaced, and may repeat some.
    capture = cv2.VideoCapture(path)
    rate = frame_rate(capture)
    try:
        for frame in count():
            success, pixels = capture.read()
            if not success:
                break
            yield Image(path, name, pixels, frame, rate)
    finally:
        capture.release()
    if frame == 0:
        yield DataFault(Kind.NOT_AN_IMAGE, path, "OpenCV can't decode it as a video")


def frame_rate(capture: cv2.VideoCapture) -> float:
    """Frames per second of a video or a stream, or a usual rate if it tells none that can be."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate <= MAX_RATE else DEFAULT_RATE


def count_images(paths: Sequence[str]) -> int:
    """The number of images, with the frames of videos as far as they say how many they have."""
    return sum(max(VideoReader(path).frame_cnt, 1) if is_video(path) else 1 for path in paths)
