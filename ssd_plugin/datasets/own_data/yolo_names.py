"""The names of YOLO's classes, and the parts, as ``data.yaml`` and the like say them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ssd_plugin.datasets.own_data.folder import (
    Folder,
    PathIndex,
    common_end,
    folder_of,
    stem_of,
)
from ssd_plugin.datasets.own_data.lists import read_list
from ssd_plugin.datasets.own_data.part_names import CANONICAL, parents
from ssd_plugin.errors import DataRefusedError, one_line

NAME_FILES = (
    'classes.txt', 'class.txt', 'class_names.txt', 'classnames.txt', 'names.txt', 'labels.txt',
    'predefined_classes.txt', 'obj_names.txt',
)  # fmt: skip
NAMES_KEY = re.compile(r'^\s*["\']?names["\']?\s*:', re.MULTILINE)
SUFFIXES = ('.names', '.labels')  # obj.names, _darknet.labels


@dataclass
class ClassNames:
    """Lists of names by the file that has them; several where a folder has several data sets."""

    yamls: dict[str, dict] = field(default_factory=dict)  # contents
    by_file: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def files(self) -> set[str]:
        """Text files that name classes."""
        return {*self.by_file} - {*self.yamls}

    @property
    def has_keypoints(self) -> bool:
        """Whether labels have keypoints behind the box."""
        return any('kpt_shape' in content for content in self.yamls.values())

    @property
    def all(self) -> list[str]:
        """The names of all files, in order."""
        names = (names[number] for names in self.by_file.values() for number in sorted(names))
        return list(dict.fromkeys(names))

    def __bool__(self) -> bool:
        return bool(self.by_file)

    def name_of(self, number: int, path: str) -> str | None:
        """The name of a class in a file of labels; None if it has none.

        That of the nearest yaml above the file, else of the nearest other list, else of any.
        """
        if not self.by_file:
            return str(number)
        return self.by_file[self._file_for(folder_of(path))].get(number)

    def _file_for(self, folder: str) -> str:
        above = list(parents(f'{folder}/x'))
        for files in (self.yamls, self.files):
            by_folder = {folder_of(file): file for file in sorted(files, reverse=True)}
            for place in above:
                if place in by_folder:
                    return by_folder[place]
        return next(iter(self.by_file))


def find_names(folder: Folder) -> ClassNames:
    """Find the files that name classes.

    Raises:
        DataRefusedError: One can't be read.
    """
    found = ClassNames()
    for path in folder.with_suffix('.yaml', '.yml'):
        text = folder.read_text(path)
        if not NAMES_KEY.search(text):
            continue
        try:
            content = yaml.safe_load(text)
            names = numbered(content['names'])
        except (yaml.YAMLError, TypeError, KeyError, ValueError) as error:
            reason = one_line(error)
            raise DataRefusedError(f"can't read {folder.path(path)}: {reason}") from error
        found.yamls[path], found.by_file[path] = content, names
    for path in folder.files:
        base = path.rsplit('/', 1)[-1].lower()
        if base in NAME_FILES or base.endswith(SUFFIXES):
            lines = [line.strip() for line in folder.read_text(path).rstrip().splitlines()]
            found.by_file[path] = {number: name for number, name in enumerate(lines) if name}
    return found


def numbered(names: object) -> dict[int, str]:
    """Names by number, from a list, or from a mapping one way or the other."""
    if isinstance(names, Mapping):
        pairs = [(k, v) if str(k).isdecimal() else (v, k) for k, v in names.items()]
        return {int(number): str(name).strip() for number, name in pairs}
    if isinstance(names, list):
        return {number: str(name).strip() for number, name in enumerate(names)}
    raise ValueError(f'its names are no list and no mapping: {names}')


def parts_of_yaml(folder: Folder, names: ClassNames) -> tuple[dict[str, list[str]], list[str]]:
    """The images of each part by the yamls, and sentences about what they name but isn't there.

    An entry is a folder, a text file that lists images, or a list of such.
    """
    parts: dict[str, list[str]] = {}
    notes = []
    for file, content in names.yamls.items():
        for key, value in content.items():
            part = CANONICAL.get(str(key).lower())
            entries = value if isinstance(value, list) else [value]
            for entry in filter(None, entries) if part else ():
                images = images_of(folder, file, content, str(entry))
                if images is None:
                    notes.append(f'{file} names {entry} for {part}, which is not there.')
                else:
                    parts.setdefault(part or '', []).extend(images)
    return parts, notes


def images_of(
    folder: Folder, file: str, content: Mapping[str, Any], entry: str
) -> list[str] | None:
    """The images that an entry of a yaml means; None if there is no such folder or list.

    Its path may begin at the yaml, at the yaml's ``path``, or anywhere, as in Roboflow's
    ``../train/images``: its last two components have to fit.
    """
    wanted = [component for component in re.split(r'[/\\]+', entry) if component.strip('.')]
    if not wanted:
        place = folder_of(file)
        return [image for image in folder.images if not place or image.startswith(f'{place}/')]
    base = content.get('path')
    is_list = entry.endswith('.txt')
    index = PathIndex(folder.with_suffix('.txt')) if is_list else folder.image_folders
    wanted[-1] = stem_of(wanted[-1])
    above = folder.root.absolute().name
    for name in (f'{base}/{entry}', entry) if isinstance(base, str) else (entry,):
        found = index.find(name, near=file)
        if found and common_end(f'{above}/{found}', wanted) >= min(2, len(wanted)):
            if is_list:
                return read_list(folder, found, PathIndex(()))
            return [image for image in folder.images if image.startswith(f'{found}/')]
    return None
