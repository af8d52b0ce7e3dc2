"""Kinds of errors beside a naive loop, and their counts on images made by hand."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from ssd_plugin.evaluation.errors import (
    confusion_lines,
    count_by_class,
    count_table,
    diagnose,
    total,
    worst,
)
from tests.support.detections import image_with_everything, make_result
from tests.support.helpers import iou

CLASSES = ('cat', 'dog', 'cow')

HERE, NEAR, TOUCHING = [0, 0, 40, 40], [0, 0, 40, 36], [20, 0, 60, 40]
CAT, DOG, IGNORED = (HERE, 0, False), (HERE, 1, False), (HERE, 0, True)


def naive_kinds(result, score_thr, iou_thr=0.5, near_thr=0.1):
    """The rules of the module, detection by detection."""

    def best(box, allowed):
        boxes = result.gt_bboxes.tolist()
        overlap, minus_g = max(((iou(box, boxes[g]), -g) for g in allowed), default=(0, 0))
        return -minus_g, overlap

    kinds, about, found = [], set(), set()
    for box, label, score in zip(result.det_bboxes.tolist(), result.det_labels, result.det_scores):
        if score < score_thr:
            continue
        own = {g for g, gt_label in enumerate(result.gt_labels) if gt_label == label}
        other = {*range(len(result.gt_labels))} - own
        wanted = {g for g in own if not result.gt_ignored[g]}
        kind, g = 'false', None
        if (overlapped := best(box, own))[1] >= iou_thr:
            g = overlapped[0]
            kind = 'duplicate' if g in found else 'found'
            found.add(g)
        elif (overlapped := best(box, other))[1] >= iou_thr:
            kind, g = 'confused', overlapped[0]
        elif (overlapped := best(box, wanted))[1] >= near_thr:
            kind, g = 'badly placed', overlapped[0]
        kinds.append('ignored' if g is not None and result.gt_ignored[g] else kind)
        about.add((g, kind))
    states = []
    for g, ignored in enumerate(result.gt_ignored):
        ranked = [kind for kind in ('found', 'confused', 'badly placed') if (g, kind) in about]
        states.append('ignored' if ignored else [*ranked, 'missed'][0])
    return kinds, states


corner, length, label = st.integers(0, 6), st.integers(1, 6), st.integers(0, 2)
boxes_on_a_grid = st.tuples(corner, corner, length, length).map(
    lambda v: [10 * v[0], 10 * v[1], 10 * (v[0] + v[2]), 10 * (v[1] + v[3])]
)


@example([CAT], [(NEAR, 0, 0.9), (HERE, 0, 0.5), (TOUCHING, 0, 0.4)])  # found, duplicate, placed
@example([DOG], [(NEAR, 0, 0.9), (NEAR, 1, 0.5), (TOUCHING, 0, 0.4)])  # confused, found, false
@example([CAT, (TOUCHING, 1, False)], [(TOUCHING, 0, 0.9)])  # confused rather than badly placed
@example([CAT], [(NEAR, 0, 0.29)])  # missed, as the score is too low
@example([IGNORED], [(NEAR, 0, 0.9), (HERE, 1, 0.8), (TOUCHING, 0, 0.7)])  # ignored twice, false
@settings(max_examples=150, deadline=None)
@given(
    gts=st.lists(st.tuples(boxes_on_a_grid, label, st.booleans()), max_size=6),
    detections=st.lists(st.tuples(boxes_on_a_grid, label, st.floats(0, 1, width=32)), max_size=9),
)
def test_kinds_are_those_of_the_naive_loop(gts, detections):
    result = make_result(gts, detections)
    diagnosis = diagnose(result)
    kinds, states = naive_kinds(result, np.float32(0.3))
    assert diagnosis.kinds == kinds
    assert diagnosis.gt_states == states
    wrong = [kind for kind in kinds if kind not in ('found', 'ignored')]
    assert diagnosis.num_errors == len(wrong) + states.count('missed')


TWO_IMAGES = [
    diagnose(make_result([(HERE, 2, 0)], [])),  # a missed box
    diagnose(image_with_everything()),
]


def test_counts_by_class_and_in_all():
    counts = count_by_class(TWO_IMAGES, 3)
    assert [one.num_gts for one in counts] == [2, 1, 2]
    assert counts[0].gt_states == {'found': 1, 'missed': 1}
    assert counts[1].gt_states == {'confused': 1, 'ignored': 1}
    assert counts[2].gt_states == {'badly placed': 1, 'missed': 1}
    assert counts[0].kinds == {'found': 1, 'duplicate': 1}
    assert counts[1].kinds == {'false': 1, 'ignored': 1}
    assert counts[2].kinds == {'confused': 1, 'badly placed': 1}
    assert total(counts).gt_states['missed'] == 2
    assert confusion_lines(TWO_IMAGES, CLASSES) == ['dog taken for cow: 1']
    table = count_table(counts, CLASSES)
    cells = [list(column.cells) for column in table.columns]
    assert [str(cell) for cell in cells[0]] == [*CLASSES, 'all']
    assert [column[-1] for column in cells[1:]] == ['5', '1', '2', '1', '1', '1', '1']


def test_class_names_are_no_markup(capsys):
    names = ('apple[red]', '[/b]', '[')
    Console(width=200).print(count_table(count_by_class(TWO_IMAGES, 3), names))
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_the_worst_come_first_and_images_without_errors_not_at_all():
    right = diagnose(make_result([(HERE, 0, 0)], [(HERE, 0, 0.9)]))
    surer = diagnose(make_result([], [(HERE, 0, 0.8)]))
    less_sure = diagnose(make_result([], [(HERE, 0, 0.4)]))
    missed, everything = TWO_IMAGES
    ranked = worst([right, missed, less_sure, everything, surer], 9)
    assert [id(d) for d in ranked] == [id(d) for d in (everything, surer, less_sure, missed)]
    assert len(worst([missed, everything], 1)) == 1
