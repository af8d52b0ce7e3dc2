"""VOC's kind of data: an xml for each image, and lists of names."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath

from ssd_plugin.datasets.own_data import faults
from ssd_plugin.datasets.own_data.files import image_size, list_images, subfolder, write_text
from ssd_plugin.datasets.own_data.parts import CANONICAL, choose_parts
from ssd_plugin.datasets.own_data.records import Fault, Image, Object, Parts

YEAR = re.compile(r'VOC\d{4}')
# Of the last two, one is of unknown encodings, the other of infinite coordinates.
ANNOTATION_ERRORS = (OSError, ET.ParseError, ValueError, LookupError, OverflowError)


@dataclass
class Tree:
    """A folder with annotations, images and perhaps lists."""

    annotations: Path
    images: Path
    lists: dict[str, list[str]]  # by part, without the folder's name

    @cached_property
    def image_names(self) -> dict[str, str]:
        """The names of its images by their stems."""
        return list_images(self.images)


def find_voc(root: Path) -> VOCSource | None:
    """The VOC data in a folder: itself, or the years of a devkit in it; None if there are none."""
    for folder in (root, root / 'VOCdevkit'):
        if folder.is_dir():
            trees = {f'{year.name}/': find_tree(year) for year in years_in(folder)}
            trees = {year: tree for year, tree in trees.items() if tree}
            if trees:
                years = ', '.join(year.rstrip('/') for year in trees)
                return VOCSource(root, trees, f'Pascal VOC ({years})', benchmark=True)
    tree = find_tree(root)
    if tree is None:
        return None
    if YEAR.fullmatch(root.absolute().name):
        return VOCSource(root, {'': tree}, f'Pascal VOC ({root.absolute().name})', benchmark=True)
    return VOCSource(root, {'': tree}, 'a VOC-style folder')


def years_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if YEAR.fullmatch(path.name) and path.is_dir())


def find_tree(folder: Path) -> Tree | None:
    """The tree that a folder is, or None."""
    annotations = subfolder(folder, 'annotations')
    images = subfolder(folder, 'jpegimages', 'images')
    if not annotations or not images or next(annotations.glob('*.xml'), None) is None:
        return None
    lists: dict[str, list[str]] = {}
    list_folder = subfolder(folder, 'imagesets')
    if list_folder:
        list_folder = subfolder(list_folder, 'main') or list_folder
        for path in sorted(list_folder.glob('*.txt')):
            if path.stem.lower() in CANONICAL:
                lists[CANONICAL[path.stem.lower()]] = read_list(path)
    return Tree(annotations, images, lists)


def read_list(path: Path) -> list[str]:
    """The names in a list, without the suffixes that some tools write."""
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    return [re.sub(r'\.(jpe?g|png|bmp|xml)$', '', line.strip()) for line in lines if line.strip()]


@dataclass
class VOCSource:
    """VOC data; names of images are those in the lists, behind the year if there are several."""

    root: Path
    trees: dict[str, Tree]  # by what precedes the names of its images
    description: str
    benchmark: bool = False
    kind: str = 'VOC'
    evaluator: dict = field(default_factory=lambda: dict(type='VOCDetMetric', eval_mode='area'))

    @cached_property
    def everything(self) -> list[str]:
        """The names of all annotations."""
        return [
            f'{year}{path.stem}'
            for year, tree in self.trees.items()
            for path in sorted(tree.annotations.glob('*.xml'))
        ]

    @cached_property
    def parts(self) -> Parts:
        """What is trained on and what is evaluated on."""
        lists: dict[str, list[str]] = {}
        for year, tree in self.trees.items():
            for part, names in tree.lists.items():
                lists.setdefault(part, []).extend(f'{year}{name}' for name in names)
        return choose_parts(lists, self.everything, self.benchmark)

    @property
    def notes(self) -> list[str]:
        """What belongs to no part."""
        unlisted = set(self.everything).difference(*self.parts.names.values())
        images = {f'{year}{stem}' for year, t in self.trees.items() for stem in t.image_names}
        unannotated = images.difference(self.everything)
        notes = []
        if unlisted:
            notes.append(f'In no list, and not used: {len(unlisted)} annotations.')
        if unannotated:
            notes.append(f'Without an annotation, and not used: {len(unannotated)} images.')
        return notes

    def read(self, part: str, name: str) -> Image | Fault:
        """Read an image and its annotation; the one or the other may be missing or broken."""
        year = next(year for year in self.trees if name.startswith(year))
        tree, stem = self.trees[year], name[len(year) :]
        annotation = tree.annotations / f'{stem}.xml'
        if not annotation.is_file():
            return Fault(faults.NO_ANNOTATION, self._relative(annotation))
        try:
            root = ET.parse(annotation, parser=ET.XMLParser(target=WithoutDoctype())).getroot()
            annotated_size, objects = read_annotation(root)
        except ANNOTATION_ERRORS as error:
            return Fault(faults.NOT_AN_ANNOTATION, self._relative(annotation), str(error))
        # The two files' names belong together; where they don't, the annotation may know.
        known = tree.image_names.get(stem) or PureWindowsPath(root.findtext('filename') or '').name
        image = tree.images / (known or f'{stem}.jpg')
        path = self._relative(image)
        if not image.is_file():
            return Fault(faults.NO_IMAGE, path)
        try:
            size = image_size(image)
        except OSError as error:
            return Fault(faults.NOT_AN_IMAGE, path, str(error))
        found = [Fault(faults.UNKNOWN_CLASS, path) for name, *_ in objects if name is None]
        if annotated_size not in (None, size):
            found.append(Fault(faults.OTHER_SIZE, path, f'{annotated_size} instead of {size}'))
        return Image(path, size, objects, found, self._relative(annotation))

    def strays(self, part: str) -> list[Fault]:
        """None: each annotation is of an image."""
        return []

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def classes(self, found: set[str]) -> list[str]:
        """Those of the objects, by the alphabet, as Pascal VOC's are."""
        return sorted(found)

    def write(
        self, part: str, images: Sequence[Image], classes: Sequence[str], folder: Path
    ) -> Path:
        """Write the list that the package's ``VOCListDataset`` reads."""
        path = (folder / f'{part}.txt').absolute()
        write_text(path, ''.join(f'{image.path}\t{image.record}\n' for image in images))
        return path

    def dataset(self, part: str) -> dict:
        """The package's data set of listed images."""
        return dict(type='VOCListDataset', data_root=f'{self.root.absolute()}/')


