"""The contents of a COCO json: what MMDetection and pycocotools can use of it."""

from __future__ import annotations

import math
from collections import Counter

from mmdet.datasets.api_wrappers import COCO

from ssd_plugin.datasets.faults import (
    NO_AREA,
    NO_NUMBERS,
    NOT_A_BOX,
    NOT_AN_ANNOTATION,
    OUTSIDE,
    UNKNOWN_CLASS,
    UNKNOWN_IMAGE,
    DataFault,
    box_fault,
)
from ssd_plugin.errors import DataRefusedError

TABLES = ('images', 'annotations', 'categories')
# With these CocoMetric, which reads a json by itself, ends in an error.
NOT_EVALUATED = (NOT_AN_ANNOTATION, NOT_A_BOX, NO_NUMBERS)


class CleanCOCO(COCO):
    """MMDetection's COCO, of what is sound in a json.

    Args:
        annotation_file: Path of the json.
        faults: A list, to which is added what is wrong with the rest.

    Raises:
        DataRefusedError: It is no json of COCO's kind.
    """

    def __init__(self, annotation_file: str, faults: list[DataFault]) -> None:
        self.path, self.faults = annotation_file, faults
        try:
            super().__init__(annotation_file)
        except (AssertionError, UnicodeDecodeError, ValueError, RecursionError) as error:
            if isinstance(error, DataRefusedError):
                raise
            raise DataRefusedError(f"can't read {annotation_file}: {error}") from error

    def createIndex(self) -> None:
        """Index what is sound; called by pycocotools when it has read the file."""
        if not all(_is_table(self.dataset.get(key)) for key in TABLES):
            tables = ', '.join(TABLES)
            raise DataRefusedError(f'{self.path} is no COCO json: it has no lists {tables}')
        self.dataset, faults = clean(self.dataset, self.path)
        self.faults += faults
        super().createIndex()


def clean(document: dict, path: str) -> tuple[dict, list[DataFault]]:
    """What is sound in a COCO json, and what is wrong with the rest.

    1. Categories have an id and a name.
    2. Images have an id, which no other has, a file name, a width and a height.
    3. Annotations are of such an image and category, with a box of four finite numbers.
    4. Where one of these annotations lacks ``iscrowd``, it is no crowd; where it lacks a positive
       ``area``, it is the box's; where ids are missing or occur twice, all are given anew.

    Boxes without area or outside the image stay: ``CocoDataset`` leaves them out.

    Args:
        document: The contents; they stay as they are.
        path: Of the file, for what is wrong with no image in particular.
    """
    categories = [c for c in document['categories'] if {'id', 'name'} <= c.keys()]
    images, faults = _sound_images(document['images'], path)
    class_ids = {category['id'] for category in categories}
    ids = Counter(annotation.get('id') for annotation in document['annotations'])
    annotations = []
    for annotation in document['annotations']:
        image = images.get(_hashable(annotation.get('image_id')))
        fault = _annotation_fault(annotation, image, class_ids)
        number = annotation.get('id')
        if fault is None and (not number or ids[number] > 1):
            fault = NO_NUMBERS
        if fault:
            where = image['file_name'] if image else path
            faults.append(DataFault(fault, where, f'annotation {number}: {_excerpt(annotation)}'))
        if fault in (None, NO_NUMBERS, NO_AREA, OUTSIDE):
            annotations.append(_complete(annotation))
    if any(not number or count > 1 for number, count in ids.items()):
        annotations = [dict(a, id=number) for number, a in enumerate(annotations, 1)]
    images = list(images.values())
    return dict(document, images=images, annotations=annotations, categories=categories), faults


def _sound_images(entries: list[dict], path: str) -> tuple[dict, list[DataFault]]:
    """The images by id, and what is wrong with the others."""
    images, faults = {}, []
    for entry in entries:
        name = entry.get('file_name')
        sizes = entry.get('width'), entry.get('height')
        if not isinstance(name, str) or _hashable(entry.get('id')) is None:
            faults.append(
                DataFault(NOT_AN_ANNOTATION, path, f'an image without id or file_name: {entry}')
            )
        elif not all(_is_number(size) and size >= 1 for size in sizes):
            faults.append(DataFault(NOT_AN_ANNOTATION, name, f'its width and height are {sizes}'))
        elif entry['id'] in images:
            faults.append(
                DataFault(NOT_AN_ANNOTATION, name, f'its id is that of another: {entry["id"]}')
            )
        else:
            images[entry['id']] = entry
    return images, faults


def _annotation_fault(annotation: dict, image: dict | None, class_ids: set) -> str | None:
    """The kind of fault that an annotation has."""
    if annotation.get('image_id') is None or 'category_id' not in annotation:
        return NOT_AN_ANNOTATION
    if image is None:
        return UNKNOWN_IMAGE
    if annotation['category_id'] not in class_ids:
        return UNKNOWN_CLASS
    box = annotation.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return NOT_A_BOX
    x, y, width, height = box
    kind = box_fault((x, y, x + width, y + height), image['width'], image['height'])
    if kind in (NO_AREA, OUTSIDE):
        return kind
    area = annotation.get('area')
    return None if 'iscrowd' in annotation and _is_number(area) and area > 0 else NO_NUMBERS


def _complete(annotation: dict) -> dict:
    annotation = dict(annotation, iscrowd=annotation.get('iscrowd', 0))
    area = annotation.get('area')
    if not _is_number(area) or area <= 0:
        annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
    return annotation


def _is_table(entries: object) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _hashable(value: object) -> int | str | None:
    """An image's id; None for what can be none."""
    return value if isinstance(value, (int, str)) else None


def _excerpt(annotation: dict) -> str:
    """What an annotation says, without what may be long."""
    return str({key: annotation[key] for key in annotation if key not in ('id', 'segmentation')})
