"""What the names of files and folders say about parts: train, val and test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

SYNONYMS = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation', 'dev', 'eval', 'minival'),
    'test': ('test', 'testing'),
    'trainval': ('trainval', 'trainvalid'),
}
CANONICAL = {word: part for part, words in SYNONYMS.items() for word in words}
# Words that may stand beside a part's in a name: train_images, instances_val2017, obj_train_data.
COMPANIONS = frozenset((
    'image', 'images', 'img', 'imgs', 'jpegimages', 'photos', 'label', 'labels', 'annotation',
    'annotations', 'annots', 'instances', 'coco', 'json', 'voc', 'yolo', 'xml', 'txt', 'data',
    'dataset', 'set', 'split', 'subset', 'part', 'list', 'files', 'obj', 'bbox', 'bboxes', 'boxes',
    'detection', 'objects',
))  # fmt: skip


def words_of(name: str) -> list[str]:
    """The words in a name, in small letters: ``Train_Images2017`` has train and images."""
    return re.findall(r'[^\W\d_]+', re.sub('([a-z])([A-Z])', r'\1 \2', name).lower())


def part_of_file(path: str) -> str:
    """The part that a file's name says, whatever else it says, or else its folders; or ''."""
    name = path.rsplit('/', 1)[-1].rsplit('.', 1)[0]
    parts = {CANONICAL[word] for word in words_of(name) if word in CANONICAL}
    return parts.pop() if len(parts) == 1 else part_of_folder(path)


@cache
def part_of_word(name: str) -> str:
    """The part that a folder's name says, if it says nothing else: train, val, ..., or ''."""
    words = words_of(name)
    parts = {CANONICAL[word] for word in words if word in CANONICAL}
    others = [word for word in words if word not in CANONICAL and word not in COMPANIONS]
    return parts.pop() if len(parts) == 1 and not others else ''


def part_of_folder(path: str) -> str:
    """The part that the folders of a path say, the innermost first; '' if they say none."""
    return next(filter(None, (part_of_word(p.rsplit('/', 1)[-1]) for p in parents(path))), '')


def parents(path: str) -> Iterator[str]:
    """The folders that a path is in, the innermost first, the root as ''."""
    while '/' in path:
        path = path.rsplit('/', 1)[0]
        yield path
    yield ''
