"""A data set that has been read, and the table that summarises it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ssd_plugin.datasets.faults import (
    AnnotatedBox,
    AnnotatedImage,
    DataFault,
    Kind,
    box_faults,
    count_kinds,
)
from ssd_plugin.datasets.own_data.document import write_document
from ssd_plugin.datasets.own_data.records import Source
from ssd_plugin.errors import DataRootError

ALL_EVALUATED = (
    'all are for val or test; to have them divided anew, name the subfolder with them, or rename '
    'the file that says so'
)
MIN_FOR_BAR = 2000  # images; fewer are read before a progress bar is of use


class DataSet:
    """The images of some parts of a data set, and what is wrong with them.

    ``images`` have the boxes that are used, clipped to the image: ``faults`` are all others', and
    those of files, with the class that a box is of.

    With ``show_progress`` a bar on standard error shows how far many images are read.

    Raises:
        DataRootError: No image of a part can be used.
    """

    def __init__(self, source: Source, parts: Iterable[str], show_progress: bool = False) -> None:
        self.source = source
        self.images: dict[str, list[AnnotatedImage]] = {part: [] for part in parts}
        self.faults: dict[str, list[tuple[str | None, DataFault]]] = {
            part: [(None, fault) for fault in source.strays(part)] for part in self.images
        }
        train = set(source.parts.names['train'])
        jobs = [(part, name) for part in self.images for name in source.parts.names[part]]
        title, screen = f'Reading {len(jobs)} images', Console(stderr=True)
        hidden = not show_progress or len(jobs) < MIN_FOR_BAR
        for part, name in track(jobs, title, console=screen, transient=True, disable=hidden):
            self._add(part, source.read(part, name))
            if part != 'train' and name in train:
                self.faults[part].append((None, DataFault(Kind.ALSO_IN_TRAIN, name)))
        self.notes: list[str] = []  # sentences about parts that are not used
        for part in [part for part, images in self.images.items() if not images]:
            found = [fault for _, fault in self.faults[part]]
            only = len(source.reader.images) == 1
            reason = count_kinds(found) or ('there is only one' if only else ALL_EVALUATED)
            if found:
                reason += f' ({found[0].path}: {found[0].detail or found[0].kind})'
            if part != 'test' or 'val' not in self.images:
                raise DataRootError(f'{source.root}: no images for {part}: {reason}')
            self.notes.append(f'No images for {part}, which training does without: {reason}.')
            del self.images[part], self.faults[part]

    def _add(self, part: str, image: AnnotatedImage | DataFault) -> None:
        """Add an image with the boxes that are used, and the faults of it and of all its boxes."""
        if isinstance(image, DataFault):
            self.faults[part].append((None, image))
            return
        found = box_faults(image)
        used = [box for box, fault in found if not fault or fault.kind not in Kind.NO_BOX]
        boxes = [clipped(box, image) for box in used]
        self.images[part].append(image._replace(boxes=boxes))
        self.faults[part] += [(None, fault) for fault in image.faults]
        self.faults[part] += [(box.name, fault) for box, fault in found if fault]

    def count_boxes(self) -> dict[str, Counter]:
        """How many boxes there are of each class, by part."""
        return {
            part: Counter(box.name for image in images for box in image.boxes)
            for part, images in self.images.items()
        }

    def count_empty(self, classes: Collection[str]) -> dict[str, int]:
        """How many images have no box of the classes, by part."""
        return {
            part: sum(not any(box.name in classes for box in image.boxes) for image in images)
            for part, images in self.images.items()
        }

    def has_crowds(self, classes: Collection[str]) -> bool:
        """Whether there are ignored boxes of the classes to train beside."""
        if self.source.reader.ignored == 'difficult':  # which are ordinary in training
            return False
        boxes = (box for image in self.images['train'] for box in image.boxes)
        return any(box.ignored and box.name in classes for box in boxes)

    def classes(self) -> list[str]:
        """All classes, in the order of the data."""
        return self.source.reader.classes(set().union(*self.count_boxes().values()))

    def write(self, classes: Sequence[str], folder: Path) -> dict[str, Path]:
        """Write a COCO json for each part; their paths by part."""
        files = {part: (folder / f'{part}.json').absolute() for part in self.images}
        is_voc = self.source.reader.ignored == 'difficult'
        for part, images in self.images.items():
            write_document(files[part], images, classes, is_voc, for_training=part == 'train')
        return files

    def all_faults(self, classes: Collection[str]) -> list[tuple[str, DataFault]]:
        """The faults but those of boxes of other classes than the given ones, with parts."""
        others = set(self.classes()).difference(classes)
        return [
            (part, fault)
            for part, found in self.faults.items()
            for name, fault in found
            if name not in others
        ]


def clipped(box: AnnotatedBox, image: AnnotatedImage) -> AnnotatedBox:
    """A box clipped to its image."""
    width, height = image.size or (0, 0)
    x1, y1, x2, y2 = box.bbox
    return box._replace(bbox=(max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)))


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
    empty = data.count_empty(classes)
    if any(empty.values()):
        add_row('of these, without objects', [empty[part] for part in parts], 'dim')
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
        add_row(f'of these, {data.source.reader.ignored}', ignored, 'dim')
    table.add_section()
    kinds = Counter((fault.kind, part) for part, fault in found)
    for kind in sorted({kind for kind, _ in kinds}):
        add_row(kind, [kinds[kind, part] for part in parts], 'yellow')
    return table


def notes_on_classes(data: DataSet, classes: Sequence[str]) -> Iterator[str]:
    """Sentences about classes that look like mistakes."""
    boxes = data.count_boxes()
    if 'train' in boxes:
        untrained = [name for name in classes if not boxes['train'][name]]
        if untrained:
            yield f'Nothing to train on: {", ".join(untrained)}.'
    alike: dict[str, list[str]] = {}
    for name in data.classes():
        alike.setdefault(''.join(name.split()).casefold(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            yield f'Classes that differ by capital letters or blanks only: {", ".join(names)}.'
