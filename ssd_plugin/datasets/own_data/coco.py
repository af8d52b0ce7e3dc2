"""Own data in COCO's format: a json for each part, or one for all, and folders of images."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ssd_plugin.datasets.coco import CocoDocument, complete, number_anew
from ssd_plugin.datasets.faults import AnnotatedImage, DataFault
from ssd_plugin.datasets.own_data.parts import CANONICAL, Parts, choose_parts
from ssd_plugin.datasets.own_data.records import look_at, subfolder, subfolders, write_text
from ssd_plugin.errors import DataRootError

MAX_NAMES = 4  # that an error lists
SAMPLE = 20  # images that are looked for in each folder
ORDER = ('train', 'trainval', '', 'val', 'test')  # of the jsons; '': of no part


def find_coco(root: Path) -> COCOSource | None:
    """The COCO data in a folder, or None if no json is where one is looked for.

    Raises:
        DataRootError: There are several for the same part.
        DataRefusedError: One is no COCO json.
    """
    files = list(json_files(root))
    files = [path for path in files if path.name.startswith('instances_')] or files
    by_part: dict[str, list[Path]] = {}
    for path in files:
        by_part.setdefault(part_of(path), []).append(path)
    if len(by_part) > 1:  # where some say what they are for, the others are for something else
        by_part.pop('', None)
    for part, paths in by_part.items():
        if len(paths) > 1:
            names = ', '.join(path.relative_to(root).as_posix() for path in paths[:MAX_NAMES])
            names += ', ...' if len(paths) > MAX_NAMES else ''
            what = f'several json files for {part}' if part else 'json files of which none is train'
            raise DataRootError(f'{root} has {what}: {names}; expected train.json and val.json')
    documents = {part: CocoDocument(by_part[part][0]) for part in ORDER if part in by_part}
    return COCOSource(root, documents) if documents else None


def json_files(root: Path) -> Iterator[Path]:
    """Those in a folder and in its annotations, and single ones in folders named for a part."""
    yield from sorted(root.glob('*.json'))
    annotations = subfolder(root, 'annotations')
    if annotations:
        yield from sorted(annotations.glob('*.json'))
    for folder in sorted(path for path in root.iterdir() if path.name.lower() in CANONICAL):
        files = list(folder.glob('*.json'))
        if len(files) == 1:
            yield files[0]


def part_of(path: Path) -> str:
    """The part that a file's name, or else its folder's, says; '' if they say none."""
    words = [*re.findall('[a-z]+', path.stem.lower()), path.parent.name.lower()]
    return next((CANONICAL[word] for word in words if word in CANONICAL), '')


def find_images(root: Path, document: CocoDocument) -> str:
    """The folder below ``root`` that has most of a json's images, relative to it.

    Of several with the same images, it is the one that is named for the json's part.
    """
    names = [image['file_name'] for image in document.images.values()]
    sample = names[:: len(names) // SAMPLE + 1]
    folders = [root, *subfolders(root)]
    folders += [path for folder in folders[1:] for path in subfolders(folder)]
    part = part_of(document.path)

    def fitness(folder: Path) -> tuple[int, bool]:
        return sum((folder / name).is_file() for name in sample), part_of(folder) == part

    best = max(folders, key=fitness)
    return '' if best == root else best.relative_to(root).as_posix()


@dataclass
class COCOSource:
    """COCO data; an image's name is its path below the root."""

    root: Path
    documents: dict[str, CocoDocument]  # by part, in `ORDER`
    kind: str = 'COCO'
    benchmark: bool = False
    evaluator: dict = field(default_factory=lambda: dict(type='CocoMetric', metric='bbox'))

    def __post_init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._images: dict[str, dict[str, dict]] = {}  # entries by the document's part and name
        for part, document in self.documents.items():
            folder = self._folders[part] = find_images(self.root, document)
            self._images[part] = {
                posixpath.normpath(posixpath.join(folder, image['file_name'])): image
                for image in document.images.values()
            }

    @property
    def description(self) -> str:
        """The format and the files."""
        files = (document.path.relative_to(self.root) for document in self.documents.values())
        return f'COCO ({", ".join(path.as_posix() for path in files)})'

    @cached_property
    def parts(self) -> Parts:
        """What is trained on and what is evaluated on."""
        lists = {part: list(images) for part, images in self._images.items() if part}
        return choose_parts(lists, [name for images in self._images.values() for name in images])

    @property
    def notes(self) -> list[str]:
        """None: all images of a json belong to a part."""
        return []

    def _key(self, part: str, name: str) -> str:
        """The key of the document that has an image of a part."""
        return next(key for key in (part, *self._images) if name in self._images.get(key, ()))

    def read(self, part: str, name: str) -> AnnotatedImage | DataFault:
        """Look at an image and collect its annotations."""
        key = self._key(part, name)
        image = self.documents[key].annotated(self._images[key][name])
        return look_at(self.root, name, image)

    def strays(self, part: str) -> list[DataFault]:
        """What is wrong in the part's json, or in that of all parts, and belongs to no image."""
        key = part if part in self.documents else '' if part == 'train' else None
        found = self.documents[key].strays() if key in self.documents else []
        path = self.root.as_posix() + '/'
        return [fault._replace(path=fault.path.removeprefix(path)) for fault in found]

    def classes(self, found: set[str]) -> list[str]:
        """The categories, in the order of the json that is trained on."""
        documents = self.documents.values()
        return list(dict.fromkeys(entry['name'] for d in documents for entry in d.categories))

    def write(
        self, part: str, images: Sequence[AnnotatedImage], classes: Sequence[str], folder: Path
    ) -> Path:
        """The json itself if it is fit for use and all of it is used, else a copy."""
        document = self.documents[self._key(part, images[0].path)]
        copy = copy_for(document, images, classes)
        if copy == document.content:
            return document.path.absolute()
        path = (folder / f'{part}.json').absolute()
        write_text(path, json.dumps(copy))
        return path

    def dataset(self, part: str) -> dict:
        """The package's data set, which goes on where an image cannot be decoded."""
        key = self._key(part, self.parts.names[part][0])
        prefix = dict(img=posixpath.join(self._folders[key], ''))
        root = f'{self.root.absolute()}/'
        return dict(type='CheckedCocoDataset', data_root=root, data_prefix=prefix)


