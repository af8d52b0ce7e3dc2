"""What can be wrong with a data set; each kind is the name of a row in the summary."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ssd_plugin.datasets.own_data.records import Fault, Image

# These take an image out.
NO_IMAGE = 'missing images'
NOT_AN_IMAGE = 'unreadable images'
NO_ANNOTATION = 'missing annotations'
NOT_AN_ANNOTATION = 'unreadable annotations'
# These do not.
OTHER_SIZE = 'annotated as of another size'
NOT_A_BOX = 'boxes without four numbers'
UNKNOWN_CLASS = 'objects of no known class'
NO_AREA = 'boxes without area'
OUTSIDE = 'boxes outside the image'
UNKNOWN_IMAGE = 'objects of no known image'
ACROSS_THE_EDGE = 'boxes partly outside'
DUPLICATE = 'duplicate objects'
ALSO_IN_TRAIN = 'images also in train'

TOLERANCE = 1  # pixels: some tools count from 0, some from 1


def faulty_boxes(image: Image, classes: Collection[str]) -> Iterator[Fault]:
    """What is wrong with the boxes of an image's objects, of the given classes."""
    width, height = image.size
    seen = set()
    for name, box, _ in image.objects:
        if name in classes:
            kind = _fault_of(box, width, height)
            if kind is None and (name, box) in seen:
                kind = DUPLICATE
            seen.add((name, box))
            if kind:
                yield Fault(kind, image.path, f'{name} {tuple(box)} in {width} x {height}')


def _fault_of(box: tuple[float, float, float, float], width: int, height: int) -> str | None:
    x1, y1, x2, y2 = box
    if x2 - x1 < 1 or y2 - y1 < 1:  # as MMDetection's CocoDataset has it
        return NO_AREA
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return OUTSIDE
    beyond = max(-x1, -y1, x2 - width, y2 - height)
    return ACROSS_THE_EDGE if beyond > TOLERANCE else None
