"""A data set that has been read, and the table that tells about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from rich.table import Table
from rich.text import Text

from ssd_plugin.datasets.own_data import faults
from ssd_plugin.datasets.own_data.records import Fault, Image, Source
from ssd_plugin.errors import DataRootError


class DataSet:
    """The images of some parts of a data set, and what is wrong with them.

    Args:
        source: Where they come from.
        parts: Which to read.
        track: Wraps what is gone through, to show progress.

    Raises:
        DataRootError: No image of a part can be used.
    """

    def __init__(
        self, source: Source, parts: Iterable[str], track: Callable[[list], Iterable] = iter
    ) -> None:
        self.source = source
        self.images: dict[str, list[Image]] = {}  # by part
        self.faults: dict[str, list[Fault]] = {}  # by part
        train = set(source.parts.names['train'])
        jobs = [(part, name) for part in parts for name in source.parts.names[part]]
        for part in parts:
            self.images[part], self.faults[part] = [], source.strays(part)
        for part, name in track(jobs):
            image = source.read(part, name)
            if isinstance(image, Fault):
                self.faults[part].append(image)
                continue
            self.images[part].append(image)
            self.faults[part] += image.faults
            if part != 'train' and name in train:
                self.faults[part].append(Fault(faults.ALSO_IN_TRAIN, image.path))
        for part in parts:
            self._require_images(part)

    def _require_images(self, part: str) -> None:
        if self.images[part]:
            return
        found = self.faults[part]
        numbers = Counter(fault.kind for fault in found)
        reasons = [f'{number} {kind}' for kind, number in numbers.most_common()]
        example = f' ({found[0].path}: {found[0].detail or found[0].kind})' if found else ''
        raise DataRootError(
            f'{self.source.root}: no images for {part}: {", ".join(reasons) or "none"}{example}'
        )

    def count_objects(self) -> dict[str, Counter]:
        """How many objects of each class there are, by part."""
        return {
            part: Counter(o.name for p in images for o in p.objects if o.name is not None)
            for part, images in self.images.items()
        }

    def classes(self) -> list[str]:
        """All classes, in the order of the data."""
        counts = self.count_objects().values()
        return self.source.classes({name for part in counts for name in part})

    def all_faults(self, classes: Collection[str]) -> dict[str, list[Fault]]:
        """By part, those of images and annotations, and of boxes of the given classes."""
        classes = set(classes)
        return {
            part: self.faults[part] + [f for p in images for f in faults.faulty_boxes(p, classes)]
            for part, images in self.images.items()
        }


def make_table(data: DataSet, classes: Sequence[str], found: dict[str, list[Fault]]) -> Table:
    """Images, objects of each class and faults, with a column for each part.

    Args:
        data: The data set.
        classes: Those that count.
        found: Its faults.
    """
    parts = list(data.images)
    table = Table('')
    for part in parts:
        table.add_column(part, justify='right')

    def add_row(name: str, numbers: list[int], style: str | None = None) -> None:
        table.add_row(Text(name), *map(str, numbers), style=style)

    add_row('images', [len(data.images[part]) for part in parts])
    table.add_section()
    objects = data.count_objects()
    for name in classes:
        add_row(name, [objects[part][name] for part in parts])
    others = [objects[part].total() - sum(objects[part][n] for n in classes) for part in parts]
    if any(others):
        add_row('other classes, left out', others, 'dim')
    ignored = [
        sum(o.ignored and o.name in classes for p in data.images[part] for o in p.objects)
        for part in parts
    ]
    if any(ignored):
        name = 'difficult' if data.source.kind == 'VOC' else 'crowds'
        add_row(f'of these, {name}', ignored, 'dim')
    table.add_section()
    kinds = {part: Counter(fault.kind for fault in found[part]) for part in parts}
    for kind in sorted(set().union(*kinds.values())):
        add_row(kind, [kinds[part][kind] for part in parts], 'yellow')
    return table


def list_faults(found: dict[str, list[Fault]]) -> str:
    """One line for each fault: part, path, what it is, and details."""
    return ''.join(
        f'{part}\t{fault.path}\t{fault.kind}\t{" ".join(fault.detail.split())}\n'
        for part, faults_of_part in found.items()
        for fault in faults_of_part
    )
