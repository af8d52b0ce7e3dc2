"""Recognise the data in a folder by its contents."""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import partial
from pathlib import Path

from ssd_plugin.datasets.faults import DataFault
from ssd_plugin.datasets.own_data.coco import find_coco
from ssd_plugin.datasets.own_data.folder import Folder, PathIndex, folder_of
from ssd_plugin.datasets.own_data.lists import ImageLists, read_lists
from ssd_plugin.datasets.own_data.other_formats import find_other
from ssd_plugin.datasets.own_data.part_names import part_of_folder
from ssd_plugin.datasets.own_data.parts import Parts, choose_parts
from ssd_plugin.datasets.own_data.records import Reader, Source
from ssd_plugin.datasets.own_data.voc import find_voc
from ssd_plugin.datasets.own_data.yolo import find_yolo
from ssd_plugin.errors import DataRootError, shorten

LOOKED_FOR = (
    "images, and for them VOC's XML files, COCO's JSON or YOLO's text files, "
    'in any folder (docs/your_data.md)'
)
ANNOTATION_FOLDERS = {'Annotations', 'annotations', 'annots', 'labels', 'xml', 'xmls', 'txt'}
YEAR = re.compile(r'VOC\d{4}')
MAX_ENTRIES = 8  # of a folder that an error lists
example = partial(shorten, most=3)  # of the names in a note


def recognise(root: Path) -> Source:
    """The data set in a folder.

    1. Find images, and annotations of one format, below it.
    2. Find what they, lists or the names of folders say about parts.
    3. Choose the parts; say what belongs to none.

    Raises:
        DataRootError: There is no such folder, or not the data of one known format in it.
        DataRefusedError: A file that is needed can't be read.
    """
    folder = Folder(root)
    reader = find_reader(folder)
    lists = read_lists(folder, set(reader.files), PathIndex(o.path for o in reader.orphans))
    named, origin = named_parts(reader, lists)
    benchmark = is_benchmark(folder, reader)
    parts = choose_parts(named, reader.images, benchmark)
    if origin and ' drawn ' not in parts.origin and not benchmark:
        parts = parts._replace(origin=f'{parts.origin} ({origin})')
    parts, missing = part_orphans(parts, reader)
    notes = [*reader.notes, *notes_on_unused(folder, reader, lists, parts)]
    return Source(
        folder, reader, parts, missing, notes, describe_format(reader, benchmark), benchmark
    )


def find_reader(folder: Folder) -> Reader:
    """The reader of the only format in a folder.

    Raises:
        DataRootError: There is none, there are several, or there are no images.
    """
    root = folder.root
    found: tuple[Reader | None, ...] = find_voc(folder), find_coco(folder), find_yolo(folder)
    readers = [reader for reader in found if reader is not None]
    if len(readers) > 1 and any(reader.images for reader in readers):
        readers = [reader for reader in readers if reader.images]
    if len(readers) > 1:
        what = ' and '.join(
            f'{r.kind} for {len(r.images)} images ({example(r.files)})' for r in readers
        )
        raise DataRootError(
            f'{root} has annotations of several formats: {what}. Name the subfolder with those '
            'to use, or move the others out'
        )
    if not readers:
        raise DataRootError(f'{root} {why_nothing(folder)}')
    [reader] = readers
    if not reader.images:
        where = example([orphan.path for orphan in reader.orphans])
        raise DataRootError(
            f'{root} has {reader.kind} annotations ({where}), but none of their images'
            f'{"" if folder.images else ", nor any other image"}: put them into the folder'
        )
    return reader


def why_nothing(folder: Folder) -> str:
    """What a folder without annotations of a known format has instead, and how to go on."""
    other = find_other(folder)
    if other:
        return f'has {other.name} ({other.file}), which is not read: {other.advice}'
    beside = sorted(ANNOTATION_FOLDERS.intersection(os.listdir(folder.root.absolute().parent)))
    if beside and folder.images:
        above = folder.root.absolute().parent
        return f'has images, but no annotations. Beside it is {beside[0]}: did you mean {above}?'
    broken = next((path for path in folder.with_suffix('.json')), None)
    more = f'; {broken} is no COCO json with images, annotations and categories' if broken else ''
    return (
        f'is no data set in a known format. Looked for {LOOKED_FOR}. Found {describe(folder)}{more}'
    )


