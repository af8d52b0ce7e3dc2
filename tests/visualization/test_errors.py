"""Kinds of errors, on cases made by hand and beside a naive loop."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_plugin.evaluation.error_report import confusion_lines, count_table
from ssd_plugin.evaluation.errors import confusions, count_by_class, diagnose, total, worst
from ssd_plugin.evaluation.results import Result
from ssd_plugin.visualization.errors import draw_counts, draw_sheet, marks
from tests.support.helpers import iou

CLASSES = ('cat', 'dog', 'cow')


def make_result(objects, detections, path='a.jpg'):
    """Objects (box, label, ignored), detections (box, label, score) in any order."""
    detections = sorted(detections, key=lambda d: -d[2])
    return Result(
        path,
        np.array([o[0] for o in objects], dtype=np.float64).reshape(-1, 4),
        np.array([o[1] for o in objects], dtype=np.int64),
        np.array([bool(o[2]) for o in objects], dtype=bool),
        np.array([d[0] for d in detections], dtype=np.float32).reshape(-1, 4),
        np.array([d[1] for d in detections], dtype=np.int64),
        np.array([d[2] for d in detections], dtype=np.float32),
    )


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
    'of an ignored object': ([(HERE, 0, 1)], [(NEAR, 0, 0.9)], ['ignored'], ['ignored']),
    'twice of an ignored object': (
        [(HERE, 0, 1)], [(NEAR, 0, 0.9), (HERE, 0, 0.8)], ['ignored', 'ignored'], ['ignored'],
    ),
    'other class than an ignored object': (
        [(HERE, 1, 1)], [(NEAR, 0, 0.9)], ['ignored'], ['ignored'],
    ),
    'beside an ignored object': ([(HERE, 0, 1)], [(TOUCHING, 0, 0.9)], ['false'], ['ignored']),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_each_kind(case):
    objects, detections, kinds, states = CASES[case]
    diagnosis = diagnose(make_result(objects, detections))
    assert (diagnosis.kinds, diagnosis.states) == (kinds, states)


def naive_kinds(result, score_thr, iou_thr=0.5, near_thr=0.1):
    """The rules of the module, detection by detection."""

    def best(box, allowed):
        overlaps = [(iou(box, b), -g) for g, b in enumerate(result.bboxes.tolist()) if allowed(g)]
        overlap, minus_g = max(overlaps, default=(0, 0))
        return -minus_g, overlap

    kinds, about, found = [], {}, set()
    for box, label, score in zip(result.det_bboxes.tolist(), result.det_labels, result.det_scores):
        if score < score_thr:
            continue
        same = lambda g, label=label: result.labels[g] == label  # noqa: E731
        g, overlap = best(box, same)
        if overlap >= iou_thr:
            if result.ignored[g]:
                kinds.append('ignored')
                continue
            kinds.append('duplicate' if g in found else 'found')
            found.add(g)
        else:
            g, overlap = best(box, lambda g, same=same: not same(g))
            if overlap >= iou_thr:
                kinds.append('ignored' if result.ignored[g] else 'confused')
            else:
                g, overlap = best(box, lambda g, same=same: same(g) and not result.ignored[g])
                kinds.append('badly placed' if overlap >= near_thr else 'false')
                if overlap < near_thr:
                    continue
        about.setdefault(g, []).append(kinds[-1])
    states = []
    for g, ignored in enumerate(result.ignored):
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
    objects=st.lists(st.tuples(boxes_on_a_grid(), label, st.booleans()), max_size=6),
    detections=st.lists(st.tuples(boxes_on_a_grid(), label, st.floats(0, 1, width=32)), max_size=9),
)
def test_any_image_as_by_the_naive_loop(objects, detections):
    result = make_result(objects, detections)
    diagnosis = diagnose(result)
    kinds, states = naive_kinds(result, np.float32(0.3))
    assert diagnosis.kinds == kinds
    assert diagnosis.states == states
    wrong = [kind for kind in kinds if kind not in ('found', 'ignored')]
    assert diagnosis.num_errors == len(wrong) + states.count('missed')


def image_with_everything(path):
    objects = [(HERE, 0, 0), ([100, 0, 140, 40], 1, 0), ([0, 100, 40, 140], 2, 0)]
    objects += [([100, 100, 140, 140], 0, 0), ([60, 60, 90, 90], 1, 1)]
    detections = [
        (HERE, 0, 0.9),
        (NEAR, 0, 0.7),
        ([100, 0, 140, 38], 2, 0.8),
        ([20, 100, 60, 140], 2, 0.6),
        ([150, 150, 160, 160], 1, 0.5),
        ([60, 60, 90, 89], 1, 0.95),
    ]
    return make_result(objects, detections, path)


@pytest.fixture
def two_images(tmp_path):
    """Diagnoses of an image with one error of each kind, and of one with a missed object."""
    import cv2

    path = str(tmp_path / 'all.png')
    cv2.imwrite(path, np.full((160, 200, 3), 200, np.uint8))
    return [
        diagnose(make_result([(HERE, 2, 0)], [], path)),
        diagnose(image_with_everything(path)),
    ]


def test_counts_by_class_and_in_all(two_images):
    counts = count_by_class(two_images, 3)
    assert [one.num_objects for one in counts] == [2, 1, 2]
    assert counts[0].objects == {'found': 1, 'missed': 1}
    assert counts[1].objects == {'confused': 1, 'ignored': 1}
    assert counts[2].objects == {'badly placed': 1, 'missed': 1}
    assert counts[0].detections == {'found': 1, 'duplicate': 1}
    assert counts[1].detections == {'false': 1, 'ignored': 1}
    assert counts[2].detections == {'confused': 1, 'badly placed': 1}
    assert total(counts).objects['missed'] == 2
    assert confusions(two_images) == Counter({(1, 2): 1})
    assert confusion_lines(two_images, CLASSES) == ['dog taken for cow: 1']
    table = count_table(counts, CLASSES)
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == [*CLASSES, 'all']
    assert [column[-1] for column in cells[1:]] == ['5', '1', '2', '1', '1', '1', '1']


def test_the_worst_come_first_and_images_without_errors_not_at_all(two_images):
    right = diagnose(make_result([(HERE, 0, 0)], [(HERE, 0, 0.9)]))
    surer = diagnose(make_result([], [(HERE, 0, 0.8)]))
    less_sure = diagnose(make_result([], [(HERE, 0, 0.4)]))
    missed, everything = two_images
    ranked = worst([right, missed, less_sure, everything, surer], 9)
    assert [id(d) for d in ranked] == [id(d) for d in (everything, surer, less_sure, missed)]
    assert len(worst([missed, everything], 1)) == 1


def test_what_is_written_at_each_mark(two_images):
    drawn = [(kind, text) for kind, _, text in marks(two_images[1], CLASSES)]
    assert sorted(drawn) == [
        ('badly placed', 'cow 0.60, IoU 0.33'),
        ('confused', 'cow 0.80, is dog'),
        ('duplicate', 'cat 0.70'),
        ('false', 'dog 0.50'),
        ('found', ''),
        ('missed', 'cat'),
    ]


def test_the_images(two_images):
    counts = count_by_class(two_images, 3)
    sheet = draw_sheet(two_images, total(counts), CLASSES, 'Errors')
    titles = [axes.get_title() for axes in sheet.axes]
    assert titles[0] == 'all.png: 1 missed'
    assert titles[1] == 'all.png: 1 confused, 1 badly placed, 1 duplicate, 1 false, 1 missed'
    (legend,) = sheet.legends
    entries = [text.get_text() for text in legend.get_texts()]
    assert 'missed (2 in all)' in entries and 'found (1 in all)' in entries

    bars = draw_counts(counts, CLASSES, 'Counts')
    left, right = bars.axes
    lengths = [sum(p.get_width() for p in bar.patches) for bar in left.containers]
    assert lengths == [1, 1, 1, 2]  # found, confused, badly placed, missed
    assert [t.get_text() for t in right.get_yticklabels()] == list(CLASSES)
