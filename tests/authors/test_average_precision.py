"""Average precision: the numbers of two tests of Caffe's SSD branch.

They are `TestComputeAP` of `test_bbox_util.cpp`, and `test_detection_evaluate_layer.cpp`. Left out
is the integral of the precision as it is ("Integral", 0.558528), which is neither VOC's nor an
option here. Where scores are equal in `TestComputeAP`, the order is that of its list.
"""

import pytest

from ssd_plugin.evaluation.pr import Rule, compute_curves
from tests.support.detections import evaluate, make_result

RIGHT = [0, 1, 1, 0, 1, 0, 1, 0, 0, 0, 1]  # of 5 objects, by falling score
PRECISIONS = [0, 1 / 2, 2 / 3, 2 / 4, 3 / 5, 3 / 6, 4 / 7, 4 / 8, 4 / 9, 4 / 10, 5 / 11]
RECALLS = [0, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8, 0.8, 0.8, 1]
# The authors' Caffe compares recalls with k / 10 and finds 0.598662. VOC's development kit has, in
# VOCevaldet.m of 2007, `for t=0:0.1:1`. MATLAB computes such a t as start + k * step (as a range by
# itself, it would count the second half back from the end): `for t = -1.1:0.1:1.1` has no t >= 0.9
# before 1, which -1.1 + 20 * 0.1 explains and 1.1 - 2 * 0.1 does not. So the sixth t is 6 * 0.1,
# a bit more than the recall of 3 / 5, and in VOC's tools, as in MMDetection and here, the best
# precision from there on is 4 / 7 in place of 3 / 5.
CAFFE_S, VOC_S = 0.598662, 0.598662 - (3 / 5 - 4 / 7) / 11


def detections(right):
    """An image with five objects in a row, and detections of them or of nothing."""
    objects = [[20 * i, 0, 20 * i + 9, 9] for i in range(5)]
    unseen, found = iter(objects), []
    for number, is_right in enumerate(right):
        box = next(unseen) if is_right else [20 * number, 50, 20 * number + 9, 59]
        found.append((box, 0, 1 - number / 20))
    return [make_result([(box, 0, 0) for box in objects], found)]


@pytest.mark.parametrize('count', [11, 7])
def test_precision_and_recall_follow_from_the_detections_that_are_right(count):
    """`TestComputeAP`, of all detections and without the last four."""
    (curve,) = compute_curves(detections(RIGHT[:count]), ['dog'], Rule())
    assert curve.num_gts == 5
    assert curve.precision == pytest.approx(PRECISIONS[:count], abs=1e-5)
    assert curve.recall == pytest.approx(RECALLS[:count], abs=1e-5)


@pytest.mark.parametrize(
    ('mode', 'count', 'expected'),
    [
        ('area', 11, 0.591861),
        ('area', 7, 0.591861 - 5 / 11 * 0.2),
        ('11points', 11, VOC_S),
        ('11points', 7, VOC_S - 5 / 11 * 2 / 11),
    ],
)
def test_average_precision_is_the_area_or_the_mean_of_eleven_points(mode, count, expected):
    """`TestComputeAP`; the area is Caffe's "MaxIntegral"."""
    result = evaluate(detections(RIGHT[:count]), ('dog',), eval_mode=mode)
    assert result['pascal_voc/mAP'] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(('count', 'expected'), [(11, CAFFE_S), (7, CAFFE_S - 5 / 11 * 2 / 11)])
def test_eleven_points_differ_from_caffe_s_only_by_the_thresholds(count, expected):
    """The same curve, compared with tenths."""
    (curve,) = compute_curves(detections(RIGHT[:count]), ['dog'], Rule())
    points = [
        max((p for r, p in zip(curve.recall, curve.precision) if r >= k / 10), default=0)
        for k in range(11)
    ]
    assert sum(points) / 11 == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize('tenths', range(11))
def test_a_recall_of_three_six_or_seven_tenths_misses_its_own_threshold(tenths):
    """VOC's: 3 * 0.1, 6 * 0.1 and 7 * 0.1 exceed 3 / 10, 6 / 10 and 7 / 10."""
    objects = [[20 * i, 0, 20 * i + 9, 9] for i in range(10)]
    found = [(box, 0, 0.9 - number / 20) for number, box in enumerate(objects[:tenths])]
    result = evaluate([make_result([(b, 0, 0) for b in objects], found)], ('dog',))
    reached = tenths + 1 - (tenths in (3, 6, 7)) if tenths else 0
    assert result['pascal_voc/mAP'] == pytest.approx(reached / 11, abs=1e-6)


# Of each image the objects (box, label, difficult) and the detections (box, label, score). Labels
# are Caffe's less one, since its background is 0.
IMAGES = [
    (
        [([0.1, 0.1, 0.3, 0.3], 0, 0), ([0.6, 0.6, 0.8, 0.8], 0, 1)],
        [
            ([0.1, 0.0, 0.4, 0.3], 0, 0.3),
            ([0.0, 0.1, 0.2, 0.3], 0, 0.7),
            ([0.7, 0.6, 0.8, 0.8], 0, 0.9),
        ],
    ),
    (
        [([0.3, 0.3, 0.6, 0.5], 1, 0), ([0.7, 0.1, 0.9, 0.3], 0, 0)],
        [
            ([0.2, 0.1, 0.4, 0.4], 1, 0.8),
            ([0.4, 0.3, 0.7, 0.5], 1, 0.1),
            ([0.8, 0.1, 1.0, 0.3], 0, 0.2),
            ([0.8, 0.1, 1.0, 0.3], 2, 0.2),
        ],
    ),
    ([], [([0.8, 0.1, 1.0, 0.3], 0, 0.2)]),
]
RULE = Rule(iou_thr=0.3, eval_mode='area', use_legacy_coordinate=False)


@pytest.mark.parametrize(
    ('skips_difficult', 'num_objects', 'first_class'),
    [
        # Right and wrong detections of the first class after scores of 0.9, 0.7, 0.3 and 0.2.
        (False, 3, [(1, 0), (2, 0), (2, 1), (3, 2)]),  # TestForward
        (True, 2, [(0, 0), (1, 0), (1, 1), (2, 2)]),  # TestForwardSkipDifficult
    ],
)
def test_a_detection_is_right_or_wrong_or_of_a_difficult_object(
    skips_difficult, num_objects, first_class
):
    """Caffe's `DetectionEvaluate` layer, at an IoU of 0.3; its third class has no object."""
    results = [
        make_result([(box, label, skips_difficult and hard) for box, label, hard in gts], found)
        for gts, found in IMAGES
    ]
    classes = ('one', 'two', 'three')
    one, two = compute_curves(results, classes, RULE)
    expected = dict(one=(one, num_objects, first_class), two=(two, 1, [(0, 1), (1, 1)]))
    for name, (curve, objects, counts) in expected.items():
        assert (curve.name, curve.num_gts) == (name, objects)
        # Of equal scores, only what holds after all of them does not depend on their order.
        last = [i for i, score in enumerate(curve.scores) if score not in curve.scores[i + 1 :]]
        assert curve.recall[last] == pytest.approx([right / objects for right, _ in counts])
        shares = [right / max(right + wrong, 1) for right, wrong in counts]
        assert curve.precision[last] == pytest.approx(shares)
    options = dict(iou_thrs=0.3, eval_mode='area', use_legacy_coordinate=False)
    metric = evaluate(results, classes, **options)
    assert metric['pascal_voc/AP/two'] == pytest.approx(1 / 2)
    assert 'pascal_voc/AP/three' not in metric
