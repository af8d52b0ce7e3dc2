"""Detections as COCO's JSON, VOC's XML and drawn images, written one image at a time."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import cv2
import numpy as np
from mmcv import imwrite
from mmengine.structures import InstanceData

from ssd_plugin.errors import InputError
from ssd_plugin.inference.inputs import DEFAULT_RATE, Image
from ssd_plugin.visualization.detections import draw

# Suffixes that OpenCV writes in colour and --data-root reads.
WRITTEN = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')


class Writer(Protocol):
    """Takes the detections of one image after the other."""

    def write(self, image: Image, found: InstanceData) -> None:
        """Write the detections of an image, by falling score, as NumPy arrays.

        They are ``bboxes`` (n, 4) xyxy in its pixels, ``scores`` (n,) and ``labels`` (n,).
        """

    def close(self) -> None:
        """Complete the files."""


class CocoWriter:
    """``detections.json``, a list in COCO's results format, and ``images.json`` beside it.

    The second is a file of annotations without any annotation, so that pycocotools'
    ``COCO('images.json')`` can load the results. It has the path of each ``image_id`` in
    ``file_name``, and the name of each ``category_id``, which is the label + 1. ``frame_id`` is
    the number of a video's frame, from 0, and ``seconds`` the time since a stream's start.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
        about = json.dumps(dict(info={}, categories=categories, annotations=[]))
        self.detections = JsonList(folder / 'detections.json', '[', ']')
        self.images = JsonList(folder / 'images.json', f'{about[:-1]}, "images": [', ']}')
        self.image_id = 0

    def write(self, image: Image, found: InstanceData) -> None:
        """Write the image and its detections, boxes xywh."""
        self.image_id += 1
        width, height = image.size
        record = dict(id=self.image_id, file_name=image.path, width=width, height=height)
        if image.frame is not None:
            record['frame_id'] = image.frame
        if image.seconds is not None:
            record['seconds'] = round(image.seconds, 3)
        self.images.add(record)
        boxes = np.hstack([found.bboxes[:, :2], found.bboxes[:, 2:] - found.bboxes[:, :2]])
        for box, score, label in zip(boxes.tolist(), found.scores.tolist(), found.labels.tolist()):
            entry = dict(image_id=self.image_id, category_id=label + 1)
            box = [round(side, 3) for side in box]
            self.detections.add(dict(entry, bbox=box, score=round(score, 5)))

    def close(self) -> None:
        """Complete both files."""
        self.detections.close()
        self.images.close()


class JsonList:
    """A JSON file with a list between two texts; entries are added one at a time, a line each."""

    def __init__(self, path: Path, before: str, after: str) -> None:
        self.file = path.open('w', encoding='utf-8')
        self.file.write(before)
        self.after, self.separator = after, '\n'

    def add(self, entry: dict) -> None:
        """Write an entry."""
        self.file.write(f'{self.separator}{json.dumps(entry)}')
        self.separator = ',\n'

    def close(self) -> None:
        """Complete the JSON."""
        self.file.write(f'\n{self.after}\n')
        self.file.close()