def copy_for(
    document: CocoDocument, images: Sequence[AnnotatedImage], classes: Iterable[str]
) -> dict:
    """The contents of a json for these images alone, fit for MMDetection and pycocotools.

    1. Each image has its size in pixels, by which ``CocoDataset`` judges boxes.
    2. Each annotation has a box and a category; an area and ``iscrowd``, which evaluation needs;
       and an id of its own that is not 0, which evaluation takes for none.
    3. The first categories are the classes in their order, which is the one of their ids, too:
       ``CocoDataset`` numbers them by their order here, whatever the order of its ``metainfo``,
       and ``CocoMetric`` names the figures of each class by the order of the ids.

    Where all that holds already, the copy equals the document.
    """
    entries = []
    for image in images:
        assert image.size is not None  # look_at has set it
        entries.append(dict(image.source, width=image.size[0], height=image.size[1]))
    kept = {entry['id'] for entry in entries}
    categories = ordered_categories(document, list(classes))
    ids = {category['name']: category['id'] for category in categories}
    annotations = [
        dict(complete(annotation), category_id=ids[document.class_names[annotation['category_id']]])
        for annotation in document.content['annotations']
        if document.fault_of(annotation) is None and annotation['image_id'] in kept
    ]
    annotations = number_anew(annotations, Counter(a.get('id') for a in annotations))
    return dict(document.content, images=entries, annotations=annotations, categories=categories)


def ordered_categories(document: CocoDocument, classes: list[str]) -> list[dict]:
    """A json's categories, each name once, the classes first; as they are if they are so already.

    Some of the classes may be of no category yet.
    """
    by_name: dict[str, dict] = {}  # of several categories with one name, the first
    for category in document.categories:
        by_name.setdefault(category['name'], category)
    known = [name for name in by_name if name in classes]
    ids = [by_name[name]['id'] for name in known]
    is_unique = len(by_name) == len(document.content['categories'])
    if known == classes and is_unique and ids == sorted(ids):
        return document.content['categories']
    names = dict.fromkeys([*classes, *by_name])
    return [dict(by_name.get(name, {}), id=i, name=name) for i, name in enumerate(names, 1)]
