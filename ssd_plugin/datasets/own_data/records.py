"""What the sources of own data have in common, whatever the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from ssd_plugin.datasets.annotations import AnnotatedImage
from ssd_plugin.datasets.faults import DataFault, image_size, size_faults


class Parts(NamedTuple):
    """The names of the images of train, val and perhaps test, and where that comes from."""

    names: dict[str, list[str]]
    origin: str

    @property
    def evaluated(self) -> str:
        """The part that a trained detector is tested on."""
        return 'test' if 'test' in self.names else 'val'


class Source(Protocol):
    """A folder of a known format, found but not read."""

    kind: str  # VOC or COCO
    root: Path
    evaluator: dict  # for a config that has none of this kind
    benchmark: bool  # whether it is Pascal VOC itself, which is evaluated by its own rules

    @property
    def description(self) -> str:
        """The format in words."""

    @property
    def parts(self) -> Parts:
        """What is trained on and what is evaluated on."""

    @property
    def notes(self) -> list[str]:
        """Sentences about what belongs to no part."""

    def read(self, part: str, name: str) -> AnnotatedImage | DataFault:
        """Read one image of a part, or say why it cannot be used; see :func:`look_at`."""

    def strays(self, part: str) -> list[DataFault]:
        """Faults of a part that belong to none of its images."""

    def classes(self, found: set[str]) -> list[str]:
        """All classes, in order; ``found`` are those of the boxes."""

    def write(
        self, part: str, images: Sequence[AnnotatedImage], classes: Sequence[str], folder: Path
    ) -> Path:
        """The file that says what a part consists of, written into a folder where need be."""

    def dataset(self, part: str) -> dict:
        """The settings of the package's data set for a part, without classes and ``ann_file``."""


def look_at(root: Path, path: str, image: AnnotatedImage) -> AnnotatedImage | DataFault:
    """Complete an annotation by the image file: its path below the root, and its decoded size."""
    size = image_size(str(root / path))
    if isinstance(size, DataFault):
        return size._replace(path=path)
    found = [fault._replace(path=path) for fault in image.faults]
    found = size_faults(path, image.size, size) + found
    return image._replace(path=path, size=size, faults=found)
