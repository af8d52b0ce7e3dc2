"""The names of classes: those of a checkpoint beside those of a data set."""

from __future__ import annotations

from collections.abc import Sequence

from ssd_plugin.errors import shorten

FEW = 20  # names of a list that is printed whole


def classes_in(meta: dict) -> tuple[str, ...] | None:
    """Class names from the ``meta`` of MMEngine (or, in capitals, of MMDetection 2)."""
    classes = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES')
    if isinstance(classes, str):
        return (classes,)
    return tuple(classes) if classes else None


def find_classes(names: Sequence[str], among: Sequence[str]) -> list[int | None]:
    """For each name its index among others, where it may differ in case and blanks.

    The same name comes before one that differs so. None where there is neither.
    """
    similar = {_simplified(name): index for index, name in enumerate(among)}
    same = {name: index for index, name in enumerate(among)}
    return [same.get(name, similar.get(_simplified(name))) for name in names]


def same_classes(names: Sequence[str], others: Sequence[str]) -> list[int] | None:
    """Indices among others of names that are the same in any order; None if they are not."""
    found = find_classes(names, others)
    if len(names) != len(others) or set(found) != set(range(len(others))):
        return None
    return [index for index in found if index is not None]


def compare_classes(source: str, classes: Sequence[str], wanted: Sequence[str]) -> str:
    """How a checkpoint's classes differ from a data set's: both lists, or what differs of them."""
    if len(classes) + len(wanted) <= 2 * FEW:
        return f'{source} has the classes {", ".join(classes)}, the data set {", ".join(wanted)}'
    unwanted = [c for c, i in zip(classes, find_classes(classes, wanted)) if i is None]
    unknown = [c for c, i in zip(wanted, find_classes(wanted, classes)) if i is None]
    return (
        f'{source} has {len(classes)} classes, the data set {len(wanted)}; only the first has '
        f'{shorten(unwanted)}, only the second {shorten(unknown)}'
    )


def _simplified(name: str) -> str:
    return ''.join(name.split()).casefold()