def named_parts(reader: Reader, lists: ImageLists) -> tuple[dict[str, list[str]], str]:
    """The images of the parts that the data name, and where: files, lists or folders."""
    named = lists.parts | {part: list(images) for part, images in reader.parts.items() if images}
    if named:
        return named, ''
    for image in reader.images:
        part = part_of_folder(image)
        if part:
            named.setdefault(part, []).append(image)
    return named, 'by folders' if named else ''


def is_benchmark(folder: Folder, reader: Reader) -> bool:
    """Whether all images are in years of Pascal VOC itself."""
    above = folder.root.absolute().name
    paths = (f'{above}/{image}'.split('/') for image in reader.images)
    return reader.kind == 'VOC' and all(any(map(YEAR.fullmatch, path)) for path in paths)


def part_orphans(parts: Parts, reader: Reader) -> tuple[Parts, dict[str, list[DataFault]]]:
    """Take what has no image out of the parts; its faults by part, train's where none is said."""
    faults = {orphan.path: orphan.fault for orphan in reader.orphans}
    listed = {name for names in parts.names.values() for name in names}
    missing: dict[str, list[DataFault]] = {}
    names = {}
    for part, members in parts.names.items():
        names[part] = [name for name in members if name not in faults]
        missing[part] = [faults[name] for name in members if name in faults]
    for path, fault in faults.items():
        part = part_of_folder(path)
        if path not in listed:
            missing[part if part in names else 'train'].append(fault)
    return parts._replace(names=names), missing


def notes_on_unused(folder: Folder, reader: Reader, lists: ImageLists, parts: Parts) -> list[str]:
    """Sentences about images and lists that no part uses."""
    used = {name for names in parts.names.values() for name in names}
    annotated = set(reader.images)
    in_no_part = [image for image in reader.images if image not in used]
    unannotated = [i for i in folder.images if i not in annotated and i not in used]
    notes = []
    if in_no_part:
        number = len(in_no_part)
        notes.append(
            f'In no part, and not used: {number} annotated images ({example(in_no_part)}).'
        )
    if unannotated:
        number = len(unannotated)
        notes.append(f'Without annotation, and not used: {number} images ({example(unannotated)}).')
    if lists.unused and lists.parts:
        notes.append(f'Lists that name no part, and are not used: {example(lists.unused)}.')
    if lists.empty:
        notes.append(f'Lists that name no image here, and are not used: {example(lists.empty)}.')
    return notes


def describe_format(reader: Reader, benchmark: bool) -> str:
    """The format, and where its files are, in words."""
    if benchmark:
        years = {part for path in reader.files for part in path.split('/') if YEAR.fullmatch(part)}
        return f'Pascal VOC ({", ".join(sorted(years))})' if years else 'Pascal VOC'
    if reader.kind == 'COCO':
        return f'COCO ({example(reader.files)})'
    folders = [f'{folder_of(path)}/' if folder_of(path) else './' for path in reader.files]
    counts = Counter(folders)
    what = dict(VOC='XML files', YOLO='text files')[reader.kind]
    return f'{reader.kind} ({len(reader.files)} {what} in {example(sorted(counts))})'


def describe(folder: Folder) -> str:
    """What lies in a folder, in words."""
    folders = list(dict.fromkeys(f'{p.split("/")[0]}/' for p in folder.files if '/' in p))
    suffixes = Counter(f'*{Path(path).suffix or Path(path).name}' for path in folder.files)
    files = [f'{number} {suffix}' for suffix, number in suffixes.most_common()]
    found = [*folders[:MAX_ENTRIES], *files[:MAX_ENTRIES]]
    more = ', ...' if len(folders) > MAX_ENTRIES or len(files) > MAX_ENTRIES else ''
    return ', '.join(found) + more if found else 'nothing'