class VocWriter:
    """A folder in VOC's format: copies in ``JPEGImages``, detections in ``Annotations``.

    VOC's files count pixels from 1. As MMDetection reads them, the boxes are the detected ones,
    rounded to whole pixels inside the image, with an area of at least one pixel. An image without
    detections has an annotation without objects.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.images, self.annotations = folder / 'JPEGImages', folder / 'Annotations'
        self.classes = classes
        self.taken: set[str] = set()
        for path in (self.images, self.annotations):
            path.mkdir(parents=True, exist_ok=True)

    def write(self, image: Image, found: InstanceData) -> None:
        """Write the XML, and copy the image; a frame of a video becomes a JPEG."""
        stem, suffix = self._unique_stem(image), PurePosixPath(image.name).suffix
        if image.frame is None and suffix.lower() in WRITTEN:
            shutil.copyfile(image.path, self.images / f'{stem}{suffix}')
        else:
            suffix = '.png' if image.frame is None else '.jpg'
            imwrite(image.pixels, self.images / f'{stem}{suffix}')
        root = to_xml(image, f'{stem}{suffix}', found, self.classes)
        ET.ElementTree(root).write(self.annotations / f'{stem}.xml', encoding='utf-8')

    def _unique_stem(self, image: Image) -> str:
        """A name without folders that no earlier image has."""
        stem = wanted = PurePosixPath(image.name).with_suffix('').as_posix().replace('/', '_')
        if image.frame is not None:
            stem = wanted = f'{wanted}_{image.frame:06d}'
        number = 1
        while stem.lower() in self.taken:
            number += 1
            stem = f'{wanted}_{number}'
        self.taken.add(stem.lower())
        return stem

    def close(self) -> None:
        """Do nothing: all files are complete."""


def to_xml(image: Image, filename: str, found: InstanceData, classes: Sequence[str]) -> ET.Element:
    """An annotation in VOC's format; ``path`` says where the image came from."""
    width, height = image.size
    root = ET.Element('annotation')
    _add(root, folder='JPEGImages', filename=filename, path=image.path)
    _add(ET.SubElement(root, 'size'), width=width, height=height, depth=3)
    for bbox, label in zip(found.bboxes, found.labels):
        entry = ET.SubElement(root, 'object')
        _add(entry, name=classes[label], pose='Unspecified', truncated=0, difficult=0)
        x1, y1, x2, y2 = (round(float(side)) + 1 for side in bbox)
        x1, y1 = min(max(x1, 1), max(width - 1, 1)), min(max(y1, 1), max(height - 1, 1))
        x2, y2 = max(min(x2, width), x1 + 1), max(min(y2, height), y1 + 1)
        _add(ET.SubElement(entry, 'bndbox'), xmin=x1, ymin=y1, xmax=x2, ymax=y2)
    ET.indent(root)
    return root


def _add(parent: ET.Element, **children: object) -> None:
    for tag, value in children.items():
        # XML has no bytes of names that are not UTF-8.
        ET.SubElement(parent, tag).text = str(value).encode(errors='replace').decode()


class DrawingWriter:
    """Images with their detections, under their own names, and videos as ``.mp4``."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, classes
        self.video: DrawnVideo | None = None

    def write(self, image: Image, found: InstanceData) -> None:
        """Draw on an image, or on the next frame of a video."""
        if not image.frame:  # an image or a first frame
            self.close()
        if image.frame is None:
            drawn = draw(image.pixels, found, self.classes)
            imwrite(drawn, self.folder / _named(image.name, WRITTEN, '.png'))
            return
        if self.video is None:
            path = self.folder / _named(image.name, ('.mp4',), '.mp4')
            self.video = DrawnVideo(path, self.classes)
        self.video.write(image, found)

    def close(self) -> None:
        """Complete a video."""
        if self.video is not None:
            self.video.close()
            self.video = None


class DrawnVideo:
    """A video with detections, of the size and rate of its first frame.

    A stream's keeps the time: where frames were dropped, the next one is repeated, but no longer
    than for a second.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.path, self.classes = path, classes
        self.video: cv2.VideoWriter | None = None
        self.due = 0  # frames of a stream until now
        self.start = 0.0  # seconds of its first frame

    def write(self, image: Image, found: InstanceData) -> None:
        """Draw on the next frame."""
        drawn, rate = draw(image.pixels, found, self.classes), image.rate or DEFAULT_RATE
        if self.video is None:
            self.size = drawn.shape[1], drawn.shape[0]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter.fourcc(*'mp4v')
            self.video = cv2.VideoWriter(str(self.path), codec, rate, self.size)
            self.rate, self.start = rate, image.seconds or 0.0
            if not self.video.isOpened():
                raise InputError(
                    f"{self.path}: OpenCV can't write this video; --out DIR --no-draw does without"
                )
        if drawn.shape[1::-1] != self.size:  # a stream that was opened again
            drawn = cv2.resize(drawn, self.size)
        for _ in range(self._repeats(image)):
            self.video.write(drawn)

    def _repeats(self, image: Image) -> int:
        if image.seconds is None:
            return 1
        due = max(self.due, round((image.seconds - self.start) * self.rate) + 1)
        missing, self.due = due - self.due, due
        return min(missing, max(round(self.rate), 1))

    def close(self) -> None:
        """Complete the video."""
        if self.video is not None:
            self.video.release()


def _named(name: str, suffixes: Sequence[str], other: str) -> str:
    """The name if it has one of these suffixes, or the name with another: ``clip.avi.mp4``."""
    return name if name.lower().endswith(tuple(suffixes)) else f'{name}{other}'
