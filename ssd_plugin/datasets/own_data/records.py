"""What the sources of own data have in common, whatever the format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ssd_plugin.datasets.faults import AnnotatedImage, DataFault, image_size, size_faults
from ssd_plugin.datasets.own_data.parts import Parts


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


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, without hidden ones."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return [folder / name for name in names if not name.startswith('.')]


def subfolder(folder: Path, *names: str) -> Path | None:
    """The subfolder with the first of these names, in small or capital letters."""
    found = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((found[name] for name in names if name in found), None)


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: the processes of one training all write it, and read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(text, encoding='utf-8')
    part.replace(path)
