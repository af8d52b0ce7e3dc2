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


def test_nothing_differs_from_itself():
    difference = compare(detections(), detections(), TEST_CFG)
    assert difference == Difference(3, 0, 0, 0, 0) and difference.is_small
    nothing = detections([], [], [])
    assert compare(nothing, nothing, TEST_CFG) == Difference(0, 0, 0, 0, 0)


def test_the_order_of_equal_scores_does_not_matter():
    scores, labels = [0.9] * 3, [0] * 3
    one, other = detections(BOXES, scores, labels), detections(BOXES[::-1], scores, labels)
    assert compare(one, other, TEST_CFG) == Difference(3, 0, 0, 0, 0)


def test_the_largest_differences_are_told():
    moved = [[0.0, 0, 10, 10.25], [20, 0, 30, 10], [40, 0.5, 50, 10]]
    difference = compare(detections(), detections(moved, [0.9, 0.804, 0.7]), TEST_CFG)
    assert difference.boxes == 0.5
    assert difference.scores == pytest.approx(0.004, abs=1e-6)
    assert difference.unmatched == difference.borderline == 0
    assert not difference.is_small


@pytest.mark.parametrize(
    'boxes, scores, small',
    [(0.009, 9e-5, True), (0.011, 0, False), (0, 1.1e-4, False), (float('nan'), 0, False)],
)
def test_the_tolerances_are_those_of_the_contract(boxes, scores, small):
    assert Difference(1, boxes, scores, 0, 0).is_small == small


@pytest.mark.parametrize('index', range(3))
def test_a_missing_detection_is_told_on_either_side(index):
    fewer = detections()[torch.arange(3) != index]
    for pair in ((detections(), fewer), (fewer, detections())):
        difference = compare(*pair, TEST_CFG)
        assert (difference.unmatched, difference.borderline) == (1, 0)
        assert not difference.is_small


def test_another_label_or_place_is_another_detection():
    for other in (detections(labels=[0, 0, 0]), detections([[5.0, 0, 15, 10], *BOXES[1:]])):
        assert compare(detections(), other, TEST_CFG).unmatched == 2


def test_a_broken_detection_is_another():
    broken = detections([[float('nan')] * 4, *BOXES[1:]])
    assert compare(detections(), broken, TEST_CFG).unmatched == 2


def near_threshold():
    """Pairs of detections of which rounding may account for the last one of the first."""
    first = detections()
    yield detections(scores=[0.9, 0.8, 0.10005]), first[:2]  # above score_thr by half the tolerance
    four = detections([*BOXES, [60, 0, 70, 10]], [0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1])
    five = detections([*BOXES, [80, 0, 90, 10]], [0.9, 0.8, 0.7, 0.60005], [0, 1, 0, 1])
    yield five, four  # of five candidates four were kept
    # The IoU is 0.6, and the scores are equal but for rounding.
    boxes = [[[0.0, 0, 10, 10]], [[2.5, 0, 12.5, 10]]]
    yield tuple(detections(box, [score], [0]) for box, score in zip(boxes, (0.9, 0.90005)))
    # 10 x 10 pixels in 20 x 10: the IoU is the threshold.
    boxes, labels = [[0.0, 0, 20, 10], [0, 0, 10, 10]], [0, 0]
    yield detections(boxes, [0.9, 0.8], labels), detections(boxes[:1], [0.9], [0])


@pytest.mark.parametrize('pair', [*near_threshold()], ids=['score', 'number', 'rivals', 'overlap'])
def test_a_threshold_excuses_what_it_is_near_to(pair):
    difference = compare(*pair, TEST_CFG)
    assert difference.unmatched == 0 and difference.borderline >= 1 and difference.is_small
    assert 'of a threshold' in str(difference)


def test_boxes_of_other_classes_excuse_only_where_classes_compete():
    boxes = [[0.0, 0, 20, 10], [0, 0, 10, 10]]
    pair = detections(boxes, [0.9, 0.8], [0, 1]), detections(boxes[:1], [0.9], [0])
    assert compare(*pair, TEST_CFG).unmatched == 1
    competing = dict(TEST_CFG, nms=dict(TEST_CFG['nms'], class_agnostic=True))
    assert compare(*pair, competing).unmatched == 0


def test_a_box_with_a_higher_score_does_not_stand_for_another():
    boxes = [[[0.0, 0, 10, 10]], [[2.5, 0, 12.5, 10]]]
    pair = [detections(box, [score], [0]) for box, score in zip(boxes, (0.9, 0.92))]
    assert compare(*pair, TEST_CFG).unmatched == 2


def test_the_total_of_several_images():
    parts = [Difference(3, 0.1, 0.02, 1, 0), Difference(2, 0.3, 0.01, 0, 2)]
    assert Difference.total(parts) == Difference(5, 0.3, 0.02, 1, 2)
