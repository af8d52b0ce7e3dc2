"""What a reader of annotations returns, whatever the format of the files."""

from __future__ import annotations

from typing import Any, NamedTuple


class AnnotatedBox(NamedTuple):
    """A ground-truth box with its class."""

    name: str  # of the class
    bbox: tuple[float, float, float, float]  # xyxy in pixels, from 0, as MMDetection has it
    ignored: bool  # VOC's "difficult", COCO's "iscrowd"


class AnnotatedImage(NamedTuple):
    """An image, its ground-truth boxes, and what is wrong with its annotation."""

    path: str  # as the annotation has it; of own data, relative to the data's root
    size: tuple[int, int] | None  # (w, h) as annotated, None if not; of own data, as decoded
    boxes: list[AnnotatedBox]
    faults: list  # of `faults.DataFault`; those of the boxes' coordinates are not among them
    source: Any  # where it was read: the path of a VOC xml, the entry of a COCO json
