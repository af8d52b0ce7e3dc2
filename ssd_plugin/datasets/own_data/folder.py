"""The files of a folder, and finding among them what an annotation or a list names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from os.path import commonprefix
from pathlib import Path
from urllib.parse import unquote

from torchvision.datasets.folder import IMG_EXTENSIONS

from ssd_plugin.datasets.own_data.part_names import parents, part_of_folder
from ssd_plugin.errors import DataRootError

IMAGE_SUFFIXES = (*IMG_EXTENSIONS, '.gif', '.jfif')
SUFFIXES = (*IMAGE_SUFFIXES, '.xml', '.txt')  # that a name in a list may have
IMAGE_FOLDERS = ('images', 'jpegimages', 'image', 'imgs', 'img')
NO_PHOTOGRAPHS = ('SegmentationClass', 'SegmentationObject')  # of VOC: masks, with equal names
SKIPPED = ('__MACOSX', *NO_PHOTOGRAPHS)
MAX_FILES = 5_000_000
UPLOAD_PREFIX = re.compile(r'[0-9a-f]{8}-')  # that Label Studio puts before a file's name


class Folder:
    """All files below a root, by their paths from there, in order.

    Hidden files and folders are skipped, and those that macOS adds to archives. Links to folders
    are followed.

    Raises:
        DataRootError: There is no such folder, or it has more files than any data set.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataRootError(f'no folder {root}')
        self.root = root
        self.files = sorted(self._walk())
        self.images = self.with_suffix(*IMAGE_SUFFIXES)

    def _walk(self) -> Iterator[str]:
        seen, number = {os.path.realpath(self.root)}, 0
        for place, folders, files in os.walk(self.root, followlinks=True):
            kept = [name for name in folders if not name.startswith('.') and name not in SKIPPED]
            real = {name: os.path.realpath(os.path.join(place, name)) for name in kept}
            folders[:] = [name for name in kept if real[name] not in seen]
            seen.update(real.values())
            number += len(files)
            if number > MAX_FILES:
                raise DataRootError(
                    f'{self.root} has more than {MAX_FILES} files: name a subfolder'
                )
            relative = Path(place).relative_to(self.root)
            yield from ((relative / name).as_posix() for name in files if not name.startswith('.'))

    @cached_property
    def image_index(self) -> PathIndex:
        """For finding images."""
        return PathIndex(self.images)

    @cached_property
    def image_folders(self) -> PathIndex:
        """For finding folders that have images in them or below."""
        return PathIndex({parent for path in self.images for parent in parents(path) if parent})

    def with_suffix(self, *suffixes: str) -> list[str]:
        """The files with one of these suffixes, in small or capital letters."""
        return [path for path in self.files if path.lower().endswith(suffixes)]

    def path(self, name: str) -> Path:
        """A file's path, for opening it."""
        return self.root / name

    def read_text(self, name: str) -> str:
        """A text file: in UTF-8 with or without a mark, in UTF-16 with one, or else in Latin-1."""
        content = self.path(name).read_bytes()
        encoding = 'utf-16' if content[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            return content.decode('latin-1')


class PathIndex:
    """Paths that are found by the names that annotations and lists have for them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_stem: dict[str, list[str]] = {}
        self._parts = set()
        for path in sorted(paths):
            self._by_stem.setdefault(fold(stem_of(path)), []).append(path)
            self._parts.add(part_of_folder(path))

    def find(self, name: str, near: str = '', part: str = '') -> str | None:
        """The path that a name means, or None if there is none or several fit as well.

        1. Candidates have the name's last component, its suffix and capital letters aside. Where
           there are folders for ``part``, those in a folder for another part are none, unless
           the name says that folder.
        2. The best one has the most components at its end in common with the name; then is in a
           folder for ``part``; then is in the folder of the path ``near``, where the name was read,
           or in a folder for images, or has the most at its beginning in common with ``near``;
           then has the same suffix and capital letters; then is a JPEG.

        ``name`` may be relative or absolute, with slashes or back slashes, or quoted as in a URL.
        """
        found = (self._find(spelling, near, part) for spelling in spellings(name))
        return next(filter(None, found), None)

    def _find(self, name: str, near: str, part: str) -> str | None:
        components = [c for c in re.split(r'[/\\]+', name) if c not in ('', '.', '..')]
        if not components:
            return None
        base = components[-1]
        wanted = [*components[:-1], stem_of(base)]
        ranked = []
        for path in self._by_stem.get(fold(wanted[-1]), ()):
            rank = (common_end(path, wanted), *closeness(path, near, part), *likeness(path, base))
            own = part_of_folder(path)
            if rank[0] > 1 or not part or part not in self._parts or own in ('', part):
                ranked.append((rank, path))
        ranked.sort(reverse=True)
        if len(ranked) > 1:
            (first, best), (second, other) = ranked[:2]
            if first == second and folder_of(best) != folder_of(other):
                return None
        return ranked[0][1] if ranked else None


def common_end(path: str, wanted: list[str]) -> int:
    """How many components a path and a name, without suffixes, have in common at their end."""
    own = [*path.split('/')[:-1], stem_of(path)]
    return len(commonprefix([[fold(c) for c in own[::-1]], [fold(c) for c in wanted[::-1]]]))


def closeness(path: str, near: str, part: str) -> tuple[bool, bool, bool, int]:
    """How near a path is to another: for the same part, in the same folder, how far along it."""
    folder = folder_of(path)
    in_images = folder.rsplit('/', 1)[-1].lower() in IMAGE_FOLDERS
    along = len(commonprefix([fold(path).split('/'), fold(near).split('/')]))
    same_part = bool(part) and part_of_folder(path) == part
    return same_part, folder == folder_of(near), in_images, along


def likeness(path: str, name: str) -> tuple[bool, bool, bool]:
    """How well a file's name fits, beyond its stem; a JPEG is most likely a photograph."""
    base = path.rsplit('/', 1)[-1]
    same = fold(base) == fold(name), stem_of(base) == stem_of(name)
    return *same, base.lower().endswith(('.jpg', '.jpeg'))


def fold(text: str) -> str:
    """A name in small letters, with accents as single characters: macOS separates them."""
    return unicodedata.normalize('NFC', text).casefold()


def spellings(name: str) -> Iterator[str]:
    """A name as it is written, then what URLs and Label Studio may have made of it."""
    name = name.strip().strip('"\'')
    yield name
    if stem_of(stem_of(name)) != stem_of(name):  # a.jpg.txt
        yield stem_of(name)
    url = unquote(name.split('?d=')[-1].split('?')[0] if '?' in name else name)
    if url != name:
        yield url
    folder, _, base = re.sub(r'\\', '/', url).rpartition('/')
    if UPLOAD_PREFIX.match(base):
        yield f'{folder}/{UPLOAD_PREFIX.sub("", base, count=1)}'


def stem_of(path: str) -> str:
    """A path's last component without the suffix of an image or an annotation; others stay."""
    base = path.rsplit('/', 1)[-1]
    stem, suffix = os.path.splitext(base)
    return stem if suffix.lower() in SUFFIXES else base


def folder_of(path: str) -> str:
    """The folder that a path is in."""
    return next(parents(path))
