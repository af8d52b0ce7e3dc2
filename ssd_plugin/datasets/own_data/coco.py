"""COCO's kind of data: a json for each part, or one for all, and folders of images."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ssd_plugin.datasets.own_data import faults
from ssd_plugin.datasets.own_data.coco_json import Document, box_of
from ssd_plugin.datasets.own_data.files import image_size, subfolder, write_text
from ssd_plugin.datasets.own_data.parts import CANONICAL, choose_parts
from ssd_plugin.datasets.own_data.records import Fault, Image, Object, Parts
from ssd_plugin.errors import DataRootError

FEW = 4  # names that an error tells
SAMPLE = 20  # images that are looked for in each folder
ORDER = ('train', 'trainval', '', 'val', 'test')  # of the jsons; '': of no part


def find_coco(root: Path) -> COCOSource | None:
    """The COCO data in a folder, or None if no json is where one is looked for.

    Raises:
        DataRootError: There are several for the same, or one is not of COCO's kind.
    """
    files = list(json_files(root))
    files = [path for path in files if path.name.startswith('instances_')] or files
    by_part: dict[str, list[Path]] = {}
    for path in files:
        by_part.setdefault(part_of(path), []).append(path)
    if len(by_part) > 1:  # some say what they are for; the others are for something else
        by_part.pop('', None)
    for part, paths in by_part.items():
        if len(paths) > 1:
            names = ', '.join(path.relative_to(root).as_posix() for path in paths[:FEW])
            names += ', ...' if len(paths) > FEW else ''
            what = f'several json files for {part}' if part else 'json files of which none is train'
            raise DataRootError(f'{root} has {what}: {names}; expected train.json and val.json')
    documents = {part: Document(by_part[part][0]) for part in ORDER if part in by_part}
    return COCOSource(root, documents) if documents else None


def json_files(root: Path) -> Iterator[Path]:
    """Those in a folder, in its annotations, and one in a folder named train, val or test."""
    yield from sorted(root.glob('*.json'))
    annotations = subfolder(root, 'annotations')
    if annotations:
        yield from sorted(annotations.glob('*.json'))
    for folder in sorted(path for path in root.iterdir() if path.name.lower() in CANONICAL):
        files = list(folder.glob('*.json'))
        if len(files) == 1:
            yield files[0]


def part_of(path: Path) -> str:
    """What a file's name, or else its folder's, says that it is for; '' if they don't say."""
    words = [*re.findall('[a-z]+', path.stem.lower()), path.parent.name.lower()]
    return next((CANONICAL[word] for word in words if word in CANONICAL), '')


def find_images(root: Path, document: Document) -> str:
    """The folder below ``root`` that has most of a json's images, relative to it.

    Of several with the same names, the one that is named for the json's part.
    """
    names = [image['file_name'] for image in document.images]
    sample = names[:: len(names) // SAMPLE + 1]
    folders = [root, *subfolders(root)]
    folders += [path for folder in folders[1:] for path in subfolders(folder)]
    part = part_of(document.path)

    def fitness(folder: Path) -> tuple[int, bool]:
        return sum((folder / name).is_file() for name in sample), part_of(folder) == part

    best = max(folders, key=fitness)
    return '' if best == root else best.relative_to(root).as_posix()


def subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return [folder / name for name in names if not name.startswith('.')]


@dataclass
class COCOSource:
    """COCO data; an image's name is its path below the root."""

    root: Path
    documents: dict[str, Document]  # by what they are for, in `ORDER`
    kind: str = 'COCO'
    benchmark: bool = False
    evaluator: dict = field(default_factory=lambda: dict(type='CocoMetric', metric='bbox'))

    def __post_init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._images: dict[str, dict[str, dict]] = {}  # by document, then by name
        for part, document in self.documents.items():
            folder = self._folders[part] = find_images(self.root, document)
            paths = (posixpath.join(folder, image['file_name']) for image in document.images)
            self._images[part] = dict(zip(map(posixpath.normpath, paths), document.images))

    @property
    def description(self) -> str:
        files = (document.path.relative_to(self.root) for document in self.documents.values())
        return f'COCO ({", ".join(path.as_posix() for path in files)})'

    @cached_property
    def parts(self) -> Parts:
        """What is trained on and what is evaluated on."""
        lists = {part: list(images) for part, images in self._images.items() if part}
        return choose_parts(lists, [name for images in self._images.values() for name in images])

    @property
    def notes(self) -> list[str]:
        """None: all that is in a json belongs to a part."""
        return []

    def _key(self, part: str, name: str) -> str:
        """The document that an image of a part is in."""
        return next(key for key in (part, *self._images) if name in self._images.get(key, ()))

    def read(self, part: str, name: str) -> Image | Fault:
        """Look at an image and collect its annotations."""
        try:
            size = image_size(self.root / name)
        except FileNotFoundError:
            return Fault(faults.NO_IMAGE, name)
        except OSError as error:
            return Fault(faults.NOT_AN_IMAGE, name, str(error))
        key = self._key(part, name)
        document, image = self.documents[key], self._images[key][name]
        objects, found = [], []
        annotated_size = (image.get('width'), image.get('height'))
        if annotated_size not in ((None, None), size):
            found.append(Fault(faults.OTHER_SIZE, name, f'{annotated_size} instead of {size}'))
        for annotation in document.annotations(image):
            box, category = box_of(annotation), annotation.get('category_id')
            if box is None:
                found.append(Fault(faults.NOT_A_BOX, name, repr(annotation.get('bbox'))))
            elif category not in document.names:
                found.append(Fault(faults.UNKNOWN_CLASS, name, f'category {category}'))
            else:
                crowd = bool(annotation.get('iscrowd'))
                objects.append(Object(document.names[category], box, crowd))
        return Image(name, size, objects, found, image)

    def strays(self, part: str) -> list[Fault]:
        """Annotations in the part's json, or in that of all parts, whose image is not in it."""
        key = part if part in self.documents else '' if part == 'train' else None
        document = self.documents.get(key)
        if document is None:
            return []
        path = document.path.relative_to(self.root).as_posix()
        return [Fault(faults.UNKNOWN_IMAGE, path, text) for text in document.strays()]

    def classes(self, found: set[str]) -> list[str]:
        """The categories, in the order of the json that is trained on."""
        return list(dict.fromkeys(name for d in self.documents.values() for name in d.categories))

    def write(
        self, part: str, images: Sequence[Image], classes: Sequence[str], folder: Path
    ) -> Path:
        """The json itself if it is fit for use and all of it is used, else a copy."""
        document = self.documents[self._key(part, images[0].path)]
        copy = document.copy(images, classes)
        if copy == document.content:
            return document.path.absolute()
        path = (folder / f'{part}.json').absolute()
        write_text(path, json.dumps(copy))
        return path

    def dataset(self, part: str) -> dict:
        """The package's data set, which goes on where an image can't be decoded."""
        key = self._key(part, self.parts.names[part][0])
        prefix = dict(img=posixpath.join(self._folders[key], ''))
        root = f'{self.root.absolute()}/'
        return dict(type='CheckedCocoDataset', data_root=root, data_prefix=prefix)