class WithoutDoctype(ET.TreeBuilder):
    """Ends reading at a document type: annotations need none, and entities grow from them."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError('it declares a document type, in which entities may hide')


def read_annotation(root: ET.Element) -> tuple[tuple[int, int] | None, list[Object]]:
    """Size and objects, by the rules of MMDetection's ``XMLDataset``, which is to read it too.

    Raises:
        ValueError, OverflowError: What that can't read: an element or a number is missing.
    """
    size = root.find('size')
    if size is not None:
        size = (int(float(_text(size, 'width'))), int(float(_text(size, 'height'))))
    objects = []
    for element in root.findall('object'):
        name, box = _child(element, 'name').text, _child(element, 'bndbox')
        corners = (_text(box, corner) for corner in ('xmin', 'ymin', 'xmax', 'ymax'))
        difficult = element.find('difficult') is not None and int(_text(element, 'difficult'))
        box = tuple(int(float(corner)) - 1 for corner in corners)
        objects.append(Object(name, box, bool(difficult)))
    return size, objects


def _child(element: ET.Element, tag: str) -> ET.Element:
    child = element.find(tag)
    if child is None:
        raise ValueError(f'{element.tag} without {tag}')
    return child


def _text(element: ET.Element, tag: str) -> str:
    text = _child(element, tag).text
    if text is None:
        raise ValueError(f'{tag} is empty')
    return text
