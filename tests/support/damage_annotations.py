"""Damage files of a VOC-style folder, each so that a run has to report it."""

import itertools
import re
from collections.abc import Callable, Iterable
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
X_RANGE = r'<xmin>(.*?)</xmin>([\s\S]*?)<xmax>.*?</xmax>'
OF_ANNOTATIONS: dict[str, Callable[[Path], None]] = {
    'xml cut in half': cut_in_half,
    'xml emptied': empty,
    'xml missing': Path.unlink,
    'coordinate blank': replace_first('<xmin>.*?</xmin>', '<xmin></xmin>'),
    'coordinate NaN': replace_first('<ymax>.*?</ymax>', '<ymax>nan</ymax>'),
    'coordinate infinite': replace_first('<xmax>.*?</xmax>', '<xmax>inf</xmax>'),
    'box without a corner': replace_first('<ymin>.*?</ymin>', ''),
    'object without a name': replace_first(r'(<object>\s*)<name>.*?</name>', r'\1'),
    'box without width': replace_first(X_RANGE, r'<xmin>\1</xmin>\2<xmax>\1</xmax>'),
    'box far outside': replace_first(X_RANGE, r'<xmin>90001</xmin>\2<xmax>90009</xmax>'),
}
OF_IMAGES: dict[str, Callable[[Path], None]] = {
    'image cut in half': cut_in_half,
    'image emptied': empty,
    'image missing': Path.unlink,
}


def damage(annotations: Iterable[Path]) -> dict[Path, str]:
    """Damage each annotation, or else its image, in one of the ways in turn; which, by path."""
    done = {}
    for path, way in zip(annotations, itertools.cycle(OF_ANNOTATIONS | OF_IMAGES)):
        if way in OF_IMAGES:
            path = path.parents[1] / 'JPEGImages' / f'{path.stem}.jpg'
        (OF_ANNOTATIONS | OF_IMAGES)[way](path)
        done[path] = way
    return done
