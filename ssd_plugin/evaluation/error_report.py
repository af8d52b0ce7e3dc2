"""What :mod:`.errors` has counted, in words and numbers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ssd_plugin.evaluation.errors import (
    CONFUSED,
    DUPLICATE,
    FALSE,
    FOUND,
    MISSED,
    PLACED,
    Counts,
    Diagnosis,
    confusions,
    total,
)

MAX_CONFUSIONS = 5


def count_table(counts: Sequence[Counts], classes: Sequence[str]) -> Table:
    """Objects and detections of each kind, by class and in all."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column('class', overflow='fold')
    for name in ('objects', FOUND, MISSED, CONFUSED, PLACED, DUPLICATE, FALSE):
        table.add_column(name.replace(' ', '\n'), justify='right')
    last = len(classes) - 1
    for index, (name, one) in enumerate(zip(classes, counts, strict=True)):
        table.add_row(name, *_cells(one), end_section=index == last)
    table.add_row('all', *_cells(total(counts)))
    return table


def _cells(counts: Counts) -> list[str]:
    """Of objects: how many, found, missed. Of detections: the wrong kinds."""
    objects, detections = counts
    numbers = [counts.num_objects, objects[FOUND], objects[MISSED]]
    numbers += [detections[kind] for kind in (CONFUSED, PLACED, DUPLICATE, FALSE)]
    return [str(number) for number in numbers]


def confusion_lines(diagnoses: Sequence[Diagnosis], classes: Sequence[str]) -> list[str]:
    """The most frequent confusions."""
    return [
        f'{classes[true]} taken for {classes[taken]}: {number}'
        for (true, taken), number in confusions(diagnoses).most_common(MAX_CONFUSIONS)
    ]
