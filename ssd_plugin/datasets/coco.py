"""COCO's annotations: the reader of a json, and a data set that tolerates faults."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.utils import is_list_of
from pycocotools import mask

from ssd_plugin.datasets.fault_tolerance import FaultTolerance
from ssd_plugin.datasets.faults import AnnotatedBox, AnnotatedImage, DataFault, Kind, box_fault
from ssd_plugin.errors import DataRefusedError

TABLES = ('images', 'annotations', 'categories')
IDS = ('id', 'image_id', 'category_id')
# CocoMetric, which reads the json by itself, ends in an error with these.
NOT_EVALUATED = (Kind.NOT_AN_ANNOTATION, Kind.NOT_A_BOX, Kind.INCOMPLETE)


@DATASETS.register_module()
class CheckedCocoDataset(FaultTolerance, CocoDataset):
    """MMDetection's ``CocoDataset``, of what is sound in a json: see :meth:`CocoDocument.clean`.

    Labels are in the order of the json's categories, and so is ``metainfo['classes']``, whatever
    the config's order is: names stay those of the labels.

    Raises:
        DataRefusedError: When the json is read: it is no COCO json, it lacks a class, or it is for
            evaluation and ``CocoMetric``, which reads it by itself, would end in an error.
    """

    def load_data_list(self) -> list[dict]:
        """Read what is sound in the json."""
        names: dict[Any, str] = {}
        self.COCOAPI = partial(CleanCOCO, faults=self.faults, names=names)
        data_list = super().load_data_list()
        classes = self.metainfo['classes']
        if len(self.cat_ids) < len(classes):
            raise DataRefusedError(
                f'{self.ann_file} has {len(self.cat_ids)} of the {len(classes)} classes of the '
                "config among its categories: make the data set's metainfo.classes the "
                "categories' names, in their order"
            )
        if len(self.cat_ids) == len(classes):
            # MMDetection numbers labels in the order of the json, and CocoMetric counts so.
            self._metainfo['classes'] = tuple(names[number] for number in self.cat_ids)
        refused = [fault for fault in self.faults if fault.kind in NOT_EVALUATED]
        if self.test_mode and refused:
            kind, path, detail = refused[0]
            raise DataRefusedError(
                f'{self.ann_file} cannot be evaluated on by CocoMetric: {kind}, {path}, '
                f'{detail}; correct it, or have --data-root write a copy without its faults'
            )
        return data_list


class CleanCOCO(COCO):
    """MMDetection's index of a COCO json, of what is sound in it.

    The faults of the rest are added to the list that is given, the categories' names, by id, to
    the dict.
    """

    def __init__(
        self, annotation_file: str, faults: list[DataFault], names: dict[Any, str]
    ) -> None:
        super().__init__()
        self.dataset, found = CocoDocument(annotation_file).clean()
        faults += found
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs
        names |= {number: category['name'] for number, category in self.cats.items()}


class CocoDocument:
    """A COCO json: what it says of each image, and what is wrong with it.

    Ids may be numbers or texts, and a text of a whole number is that number. Names of categories
    are without blanks around them.

    ``images`` are the entries of the images by id, ``class_names`` the categories' names by id,
    ``faults`` what is wrong with other images: they have no id, no file name, or the id of another.

    Raises:
        DataRefusedError: It cannot be read, or is no COCO json.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.content: dict = json.loads(self.path.read_text(encoding='utf-8-sig'))
        except (OSError, ValueError, RecursionError) as error:
            raise DataRefusedError(f"can't read {path}: {error}") from error
        content = self.content if isinstance(self.content, dict) else {}
        if not all(is_list_of(content.get(key), dict) for key in TABLES):
            raise DataRefusedError(f'{path} is no COCO json: it has no lists {", ".join(TABLES)}')
        for table in TABLES:
            for entry in content[table]:
                entry.update((key, _as_id(entry[key])) for key in IDS if key in entry)
        self.categories = [
            dict(category, name=str(category['name']).strip())
            for category in content['categories']
            if _hashable(category.get('id')) is not None and str(category.get('name', '')).strip()
        ]
        self.class_names = {category['id']: category['name'] for category in self.categories}
        self.faults: list[DataFault] = []
        self.images: dict[float | str | None, dict] = {}
        for entry in content['images']:
            name, number = entry.get('file_name'), _hashable(entry.get('id'))
            if not isinstance(name, str) or number is None:
                self._add_fault(str(path), f'an image without id or file_name: {entry}')
            elif number in self.images:
                self._add_fault(name, f'its id is that of another image: {number}')
            else:
                self.images[number] = entry
        self._annotations: dict[float | str | None, list[dict]] = {}  # by the image's id
        for annotation in content['annotations']:
            number = _hashable(annotation.get('image_id'))
            self._annotations.setdefault(number, []).append(annotation)

    def _add_fault(self, path: str, detail: str) -> None:
        self.faults.append(DataFault(Kind.NOT_AN_ANNOTATION, path, detail))

    def annotated(self, entry: dict) -> AnnotatedImage:
        """What the document says of an image, given by its entry."""
        name, boxes, faults = entry['file_name'], [], []
        for annotation in self._annotations.get(entry['id'], []):
            kind, bbox = self.fault_of(annotation), box_of(annotation)
            if kind or bbox is None:
                faults.append(DataFault(kind or Kind.NOT_A_BOX, name, _describe(annotation)))
            else:
                class_name = self.class_names[annotation['category_id']]
                area = annotation['area'] if _has_area(annotation) else None
                is_crowd = bool(_as_id(annotation.get('iscrowd')))  # it may be the text '0'
                boxes.append(AnnotatedBox(class_name, bbox, is_crowd, area))
        size: tuple[Any, Any] = entry.get('width'), entry.get('height')
        return AnnotatedImage(name, None if size == (None, None) else size, boxes, faults)

    def strays(self) -> list[DataFault]:
        """What is wrong with images, and annotations of none of the document's images."""
        return self.faults + [
            DataFault(self.fault_of(annotation) or '', str(self.path), _describe(annotation))
            for annotation in self.content['annotations']
            if _hashable(annotation.get('image_id')) not in self.images
        ]

    def fault_of(self, annotation: dict) -> str | None:
        """Why an annotation can be used neither for training nor for evaluation, if it cannot."""
        if annotation.get('image_id') is None or 'category_id' not in annotation:
            return Kind.NOT_AN_ANNOTATION
        if _hashable(annotation['image_id']) not in self.images:
            return Kind.UNKNOWN_IMAGE
        if _hashable(annotation['category_id']) not in self.class_names:
            return Kind.UNKNOWN_CLASS
        return Kind.NOT_A_BOX if box_of(annotation) is None else None

    def clean(self) -> tuple[dict, list[DataFault]]:
        """What is sound in the document, and what is wrong with the rest.

        1. Categories have an id and a name.
        2. Images have an id, which no other has, a file name, a width and a height.
        3. Annotations are of such an image and category, with a box of four finite numbers.
        4. Where one of these annotations lacks ``iscrowd``, it is no crowd; where it lacks a
           positive ``area``, it is the box's; where ids are missing or not unique, all are given
           anew.

        Boxes without area or outside the image stay: ``CocoDataset`` leaves them out.
        """
        faults, annotations, dropped = list(self.faults), [], set()
        for number, entry in self.images.items():
            sizes = entry.get('width'), entry.get('height')
            if not all(_is_number(size) and size >= 1 for size in sizes):
                dropped.add(number)
                detail = f'its width and height are {sizes}'
                faults.append(DataFault(Kind.NOT_AN_ANNOTATION, entry['file_name'], detail))
        ids = Counter(_hashable(a.get('id')) for a in self.content['annotations'])
        for annotation in self.content['annotations']:
            kind, image_id = self.fault_of(annotation), _hashable(annotation.get('image_id'))
            image = self.images.get(image_id, {})
            if kind is None and image_id in dropped:
                kind = Kind.UNKNOWN_IMAGE
            if kind is None:
                annotations.append(complete(annotation))
                kind = _minor_fault(annotation, image, ids)
            if kind:
                path = image.get('file_name', str(self.path))
                faults.append(DataFault(kind, path, _describe(annotation)))
        images = [entry for number, entry in self.images.items() if number not in dropped]
        sound = dict(images=images, annotations=number_anew(annotations, ids))
        return dict(self.content, **sound, categories=self.categories), faults


