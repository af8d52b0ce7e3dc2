"""The COCO document that is written for each part of own data, whatever their format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ssd_plugin.datasets.faults import AnnotatedImage
from ssd_plugin.datasets.own_data.records import write_text

DECIMALS = 3  # of pixels


def write_document(
    path: Path,
    images: Sequence[AnnotatedImage],
    classes: Sequence[str],
    marks_difficult: bool,
    for_training: bool,
) -> None:
    """Write a COCO json of images and of their boxes of the given classes.

    Images are numbered from 1 in their order, annotations too, categories in the order of the
    classes. ``file_name`` is the path of an image below the data's root.

    Ignored boxes have ``iscrowd``, which every metric understands. Where they are VOC's "difficult"
    ones (``marks_difficult``), they are marked so, and ordinary ones for training.
    """
    numbers = {name: number for number, name in enumerate(classes, 1)}
    entries: list[dict] = []
    annotations: list[dict] = []
    for image_id, image in enumerate(images, 1):
        assert image.size is not None
        width, height = image.size
        entries.append(dict(id=image_id, file_name=image.path, width=width, height=height))
        for box in image.boxes:
            if box.name not in numbers:
                continue
            x1, y1, x2, y2 = box.bbox
            bbox = [plain(x1), plain(y1), plain(x2 - x1), plain(y2 - y1)]
            annotation = dict(
                id=len(annotations) + 1,
                image_id=image_id,
                category_id=numbers[box.name],
                bbox=bbox,
                area=plain(box.area or 0) or plain(bbox[2] * bbox[3]),
                iscrowd=int(box.ignored and not (marks_difficult and for_training)),
            )
            if box.ignored and marks_difficult:
                annotation['difficult'] = 1
            annotations.append(annotation)
    categories = [dict(id=number, name=name) for name, number in numbers.items()]
    document = dict(images=entries, annotations=annotations, categories=categories)
    write_text(path, json.dumps(document))


def plain(value: float) -> float:
    """A number without more digits than pixels need, whole if it can be."""
    value = round(value, DECIMALS)
    return int(value) if value == int(value) else value
