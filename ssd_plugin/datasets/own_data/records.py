"""What the formats of own data have in common: readers, and a source that is read by one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from ssd_plugin.datasets.faults import AnnotatedImage, DataFault, Kind, image_size, size_faults
from ssd_plugin.datasets.own_data.folder import Folder
from ssd_plugin.datasets.own_data.parts import Parts


class Orphan(NamedTuple):
    """An annotation whose image is not there."""

    path: str  # by which lists may name it
    fault: DataFault


class Reader(Protocol):
    """The annotations of one format in a folder, found but not read.

    An image is named by its path below the folder.
    """

    @property
    def kind(self) -> str:
        """VOC, COCO or YOLO."""

    @property
    def ignored(self) -> str:
        """What the format calls boxes that are ignored in evaluation: difficult, crowds or ''."""

    @property
    def files(self) -> Sequence[str]:
        """Those of the annotations."""

    @property
    def images(self) -> Sequence[str]:
        """Those that are annotated, in order."""

    @property
    def orphans(self) -> Sequence[Orphan]:
        """Annotations without an image."""

    @property
    def parts(self) -> Mapping[str, Sequence[str]]:
        """Images by part, as far as the format itself says it."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences about what is not used."""

    def read(self, part: str, image: str, size: tuple[int, int]) -> AnnotatedImage | DataFault:
        """The annotation of an image of ``size`` (w, h), or why it can't be read."""

    def strays(self, part: str) -> list[DataFault]:
        """What is wrong with a part and with none of its images."""

    def classes(self, found: set[str]) -> list[str]:
        """All classes, in order; ``found`` are those of the boxes."""


@dataclass
class Source:
    """A folder of a known format: its images by part, and how each is read."""

    folder: Folder
    reader: Reader
    parts: Parts
    missing: Mapping[str, Sequence[DataFault]]  # by part: annotations whose image is not there
    notes: Sequence[str]  # sentences about what is not used
    description: str
    benchmark: bool  # whether it is Pascal VOC itself, which is evaluated by its own rules

    @property
    def root(self) -> Path:
        """The folder."""
        return self.folder.root

    @property
    def kind(self) -> str:
        """VOC, COCO or YOLO."""
        return self.reader.kind

    def read(self, part: str, image: str) -> AnnotatedImage | DataFault:
        """Read one image of a part, with its size as decoded; or say why it can't be used."""
        size = image_size(str(self.root / image))
        if isinstance(size, DataFault):
            return size._replace(path=image)
        if image not in self._annotated:
            return DataFault(Kind.NO_ANNOTATION, image)
        annotated = self.reader.read(part, image, size)
        if isinstance(annotated, DataFault):
            return annotated
        faults = [fault._replace(path=image) for fault in annotated.faults]
        faults = size_faults(image, annotated.size, size) + faults
        return annotated._replace(path=image, size=size, faults=faults)

    def __post_init__(self) -> None:
        self._annotated = frozenset(self.reader.images)

    def strays(self, part: str) -> list[DataFault]:
        """Faults of a part that belong to none of its images."""
        return [*self.reader.strays(part), *self.missing.get(part, ())]


def merge(images: Sequence[AnnotatedImage]) -> AnnotatedImage:
    """One image of several annotations of it: their boxes, those that several have once."""
    boxes = list(images[0].boxes)
    for other in images[1:]:
        known = list(boxes)
        for box in other.boxes:
            if box in known:
                known.remove(box)
            else:
                boxes.append(box)
    faults = [fault for image in images for fault in image.faults]
    return images[0]._replace(boxes=boxes, faults=list(dict.fromkeys(faults)))


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: the processes of one training all write it, and read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(text, encoding='utf-8', errors='backslashreplace')
    part.replace(path)
