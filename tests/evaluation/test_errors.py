"""Kinds of errors, on cases made by hand and beside a naive loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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

HERE, NEAR, TOUCHING, ELSEWHERE = [0, 0, 40, 40], [0, 0, 40, 36], [20, 0, 60, 40], [90, 90, 99, 99]
CASES = {
    'found': ([(HERE, 0, 0)], [(NEAR, 0, 0.9)], ['found'], ['found']),
    'missed': ([(HERE, 0, 0)], [], [], ['missed']),
    'false': ([], [(HERE, 0, 0.9)], ['false'], []),
    'false, beside': ([(HERE, 0, 0)], [(ELSEWHERE, 0, 0.9)], ['false'], ['missed']),
    'false, of another class beside': ([(HERE, 1, 0)], [(TOUCHING, 0, 0.9)], ['false'], ['missed']),
    'duplicate': (
        [(HERE, 0, 0)], [(NEAR, 0, 0.9), (HERE, 0, 0.5)], ['found', 'duplicate'], ['found'],
    ),
    'confused': ([(HERE, 1, 0)], [(NEAR, 0, 0.9)], ['confused'], ['confused']),
    'found and confused': (
        [(HERE, 1, 0)], [(NEAR, 0, 0.9), (NEAR, 1, 0.5)], ['confused', 'found'], ['found'],
    ),
    'badly placed': ([(HERE, 0, 0)], [(TOUCHING, 0, 0.9)], ['badly placed'], ['badly placed']),
    'badly placed after found': (
        [(HERE, 0, 0)], [(NEAR, 0, 0.9), (TOUCHING, 0, 0.5)], ['found', 'badly placed'], ['found'],
    ),
    'confused rather than badly placed': (
        [(HERE, 0, 0), (TOUCHING, 1, 0)], [(TOUCHING, 0, 0.9)], ['confused'],
        ['missed', 'confused'],
    ),
    'too unsure': ([(HERE, 0, 0)], [(NEAR, 0, 0.29)], [], ['missed']),
    'of an ignored box': ([(HERE, 0, 1)], [(NEAR, 0, 0.9)], ['ignored'], ['ignored']),
    'twice of an ignored box': (
        [(HERE, 0, 1)], [(NEAR, 0, 0.9), (HERE, 0, 0.8)], ['ignored', 'ignored'], ['ignored'],
    ),
    'other class than an ignored box': (
        [(HERE, 1, 1)], [(NEAR, 0, 0.9)], ['ignored'], ['ignored'],
    ),
    'beside an ignored box': ([(HERE, 0, 1)], [(TOUCHING, 0, 0.9)], ['false'], ['ignored']),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_each_kind(case):
    gts, detections, kinds, states = CASES[case]
    diagnosis = diagnose(make_result(gts, detections))
    assert (diagnosis.kinds, diagnosis.gt_states) == (kinds, states)


def naive_kinds(result, score_thr, iou_thr=0.5, near_thr=0.1):
    """The rules of the module, detection by detection."""

    def best(box, allowed):
        overlaps = [
            (iou(box, b), -g) for g, b in enumerate(result.gt_bboxes.tolist()) if allowed(g)
        ]
        overlap, minus_g = max(overlaps, default=(0, 0))
        return -minus_g, overlap

    kinds, about, found = [], {}, set()
    for box, label, score in zip(result.det_bboxes.tolist(), result.det_labels, result.det_scores):
        if score < score_thr:
            continue
        same = lambda g, label=label: result.gt_labels[g] == label  # noqa: E731
        g, overlap = best(box, same)
        if overlap >= iou_thr:
            if result.gt_ignored[g]:
                kinds.append('ignored')
                continue
            kinds.append('duplicate' if g in found else 'found')
            found.add(g)
        else:
            g, overlap = best(box, lambda g, same=same: not same(g))
            if overlap >= iou_thr:
                kinds.append('ignored' if result.gt_ignored[g] else 'confused')
            else:
                g, overlap = best(box, lambda g, same=same: same(g) and not result.gt_ignored[g])
                kinds.append('badly placed' if overlap >= near_thr else 'false')
                if overlap < near_thr:
                    continue
        about.setdefault(g, []).append(kinds[-1])
    states = []
    for g, ignored in enumerate(result.gt_ignored):
        mine = about.get(g, [])
        ranked = [s for s in ('found', 'confused', 'badly placed') if s in mine]
        states.append('ignored' if ignored else (ranked or ['missed'])[0])
    return kinds, states


def boxes_on_a_grid():
    corner, length = st.integers(0, 6), st.integers(1, 6)
    return st.tuples(corner, corner, length, length).map(
        lambda v: [10 * v[0], 10 * v[1], 10 * (v[0] + v[2]), 10 * (v[1] + v[3])]
    )


label = st.integers(0, 2)


@settings(max_examples=150, deadline=None)
@given(
    gts=st.lists(st.tuples(boxes_on_a_grid(), label, st.booleans()), max_size=6),
    detections=st.lists(st.tuples(boxes_on_a_grid(), label, st.floats(0, 1, width=32)), max_size=9),
)
def test_any_image_as_by_the_naive_loop(gts, detections):
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
    assert cells[0] == [*CLASSES, 'all']
    assert [column[-1] for column in cells[1:]] == ['5', '1', '2', '1', '1', '1', '1']


def test_the_worst_come_first_and_images_without_errors_not_at_all():
    right = diagnose(make_result([(HERE, 0, 0)], [(HERE, 0, 0.9)]))
    surer = diagnose(make_result([], [(HERE, 0, 0.8)]))
    less_sure = diagnose(make_result([], [(HERE, 0, 0.4)]))
    missed, everything = TWO_IMAGES
    ranked = worst([right, missed, less_sure, everything, surer], 9)
    assert [id(d) for d in ranked] == [id(d) for d in (everything, surer, less_sure, missed)]
    assert len(worst([missed, everything], 1)) == 1
