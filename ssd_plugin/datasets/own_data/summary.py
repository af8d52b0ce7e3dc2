"""A data set that has been read, and the table that summarises it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ssd_plugin.datasets.faults import AnnotatedImage, DataFault, Kind, box_faults, count_kinds
from ssd_plugin.datasets.own_data.records import Source
from ssd_plugin.errors import DataRootError

MIN_FOR_BAR = 2000  # images; fewer are read before a progress bar is of use


class DataSet:
    """The images of some parts of a data set, and what is wrong with them.

    With ``show_progress`` a bar on standard error shows how far many images are read.

    Raises:
        DataRootError: No image of a part can be used.
    """

    def __init__(self, source: Source, parts: Iterable[str], show_progress: bool = False) -> None:
        self.source = source
        self.images: dict[str, list[AnnotatedImage]] = {part: [] for part in parts}
        self.faults = {part: source.strays(part) for part in self.images}
        train = set(source.parts.names['train'])
        jobs = [(part, name) for part in self.images for name in source.parts.names[part]]
        title, screen = f'Reading {len(jobs)} images', Console(stderr=True)
        hidden = not show_progress or len(jobs) < MIN_FOR_BAR
        for part, name in track(jobs, title, console=screen, transient=True, disable=hidden):
            image = source.read(part, name)
            if isinstance(image, DataFault):
                self.faults[part].append(image)
                continue
            self.images[part].append(image)
            self.faults[part] += image.faults
            if part != 'train' and name in train:
                self.faults[part].append(DataFault(Kind.ALSO_IN_TRAIN, image.path))
        for part, images in self.images.items():
            if not images:
                found = self.faults[part]
                reason = count_kinds(found) or 'none'
                if found:
                    reason += f' ({found[0].path}: {found[0].detail or found[0].kind})'
                raise DataRootError(f'{source.root}: no images for {part}: {reason}')

    def count_boxes(self) -> dict[str, Counter]:
        """How many boxes there are of each class, by part."""
        return {
            part: Counter(box.name for image in images for box in image.boxes)
            for part, images in self.images.items()
        }

    def classes(self) -> list[str]:
        """All classes, in the order of the data."""
        return self.source.classes(set().union(*self.count_boxes().values()))

    def write(self, classes: Sequence[str], folder: Path) -> dict[str, Path]:
        """Write the files that say which images are in a part; their paths by part."""
        return {
            part: self.source.write(part, images, classes, folder)
            for part, images in self.images.items()
        }

    def all_faults(self, classes: Collection[str]) -> list[tuple[str, DataFault]]:
        """The faults of images and annotations, and of boxes of the given classes, with parts."""
        return [
            (part, fault)
            for part, images in self.images.items()
            for faults in (self.faults[part], *(box_faults(image, classes) for image in images))
            for fault in faults
        ]


def make_table(
    data: DataSet, classes: Sequence[str], found: Iterable[tuple[str, DataFault]]
) -> Table:
    """Numbers of images, of boxes of each class used and of faults, with a column for each part."""
    parts = list(data.images)
    table = Table('')
    for part in parts:
        table.add_column(part, justify='right')

    def add_row(name: str, numbers: list[int], style: str | None = None) -> None:
        table.add_row(Text(name), *map(str, numbers), style=style)

    add_row('images', [len(data.images[part]) for part in parts])
    table.add_section()
    boxes = data.count_boxes()
    for name in classes:
        add_row(name, [boxes[part][name] for part in parts])
    others = [boxes[part].total() - sum(boxes[part][name] for name in classes) for part in parts]
    if any(others):
        add_row('other classes, left out', others, 'dim')
    ignored = [
        sum(box.ignored and box.name in classes for i in data.images[part] for box in i.boxes)
        for part in parts
    ]
    if any(ignored):
        name = 'difficult' if data.source.kind == 'VOC' else 'crowds'
        add_row(f'of these, {name}', ignored, 'dim')
    table.add_section()
    kinds = Counter((fault.kind, part) for part, fault in found)
    for kind in sorted({kind for kind, _ in kinds}):
        add_row(kind, [kinds[kind, part] for part in parts], 'yellow')
    return table
