"""Damage a share of a VOC-style folder's data: python -m tests.support.damage_annotations IN OUT

OUT is a copy, in which each damaged file is one that a run has to report. Which file got which
damage is printed, and written into OUT/damage.txt: a line with tab-separated path and damage.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
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
    """Damage a share of a folder's annotations, or their images, each in one way.

    Args:
        root: Folder with ``Annotations`` and ``JPEGImages``; it is changed.
        share: Of the annotations, between 0 and 1.
        seed: The same seed damages the same files in the same ways.

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


def main() -> None:
    parser = argparse.ArgumentParser(description='Damage a share of a VOC-style folder.')
    parser.add_argument('source', metavar='IN', type=Path, help='folder that stays as it is')
    parser.add_argument('target', metavar='OUT', type=Path, help='its damaged copy; must not exist')
    parser.add_argument('--share', type=float, default=0.05, help='of the annotations')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    shutil.copytree(args.source, args.target)
    done = damage(args.target, args.share, args.seed)
    lines = [f'{path.relative_to(args.target)}\t{name}\n' for path, name in done.items()]
    (args.target / 'damage.txt').write_text(''.join(lines), encoding='utf-8')
    print(''.join(lines), end='')


if __name__ == '__main__':
    main()
