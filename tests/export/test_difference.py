"""Comparing the detections of two detectors."""

import pytest
import torch
from mmengine.structures import InstanceData

from ssd_plugin.export.check import Difference, compare

TEST_CFG = dict(score_thr=0.1, nms=dict(type='nms', iou_threshold=0.5), max_per_img=4)
BOXES = [[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
SCORES, LABELS = [0.9, 0.8, 0.7], [0, 1, 0]


def detections(bboxes=BOXES, scores=SCORES, labels=LABELS):
    return InstanceData(
        bboxes=torch.tensor(bboxes).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.int64),
    )


def single(box, score):
    return detections([box], [score], [0])


ALL, NOTHING = detections(), detections([], [], [])
ASIDE, BROKEN = (
    [2.5, 0, 12.5, 10],
    [float('nan')] * 4,
)  # ASIDE has an IoU of 0.6 with the first
INSIDE = [[0.0, 0, 20, 10], [0, 0, 10, 10]]  # their IoU is the threshold
FOUR = detections([*BOXES, [60, 0, 70, 10]], [*SCORES, 0.6], [*LABELS, 1])
FIFTH = detections([*BOXES, [80, 0, 90, 10]], [*SCORES, 0.60005], [*LABELS, 1])
OF_TWO_CLASSES = detections(INSIDE, SCORES[:2], [0, 1]), single(INSIDE[0], 0.9)

# Two detectors' detections; how many have no partner, and how many of these rounding may explain.
PAIRS = {
    'the same': (ALL, ALL, 0, 0),
    'nothing': (NOTHING, NOTHING, 0, 0),
    'equal scores in another order': (
        detections(BOXES, [0.9] * 3, [0] * 3), detections(BOXES[::-1], [0.9] * 3, [0] * 3), 0, 0,
    ),
    'the first is missing': (ALL, ALL[1:], 1, 0),
    'the second is missing': (ALL, ALL[[0, 2]], 1, 0),
    'the last is missing': (ALL, ALL[:2], 1, 0),
    'another label': (ALL, detections(labels=[0, 0, 0]), 2, 0),
    'another place': (ALL, detections([[5.0, 0, 15, 10], *BOXES[1:]]), 2, 0),
    'a broken box': (ALL, detections([BROKEN, *BOXES[1:]]), 2, 0),
    'a score just above score_thr': (detections(scores=[0.9, 0.8, 0.10005]), ALL[:2], 0, 1),
    'four of five candidates': (FIFTH, FOUR, 0, 2),
    'rivals with equal scores': (single(BOXES[0], 0.9), single(ASIDE, 0.90005), 0, 2),
    'rivals with other scores': (single(BOXES[0], 0.9), single(ASIDE, 0.92), 2, 0),
    'an IoU at the threshold': (
        detections(INSIDE, SCORES[:2], [0, 0]), single(INSIDE[0], 0.9), 0, 1,
    ),
    'the same of two classes': (*OF_TWO_CLASSES, 1, 0),
}  # fmt: skip


@pytest.mark.parametrize('one, other, unmatched, borderline', PAIRS.values(), ids=PAIRS)
def test_what_only_one_side_has_is_told_unless_rounding_may_explain_it(
    one, other, unmatched, borderline
):
    for pair in ((one, other), (other, one)):
        difference = compare(*pair, TEST_CFG)
        assert difference == Difference(len(pair[0]), *difference[1:3], unmatched, borderline)
        assert difference.is_small == (unmatched == 0)
        assert ('of a threshold' in str(difference)) == (borderline > 0)
        assert difference.boxes == 0 and difference.scores == 0


def test_boxes_of_other_classes_excuse_where_classes_compete():
    competing = dict(TEST_CFG, nms=dict(TEST_CFG['nms'], class_agnostic=True))
    assert compare(*OF_TWO_CLASSES, competing).unmatched == 0


def test_the_largest_differences_are_told():
    moved = [[0.0, 0, 10, 10.25], [20, 0, 30, 10], [40, 0.5, 50, 10]]
    difference = compare(ALL, detections(moved, [0.9, 0.804, 0.7]), TEST_CFG)
    assert difference == Difference(3, 0.5, pytest.approx(0.004, abs=1e-6), 0, 0)
    assert not difference.is_small


@pytest.mark.parametrize(
    'boxes, scores, small',
    [(0.009, 9e-5, True), (0.011, 0, False), (0, 1.1e-4, False), (float('nan'), 0, False)],
)
def test_the_tolerances_are_those_of_the_contract(boxes, scores, small):
    assert Difference(1, boxes, scores, 0, 0).is_small == small


def test_the_total_of_several_images():
    parts = [Difference(3, 0.1, 0.02, 1, 0), Difference(2, 0.3, 0.01, 0, 2)]
    assert Difference.total(parts) == Difference(5, 0.3, 0.02, 1, 2)
