"""One json of COCO's kind: what it says of each image, and a copy that MMDetection can use."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from ssd_plugin.datasets.own_data.records import Image
from ssd_plugin.errors import DataRootError

KEYS = ('images', 'annotations', 'categories')


class Document:
    """A json, read.

    Args:
        path: The file.

    Raises:
        DataRootError: It can't be read, or isn't of COCO's kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataRootError(f"can't read {path}: {error}") from error
        if not isinstance(content, dict) or not all(is_table(content.get(key)) for key in KEYS):
            raise DataRootError(f'{path} is no COCO json: it has no lists {", ".join(KEYS)}')
        self.content: dict = content
        self.images = [
            image
            for image in content['images']
            if 'id' in image and isinstance(image.get('file_name'), str)
        ]
        self.categories: dict[str, dict] = {}  # by name; of several, the first
        self.names: dict[int, str] = {}  # by id
        for category in content['categories']:
            if {'id', 'name'} <= category.keys():
                self.names[category['id']] = category['name']
                self.categories.setdefault(category['name'], category)
        self._annotations: dict[int, list[dict]] = {}  # by the image's id
        for annotation in content['annotations']:
            self._annotations.setdefault(annotation.get('image_id'), []).append(annotation)

    def annotations(self, image: dict) -> list[dict]:
        """Those of an image."""
        return self._annotations.get(image['id'], [])

    def strays(self) -> list[str]:
        """Of each annotation whose image is not in the json, which it is."""
        known = {image['id'] for image in self.images}
        return [
            f'annotation {annotation.get("id")} of image {number}'
            for number, annotations in self._annotations.items()
            if number not in known
            for annotation in annotations
        ]

    def copy(self, sources: Sequence[Image], classes: Iterable[str]) -> dict:
        """The document of these images alone, made fit for MMDetection and pycocotools.

        1. Each image has its size in pixels, by which ``CocoDataset`` judges boxes.
        2. Each annotation has a box and a category; an area and ``iscrowd``, which evaluation
           wants; and a number of its own that isn't 0, which evaluation takes for none.
        3. The first categories are the classes in their order: ``CocoDataset`` numbers them by
           their order here, whatever the order of its ``metainfo``.

        Where all that holds already, the copy equals the document.
        """
        images = []
        for source in sources:
            image, (width, height) = source.record, source.size
            if (image.get('width'), image.get('height')) != source.size:
                image = dict(image, width=width, height=height)
            images.append(image)
        kept = {image['id'] for image in images}
        annotations = [
            self._complete(annotation)
            for annotation in self.content['annotations']
            if annotation.get('image_id') in kept
            and annotation.get('category_id') in self.names
            and box_of(annotation)
        ]
        numbers = {annotation.get('id') or None for annotation in annotations}
        if None in numbers or len(numbers) < len(annotations):
            annotations = [dict(a, id=number) for number, a in enumerate(annotations, 1)]
        categories = self._ordered_categories(classes)
        return dict(self.content, images=images, annotations=annotations, categories=categories)

    def _complete(self, annotation: dict) -> dict:
        complete = dict(annotation)
        complete['category_id'] = self.categories[self.names[annotation['category_id']]]['id']
        complete.setdefault('iscrowd', 0)
        area = annotation.get('area')
        if not is_number(area) or area <= 0:
            complete['area'] = annotation['bbox'][2] * annotation['bbox'][3]
        return complete

    def _ordered_categories(self, classes: Iterable[str]) -> list[dict]:
        classes = list(classes)
        known = [name for name in self.categories if name in classes]
        if known == classes and len(self.categories) == len(self.content['categories']):
            return self.content['categories']
        rest = dict(self.categories)
        unused = max(self.names, default=0) + 1
        first = [rest.pop(name, dict(id=unused + i, name=name)) for i, name in enumerate(classes)]
        return [*first, *rest.values()]


def is_table(entries: object) -> bool:
    """Whether this is a list of JSON's objects."""
    return isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)


def is_number(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def box_of(annotation: dict) -> tuple[float, float, float, float] | None:
    """An annotation's box as x1, y1, x2, y2; None if it has no four numbers."""
    box = annotation.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return None
    x, y, width, height = box
    return x, y, x + width, y + height
