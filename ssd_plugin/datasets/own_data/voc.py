"""Own data in VOC's format: an xml for each image, and perhaps lists of names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath

from ssd_plugin.datasets.faults import AnnotatedImage, DataFault
from ssd_plugin.datasets.own_data.parts import CANONICAL, Parts, choose_parts
from ssd_plugin.datasets.own_data.records import look_at, subfolder, write_text
from ssd_plugin.datasets.voc import read_annotation

YEAR = re.compile(r'VOC\d{4}')
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


@dataclass
class Tree:
    """A folder with annotations, images and perhaps lists."""

    annotations: Path
    images: Path
    lists: dict[str, list[str]]  # names by part, without the folder's name

    @cached_property
    def image_names(self) -> dict[str, str]:
        """The file names of its images by their stems; of two with one stem, the JPEG's."""
        names = [name for name in os.listdir(self.images) if name.lower().endswith(SUFFIXES)]
        return {os.path.splitext(name)[0]: name for name in sorted(names, reverse=True)}


def find_voc(root: Path) -> VOCSource | None:
    """The VOC data in a folder: itself, or the years of a devkit in it; None if there are none."""
    for folder in (root, root / 'VOCdevkit'):
        if folder.is_dir():
            years = sorted(path for path in folder.iterdir() if YEAR.fullmatch(path.name))
            found = [(f'{year.name}/', find_tree(year)) for year in years if year.is_dir()]
            trees = {year: tree for year, tree in found if tree}
            if trees:
                names = ', '.join(year.rstrip('/') for year in trees)
                return VOCSource(root, trees, f'Pascal VOC ({names})', benchmark=True)
    tree, name = find_tree(root), root.absolute().name
    if tree is None:
        return None
    benchmark = bool(YEAR.fullmatch(name))
    description = f'Pascal VOC ({name})' if benchmark else 'a VOC-style folder'
    return VOCSource(root, {'': tree}, description, benchmark)


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
    """VOC data; an image's name is the one in the lists, after the year if there are several."""

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

    def read(self, part: str, name: str) -> AnnotatedImage | DataFault:
        """Read an image and its annotation; either may be missing or broken."""
        year = next(year for year in self.trees if name.startswith(year))
        tree, stem = self.trees[year], name[len(year) :]
        annotation = tree.annotations / f'{stem}.xml'
        relative = annotation.relative_to(self.root).as_posix()
        image = read_annotation(str(annotation))
        if isinstance(image, DataFault):
            return image._replace(path=relative)
        # Both files usually have the same name; where they do not, the annotation may know.
        file_name = tree.image_names.get(stem) or PureWindowsPath(image.path).name
        path = tree.images / (file_name or f'{stem}.jpg')
        image = image._replace(source=relative)
        return look_at(self.root, path.relative_to(self.root).as_posix(), image)

    def strays(self, part: str) -> list[DataFault]:
        """None: each annotation belongs to an image."""
        return []

    def classes(self, found: set[str]) -> list[str]:
        """Those of the boxes in alphabetical order, as Pascal VOC's are."""
        return sorted(found)

    def write(
        self, part: str, images: Sequence[AnnotatedImage], classes: Sequence[str], folder: Path
    ) -> Path:
        """Write the list that the package's ``VOCListDataset`` reads."""
        path = (folder / f'{part}.txt').absolute()
        write_text(path, ''.join(f'{image.path}\t{image.source}\n' for image in images))
        return path

    def dataset(self, part: str) -> dict:
        """The package's data set of listed images."""
        return dict(type='VOCListDataset', data_root=f'{self.root.absolute()}/')
