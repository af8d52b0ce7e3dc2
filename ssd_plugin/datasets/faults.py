"""Faults in data: the kinds that there are, how they are found, written down and refused.

``--data-root``, training, ``--strict`` and ``tools/show.py`` all use these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from mmcv.image import imfrombytes
from mmdet.structures import DetDataSample
from mmengine.fileio import get
from torch.utils.data import Dataset

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.datasets.jpeg import file_is_cut_off, is_cut_off
from ssd_plugin.datasets.large_images import read_header
from ssd_plugin.errors import DataRefusedError

T = TypeVar('T')
TOLERANCE = 1  # pixels that a box may lie outside: some tools count from 0, some from 1
CUT_OFF = 'the file is cut off'


class Kind:
    """Kinds of faults, as users read them."""

    # These leave out an image.
    NO_IMAGE = 'missing images'
    NOT_AN_IMAGE = 'unreadable images'
    NO_ANNOTATION = 'missing annotations'
    NOT_AN_ANNOTATION = 'unreadable annotations'
    # These leave out a ground-truth box.
    NOT_A_BOX = 'boxes without four numbers'
    NO_NAME = 'boxes without a class name'
    UNKNOWN_CLASS = 'boxes of unknown classes'
    UNKNOWN_IMAGE = 'boxes of unknown images'
    NO_AREA = 'boxes without area'
    OUTSIDE = 'boxes outside the image'
    NOT_FINITE = 'boxes with non-finite coordinates'
    TOO_LARGE = 'boxes too large to train on'
    NO_BOX = (NO_AREA, OUTSIDE)  # of those that are found by a box's coordinates
    # These leave out nothing.
    ACROSS_THE_EDGE = 'boxes partly outside'
    DUPLICATE = 'duplicate boxes'
    OTHER_SIZE = 'images of another size than annotated'
    INCOMPLETE = 'annotations without area, iscrowd or a unique id'
    ALSO_IN_TRAIN = 'images also in train'


class DataFault(NamedTuple):
    """Something wrong with an image, its annotation or one of its ground-truth boxes."""

    kind: str
    path: str
    detail: str = ''

    def __str__(self) -> str:
        return f'{self.path}: {self.kind}' + (f', {self.detail}' if self.detail else '')


class AnnotatedBox(NamedTuple):
    """A ground-truth box with its class, as every reader of annotations returns it."""

    name: str  # of the class
    bbox: tuple[float, float, float, float]  # xyxy in pixels, from 0, as MMDetection has it
    ignored: bool  # VOC's "difficult", COCO's "iscrowd"
    area: float | None = None  # in pixels, as COCO annotates it; None: the box's


class AnnotatedImage(NamedTuple):
    """An image, its ground-truth boxes, and what is wrong with its annotation."""

    path: str  # as the annotation has it; of own data, relative to the data's root
    size: tuple[int, int] | None  # (w, h) as annotated, None if not; of own data, as decoded
    boxes: list[AnnotatedBox]
    faults: list[DataFault]  # those of the boxes' coordinates are not among them


# ------------------------------------------------------------------------- images and their files


def read_image(path: str, backend_args: dict | None = None) -> np.ndarray | DataFault:
    """An image (h, w, 3) uint8 BGR as ``LoadImageFromFile`` decodes it, or why it cannot be."""
    return decode_file(path, imfrombytes, backend_args)


def decode_file(
    path: str, decode: Callable[[bytes], T | None], backend_args: dict | None = None
) -> T | DataFault:
    """What a function makes of an image's file, or why it cannot: it raises or answers None."""
    try:
        content = get(path, backend_args)
        if not content:
            return DataFault(Kind.NOT_AN_IMAGE, path, 'the file is empty')
        if is_cut_off(content):
            return DataFault(Kind.NOT_AN_IMAGE, path, CUT_OFF)
        image = decode(content)
    except FileNotFoundError:
        return DataFault(Kind.NO_IMAGE, path)
    except Exception as error:  # decoders and storage raise nearly anything for broken files
        return DataFault(Kind.NOT_AN_IMAGE, path, str(error))
    return DataFault(Kind.NOT_AN_IMAGE, path, "OpenCV can't decode it") if image is None else image