def complete(annotation: dict) -> dict:
    """A copy of an annotation, with the box, ``iscrowd`` and positive ``area`` of COCO."""
    annotation = dict(annotation, iscrowd=_as_id(annotation.get('iscrowd', 0)))
    if not annotation.get('bbox'):
        x1, y1, x2, y2 = box_of(annotation) or (0, 0, 0, 0)
        annotation['bbox'] = [x1, y1, x2 - x1, y2 - y1]
    if not _has_area(annotation):
        annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
    return annotation


def number_anew(annotations: list[dict], ids: Counter) -> list[dict]:
    """Annotations, with new ids if one of ``ids`` is no whole number, 0 or there twice."""
    if all(isinstance(number, int) and number and ids[number] == 1 for number in ids):
        return annotations
    return [dict(annotation, id=number) for number, annotation in enumerate(annotations, 1)]


def box_of(annotation: dict) -> tuple[float, float, float, float] | None:
    """An annotation's box xyxy in pixels; None if it has no four finite numbers.

    Where there is no ``bbox`` at all, it is the one around the ``segmentation``.
    """
    box = annotation.get('bbox') or _box_around(annotation.get('segmentation'))
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return None
    x, y, width, height = box
    return x, y, x + width, y + height


def _box_around(segmentation: object) -> list[float] | None:
    """The box xywh around polygons or a run-length encoding; None if it is neither."""
    try:
        if isinstance(segmentation, dict):
            height, width = segmentation['size']
            return mask.toBbox(mask.frPyObjects(segmentation, height, width)).tolist()
        if not isinstance(segmentation, list):
            return None
        xs = [float(x) for polygon in segmentation for x in polygon[::2]]
        ys = [float(y) for polygon in segmentation for y in polygon[1::2]]
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    except (KeyError, TypeError, ValueError):
        return None


def _minor_fault(annotation: dict, image: dict, ids: Counter) -> str | None:
    """The kind of fault of an annotation that can be completed or left to ``CocoDataset``."""
    kind = box_fault(box_of(annotation) or (), image['width'], image['height'])
    if kind in (Kind.NO_AREA, Kind.OUTSIDE):
        return kind
    number = annotation.get('id')
    is_complete = {'iscrowd', 'bbox'} <= annotation.keys() and _has_area(annotation)
    is_numbered = isinstance(number, int) and number and ids[number] == 1
    return None if is_complete and is_numbered else Kind.INCOMPLETE


def _has_area(annotation: dict) -> bool:
    area = annotation.get('area')
    return _is_number(area) and area > 0


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _as_id(value: object) -> object:
    """An id, as a number where it is the text of a whole number."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value


def _hashable(value: object) -> float | str | None:
    """The id of an image or a category; None for what cannot be one."""
    return value if isinstance(value, (int, float, str)) else None


def _describe(annotation: dict) -> str:
    """An annotation's id and fields, without those that may be long."""
    fields = {key: annotation[key] for key in annotation if key not in ('id', 'segmentation')}
    return f'annotation {annotation.get("id")}: {fields}'
