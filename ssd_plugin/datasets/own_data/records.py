"""What the readers of the two kinds of data hand on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Object(NamedTuple):
    """An annotated object; ``name`` is None where its class has none."""

    name: str | None
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels, as MMDetection will have it
    ignored: bool  # VOC's "difficult", COCO's crowd


class Fault(NamedTuple):
    """Something wrong with an image, its annotation or one of its objects."""

    kind: str
    path: str
    detail: str = ''


class Image(NamedTuple):
    """An image that can be opened and whose annotation can be read."""

    path: str  # relative to the root
    size: tuple[int, int]  # width and height of the decoded image
    objects: list[Object]
    faults: list[Fault]  # of its annotation; those of its boxes depend on the classes
    record: Any  # what its source needs to write it down


class Parts(NamedTuple):
    """The names of the images of train, val and perhaps test, and where that comes from."""

    names: dict[str, list[str]]
    origin: str

    @property
    def evaluated(self) -> str:
        """The part that a trained detector is tested on."""
        return 'test' if 'test' in self.names else 'val'


class Source(Protocol):
    """A data set of one of the two kinds, found but not read."""

    kind: str  # VOC or COCO
    root: Path
    description: str
    evaluator: dict  # for a config that has none of this kind
    benchmark: bool  # Pascal VOC itself, evaluated by its own rules
    parts: Parts
    notes: list[str]  # sentences about what belongs to no part

    def read(self, part: str, name: str) -> Image | Fault:
        """Read one image of a part, or say why it can't be used."""

    def strays(self, part: str) -> list[Fault]:
        """What is wrong in a part and belongs to none of its images."""

    def classes(self, found: set[str]) -> list[str]:
        """All classes, in order; ``found`` are those of the objects."""

    def write(
        self, part: str, images: Sequence[Image], classes: Sequence[str], folder: Path
    ) -> Path:
        """The file that says what a part consists of, written into a folder where need be."""

    def dataset(self, part: str) -> dict:
        """The settings of MMDetection's data set for a part, without classes and ``ann_file``."""
