"""A data set that has been read, and the table that summarises it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from rich.table import Table
from rich.text import Text

from ssd_plugin.datasets.annotations import AnnotatedImage
from ssd_plugin.datasets.faults import ALSO_IN_TRAIN, DataFault, box_faults, count_kinds
from ssd_plugin.datasets.own_data.records import Source
from ssd_plugin.errors import DataRootError


class DataSet:
    """The images of some parts of a data set, and what is wrong with them.

    Args:
        source: Where they come from.
        parts: Which to read.
        track: Wraps the list of jobs while it is gone through, to show progress.

    Raises:
        DataRootError: No image of a part can be used.
    """

    def __init__(
        self, source: Source, parts: Iterable[str], track: Callable[[list], Iterable] = iter
    ) -> None:
        self.source = source
        self.images: dict[str, list[AnnotatedImage]] = {part: [] for part in parts}
        self.faults = {part: source.strays(part) for part in self.images}
        train = set(source.parts.names['train'])
        for part, name in track([(p, name) for p in self.images for name in source.parts.names[p]]):
            image = source.read(part, name)
            if isinstance(image, DataFault):
                self.faults[part].append(image)
                continue
            self.images[part].append(image)
            self.faults[part] += image.faults
            if part != 'train' and name in train:
                self.faults[part].append(DataFault(ALSO_IN_TRAIN, image.path))
        for part, images in self.images.items():
            if not images:
                self._refuse(part)

    def _refuse(self, part: str) -> None:
        found = self.faults[part]
        example = f' ({found[0].path}: {found[0].detail or found[0].kind})' if found else ''
        raise DataRootError(
            f'{self.source.root}: no images for {part}: {count_kinds(found) or "none"}{example}'
        )

    def count_boxes(self) -> dict[str, Counter]:
        """How many boxes there are of each class, by part."""
        return {
            part: Counter(box.name for image in images for box in image.boxes)
            for part, images in self.images.items()
        }

    def classes(self) -> list[str]:
        """All classes, in the order of the data."""
        return self.source.classes(set().union(*self.count_boxes().values()))

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
    """Numbers of images, of boxes of each class and of faults, with a column for each part.

    Args:
        data: The data set.
        classes: Those that are used.
        found: Its faults, with their parts.
    """
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
