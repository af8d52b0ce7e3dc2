"""Text files that list images: of VOC's ``ImageSets``, of Darknet, or of one's own."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from ssd_plugin.datasets.own_data.folder import Folder, PathIndex
from ssd_plugin.datasets.own_data.part_names import part_of_file, part_of_folder, part_of_word

# In VOC's lists for each class: whether an image has it; in others: numbers of classes.
FLAG = re.compile(r'(\s+-?\d+)+$')
OTHER_TASKS = ('Layout', 'Segmentation', 'Action', 'Person')  # in VOC's ImageSets
MIN_SHARE = 0.5  # of the lines of a list without a part that name an image or an annotation


class ImageLists(NamedTuple):
    """What the lists of a folder say."""

    parts: dict[str, list[str]]  # by part: images, annotations without one, names of neither
    files: list[str]  # that say it
    unused: list[str]  # other lists
    empty: list[str]  # files that are named for a part and name no image


def read_lists(folder: Folder, other: Collection[str], orphans: PathIndex) -> ImageLists:
    """Read a folder's lists; ``other`` are text files that are none.

    A list is for the part that its name says. Where it lies in a folder for a part, such as
    ``train/ImageSets/Main/default.txt``, it is for that part, unless there are lists for several
    parts in that folder.
    """
    candidates = [path for path in folder.with_suffix('.txt') if path not in other]
    if any('/Main/' in f'/{path}' for path in candidates):
        tasks = {f'/{task}/' for task in OTHER_TASKS}
        candidates = [p for p in candidates if not any(task in f'/{p}' for task in tasks)]
    lists = {path: read_list(folder, path, orphans) for path in candidates}
    empty = [path for path, names in lists.items() if not names and is_for_part(path)]
    lists = {path: names for path, names in lists.items() if names}
    said: dict[str, set[str]] = {}  # the parts that the lists' own names say, by folder for a part
    for path in lists:
        said.setdefault(part_of_folder(path), set()).add(name_of_part(path))
    parts: dict[str, list[str]] = {}
    unused = []
    for path, names in lists.items():
        around = part_of_folder(path)
        part = around if around and len(said[around] - {''}) < 2 else name_of_part(path)
        if part:
            parts.setdefault(part, []).extend(names)
        else:
            unused.append(path)
    files = [path for path in lists if path not in unused]
    unique = {part: list(dict.fromkeys(names)) for part, names in parts.items()}
    return ImageLists(unique, files, unused, empty)


def name_of_part(path: str) -> str:
    """The part that a list's own name says."""
    return part_of_file(path.rsplit('/', 1)[-1])


def is_for_part(path: str) -> bool:
    """Whether a list's own name says a part and nothing else."""
    return bool(part_of_word(path.rsplit('/', 1)[-1].removesuffix('.txt')))


def read_list(folder: Folder, path: str, orphans: PathIndex) -> list[str]:
    """The images that a list names; empty if it is no list of images, or one of VOC's for a class.

    A name that is neither an image's nor an annotation's stays as it is.
    """
    lines = [line.strip() for line in folder.read_text(path).splitlines() if line.strip()]
    near, part = path.split('/ImageSets/')[0], name_of_part(path)

    def resolve(name: str) -> str | None:
        found = folder.image_index.find(name, near, part)
        return found or orphans.find(name, near) or folder.image_index.find(name, near)

    names = {line: resolve(line) for line in lines}
    unknown = [line for line, found in names.items() if found is None]
    flagged = {line: resolve(FLAG.sub('', line)) for line in unknown if FLAG.search(line)}
    if any(flagged.values()):
        if not is_for_part(path):
            return []
        names |= flagged
    least = 1 if part else MIN_SHARE * len(names)  # of a part, most images may be missing
    if sum(found is not None for found in names.values()) < least:
        return []
    return [found or line for line, found in names.items()]
