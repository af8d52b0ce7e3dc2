"""Faults in data: the kinds that there are, and what is wrong with an image's file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from mmcv.image import imfrombytes
from mmengine.fileio import get
from torch.utils.data import Dataset

# The words of --data-root, where it knows the kind too. These take an image out.
NO_IMAGE = 'missing images'
NOT_AN_IMAGE = 'unreadable images'
NO_ANNOTATION = 'missing annotations'
NOT_AN_ANNOTATION = 'unreadable annotations'
# These take an object out.
NOT_A_BOX = 'boxes without four numbers'
UNKNOWN_CLASS = 'objects of no known class'
UNKNOWN_IMAGE = 'objects of no known image'
NO_AREA = 'boxes without area'
OUTSIDE = 'boxes outside the image'
# These take out nothing.
ACROSS_THE_EDGE = 'boxes partly outside'
DUPLICATE = 'duplicate objects'
OTHER_SIZE = 'annotated as of another size'
NO_NUMBERS = 'objects without area, iscrowd or a number of their own'

TOLERANCE = 1  # pixels that a box may lie outside: some tools count from 0, some from 1
CUT_OFF = 'the file is cut off'
JPEG_START, JPEG_SCAN, JPEG_END = b'\xff\xd8\xff', b'\xff\xda', b'\xff\xd9'


class DataFault(NamedTuple):
    """Something wrong with an image, its annotation or one of its objects."""

    kind: str
    path: str
    detail: str = ''

    def __str__(self) -> str:
        return f'{self.path}: {self.kind}' + (f', {self.detail}' if self.detail else '')


def read_image(path: str, backend_args: dict | None = None) -> np.ndarray | DataFault:
    """An image (h, w, 3) uint8 as ``LoadImageFromFile`` decodes it, or why it can't be decoded."""
    try:
        content = get(path, backend_args)
        if not content:
            return DataFault(NOT_AN_IMAGE, path, 'the file is empty')
        if is_cut_off(content):
            return DataFault(NOT_AN_IMAGE, path, CUT_OFF)
        image = imfrombytes(content)
    except FileNotFoundError:
        return DataFault(NO_IMAGE, path)
    except Exception as error:  # of broken files, decoders and storage raise nearly anything
        return DataFault(NOT_AN_IMAGE, path, ' '.join(str(error).split()))
    return DataFault(NOT_AN_IMAGE, path, "OpenCV can't decode it") if image is None else image


def is_cut_off(content: bytes) -> bool:
    """Whether a JPEG ends before its image does; OpenCV 4 fills up what is missing with grey.

    Within the data of a scan the mark of the end can't occur. After it other things may follow,
    and before it lies perhaps a preview, which has a mark of its own.
    """
    if not content.startswith(JPEG_START) or content.endswith(JPEG_END):
        return False
    return content.rfind(JPEG_END) < content.rfind(JPEG_SCAN)


def file_is_cut_off(path: str) -> bool:
    """:func:`is_cut_off` of a local file; of a whole one only both ends are read."""
    with open(path, 'rb') as file:
        if file.read(len(JPEG_START)) != JPEG_START:
            return False
        file.seek(-len(JPEG_END), 2)
        if file.read() == JPEG_END:
            return False
        file.seek(0)
        return is_cut_off(file.read())


def box_fault(bbox: Sequence[float], width: float, height: float) -> str | None:
    """The kind of fault that a box xyxy has, by the size of its image; all in pixels."""
    x1, y1, x2, y2 = bbox
    if x2 - x1 < 1 or y2 - y1 < 1:  # as MMDetection's CocoDataset has it
        return NO_AREA
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return OUTSIDE
    beyond = max(-x1, -y1, x2 - width, y2 - height)
    return ACROSS_THE_EDGE if beyond > TOLERANCE else None


def box_faults(info: Mapping) -> Iterator[DataFault]:
    """What is wrong with the objects of an image, or would be if they were to be perfect.

    Args:
        info: The image as MMDetection's data sets have it: ``img_path``, ``width``, ``height``
            and ``instances``, each with ``bbox`` and ``bbox_label``.
    """
    width, height, seen = info['width'], info['height'], set()
    for instance in info['instances']:
        bbox = tuple(instance['bbox'])
        kind = box_fault(bbox, width, height)
        if (bbox, instance['bbox_label']) in seen:
            kind = kind or DUPLICATE
        seen.add((bbox, instance['bbox_label']))
        if kind:
            yield DataFault(kind, info['img_path'], f'{bbox} in {width} x {height}')


def leaf_datasets(dataset: Dataset) -> list[Dataset]:
    """The data sets inside wrappers (RepeatDataset, ConcatDataset, ClassBalancedDataset, ...)."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        return [dataset]
    return list(chain.from_iterable(map(leaf_datasets, inner)))


def known_faults(dataset: Dataset) -> list[DataFault]:
    """What reading found, of a data set of the package's or of those inside wrappers."""
    return [fault for leaf in leaf_datasets(dataset) for fault in getattr(leaf, 'faults', ())]
