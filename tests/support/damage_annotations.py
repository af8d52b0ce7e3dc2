"""Damage a share of a VOC-style folder's files, each so that a run has to report it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b'')


def replace_first(pattern: str, replacement: str) -> Callable[[Path], None]:
    """What changes an xml's text in one place."""

    def damage(path: Path) -> None:
        text, found = re.subn(pattern, replacement, path.read_text('utf-8'), count=1)
        if not found:
            raise ValueError(f'{path} has nothing like {pattern}')
        path.write_text(text, 'utf-8')

    return damage


# By name; of an annotation or of its image.
OF_ANNOTATIONS: dict[str, Callable[[Path], None]] = {
    'xml cut in half': cut_in_half,
    'xml emptied': empty,
    'xml missing': Path.unlink,
    'coordinate blank': replace_first('<xmin>.*?</xmin>', '<xmin></xmin>'),
    'coordinate NaN': replace_first('<ymax>.*?</ymax>', '<ymax>nan</ymax>'),
    'coordinate infinite': replace_first('<xmax>.*?</xmax>', '<xmax>inf</xmax>'),
    'box without a corner': replace_first('<ymin>.*?</ymin>', ''),
    'object without a name': replace_first('(<object>\\s*)<name>.*?</name>', '\\1'),
    'box without width': replace_first(
        r'<xmin>(.*?)</xmin>([\s\S]*?)<xmax>.*?</xmax>', r'<xmin>\1</xmin>\2<xmax>\1</xmax>'
    ),
    'box far outside': replace_first(
        r'<xmin>.*?</xmin>([\s\S]*?)<xmax>.*?</xmax>',
        r'<xmin>90001</xmin>\1<xmax>90009</xmax>',
    ),
}
OF_IMAGES: dict[str, Callable[[Path], None]] = {
    'image cut in half': cut_in_half,
    'image emptied': empty,
    'image missing': Path.unlink,
}


def damage(root: Path, share: float, seed: int) -> dict[Path, str]:
    """Damage a share of the annotations below ``root``, or their images, each in one way.

    The same seed damages the same files in the same ways.

    Returns:
        The damage by the file's path.
    """
    random_numbers = random.Random(seed)
    with_objects = [
        path
        for path in sorted((root / 'Annotations').glob('*.xml'))
        if '<object>' in path.read_text('utf-8')
    ]
    chosen = sorted(random_numbers.sample(with_objects, round(share * len(with_objects))))
    done = {}
    ways = {**OF_ANNOTATIONS, **OF_IMAGES}
    names: list[str] = []
    for path in chosen:
        names = names or random_numbers.sample(list(ways), len(ways))  # all ways before any again
        name = names.pop()
        if name in OF_IMAGES:
            path = next((root / 'JPEGImages').glob(f'{path.stem}.*'))
        ways[name](path)
        done[path] = name
    return done