def image_size(path: str) -> tuple[int, int] | DataFault:
    """(w, h) that OpenCV will decode a local image to, from its header; or what is wrong with it.

    Damage behind the header is not found, but for a JPEG that is cut off.
    """
    try:
        if file_is_cut_off(path):
            return DataFault(Kind.NOT_AN_IMAGE, path, CUT_OFF)
        return read_header(path)[0]
    except FileNotFoundError:
        return DataFault(Kind.NO_IMAGE, path)
    except Exception as error:  # Pillow's readers raise nearly anything for broken headers
        return DataFault(Kind.NOT_AN_IMAGE, path, str(error))


def size_faults(
    path: str, annotated: tuple[int, int] | None, size: tuple[int, int]
) -> list[DataFault]:
    """A fault if an image's (w, h) is not as annotated; None stands for no annotated size."""
    if annotated is None or tuple(annotated) == tuple(size):
        return []
    sizes = '{} x {} instead of {} x {}'.format(*annotated, *size)
    return [DataFault(Kind.OTHER_SIZE, path, sizes)]


def image_name(sample: DetDataSample) -> str:
    """The path of a sample's image, or its id where the pipeline keeps no path."""
    return str(sample.get('img_path', sample.get('img_id')))


# -------------------------------------------------------------------------- ground-truth boxes


def box_fault(bbox: Iterable[float], width: float, height: float) -> str | None:
    """The kind of fault that a box xyxy has in an image of this size, all in pixels."""
    x1, y1, x2, y2 = bbox
    if x2 - x1 < 1 or y2 - y1 < 1:  # the rule of MMDetection's CocoDataset
        return Kind.NO_AREA
    if min(x2, width) - max(x1, 0) < 1 or min(y2, height) - max(y1, 0) < 1:
        return Kind.OUTSIDE
    beyond = max(-x1, -y1, x2 - width, y2 - height)
    return Kind.ACROSS_THE_EDGE if beyond > TOLERANCE else None


def box_faults(image: AnnotatedImage) -> list[tuple[AnnotatedBox, DataFault | None]]:
    """Each of an image's boxes with its fault, or None; to be a duplicate is one."""
    assert image.size is not None, 'the size of the decoded image is needed'
    (width, height), seen, found = image.size, set(), []
    for box in image.boxes:
        kind = box_fault(box.bbox, width, height)
        if kind is None and box[:2] in seen:
            kind = Kind.DUPLICATE
        seen.add(box[:2])
        fault = None
        if kind:
            fault = DataFault(kind, image.path, f'{box.name} {box.bbox} in {width} x {height}')
        found.append((box, fault))
    return found


# ------------------------------------------------------------------------------------- reports


def known_faults(dataset: Dataset) -> list[DataFault]:
    """What reading the annotations has found, of a built data set or of those inside wrappers."""
    return [fault for leaf in leaf_datasets(dataset) for fault in getattr(leaf, 'faults', ())]


def count_kinds(faults: Iterable[DataFault]) -> str:
    """How many faults there are of each kind, as words, the most frequent first."""
    counts = Counter(fault.kind for fault in faults)
    return ', '.join(f'{number} {kind}' for kind, number in counts.most_common())


def name_files(paths: Iterable[str], most: int) -> str:
    """The names of the first files, each once, and an ellipsis if there are more than ``most``."""
    names = list(dict.fromkeys(Path(path).name for path in paths))
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')


def write_faults(path: Path, faults: Iterable[tuple[str, DataFault]]) -> None:
    """Write a line for each: split, path, kind and detail, separated by tabs."""
    lines = [
        f'{split}\t{fault.path}\t{fault.kind}\t{" ".join(fault.detail.split())}\n'
        for split, fault in faults
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(lines), encoding='utf-8', errors='backslashreplace')


def require_no_faults(faults: list[DataFault]) -> None:
    """For ``--strict``: raise a ``DataRefusedError`` of one line if there is a fault.

    It names the first fault and says how many more there are.
    """
    if faults:
        more = f', and {len(faults) - 1} more' if len(faults) > 1 else ''
        first = ' '.join(str(faults[0]).split())
        raise DataRefusedError(
            f'--strict: {first}{more}; without --strict, they are skipped and reported'
        )
