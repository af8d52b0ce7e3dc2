"""Choosing the images to train on and those to evaluate on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SHARE, SEED = 0.2, 0  # of a validation part that is drawn here


class Parts(NamedTuple):
    """The names of the images of train, val and perhaps test, and where that comes from."""

    names: dict[str, list[str]]
    origin: str

    @property
    def evaluated(self) -> str:
        """The part that a trained detector is tested on."""
        return 'test' if 'test' in self.names else 'val'


def choose_parts(
    lists: Mapping[str, Sequence[str]], everything: Sequence[str], benchmark: bool = False
) -> Parts:
    """Use the lists of the data, and divide the images where no list says what to evaluate on.

    1. Pascal VOC itself is trained on ``trainval`` and evaluated on ``test``, as published
       results are.
    2. Other data are trained on ``train``. Where there is no such list, it is those images of
       ``trainval``, or else of all, that are in neither ``val`` nor ``test``.
    3. Evaluation takes ``val``, or else ``test``, or else a fifth of the images for training. Where
       there are both, ``test`` is left for the end.

    ``lists`` are names of images, by some of train, val, test and trainval; ``everything`` are the
    names of all; ``benchmark`` says whether this is Pascal VOC itself.
    """
    unique = {part: list(dict.fromkeys(names)) for part, names in lists.items() if names}
    if benchmark and {'trainval', 'test'} <= unique.keys():
        names = dict(train=unique['trainval'], val=unique['test'])
        return Parts(names, 'trainval to train on, test to evaluate on, as published results')
    held_out = [part for part in ('val', 'test') if part in unique]
    excluded = {name for part in held_out for name in unique[part]}
    rest = [name for name in unique.get('trainval', everything) if name not in excluded]
    train = unique.get('train', rest)
    origin = 'train' if 'train' in unique else 'trainval' if 'trainval' in unique else 'others'
    if not held_out:
        return Parts(divide(train), f'{SHARE:.0%} of the images for val, drawn with seed {SEED}')
    names = dict(train=train, val=unique[held_out[0]])
    if len(held_out) == 2:
        names['test'] = unique['test']
    return Parts(names, f"the data's own, {', '.join([origin, *held_out])}")


def divide(names: Sequence[str]) -> dict[str, list[str]]:
    """Draw a validation part.

    Images are drawn in the order of a digest of their names. So the draw is the same on every
    machine and for every order of the names, and when images are added, nearly all others stay in
    their part.
    """
    drawn = sorted(names, key=lambda name: hashlib.sha256(f'{SEED}/{name}'.encode()).digest())
    val = set(drawn[: max(1, round(SHARE * len(names)))])
    train = [name for name in names if name not in val]
    return dict(train=train, val=[name for name in names if name in val])
