"""Precision over recall of each class."""

import numpy as np
import pytest

from ssd_plugin.evaluation.pr import Curve, Rule, compute_curves, mean_ap, rule_of
from tests.support.detections import make_result, naive_ap, naive_voc_curve

CLASSES = ('cat', 'dog', 'cow')


def random_results(number=6, seed=0):
    """Images with cats and dogs, each of which is detected twice, and not well."""
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(number):
        low = rng.uniform(0, 60, (5, 2))
        boxes = np.concatenate([low, low + rng.uniform(15, 40, (5, 2))], axis=1)
        labels = rng.integers(0, 2, 5)
        found = np.concatenate([boxes + rng.normal(0, spread, boxes.shape) for spread in (4, 8)])
        results.append(
            make_result(
                [*zip(boxes, labels, rng.random(5) < 0.2)],
                [*zip(found, np.tile(labels, 2), rng.random(10))],
            )
        )
    return results


@pytest.mark.parametrize('legacy', [True, False])
@pytest.mark.parametrize('mode', ['area', '11points'])
def test_curves_are_those_of_the_naive_loop(legacy, mode):
    results = random_results()
    curves = compute_curves(results, CLASSES, Rule(0.5, mode, legacy))
    assert [curve.name for curve in curves] == ['cat', 'dog']  # there are no cows
    for label, curve in enumerate(curves):
        expected = naive_voc_curve(results, label, extra=int(legacy))
        assert [*zip(curve.recall, curve.precision)] == pytest.approx(np.array(expected), abs=1e-6)
        # With eleven points, one threshold may round away.
        accuracy = 1e-5 if mode == 'area' else 0.1
        assert curve.ap == pytest.approx(naive_ap(expected, mode == '11points'), abs=accuracy)
        assert len(curve.scores) == len(expected)
        assert (np.diff(curve.scores) <= 0).all()
    assert mean_ap(curves) == pytest.approx(np.mean([curve.ap for curve in curves]))


def test_a_class_may_have_no_detections():
    (curve,) = compute_curves([make_result([([0, 0, 9, 9], 2, 0)], [])], CLASSES, Rule())
    assert (curve.name, curve.ap, len(curve.recall)) == ('cow', 0, 0)


def test_the_best_f1():
    curve = Curve('cat', 4, np.array([0.25, 0.5, 0.5]), np.array([1, 1, 0.67]), np.ones(3), 0.5)
    assert curve.best == (pytest.approx(2 / 3), 1)
    nothing = Curve('cat', 4, np.zeros(2), np.zeros(2), np.ones(2), 0.0)
    assert nothing.best == (0, 0)


def test_the_rule_is_that_of_the_evaluator():
    assert rule_of(dict(type='VOCMetric', metric='mAP')) == Rule(0.5, '11points', True)
    coco = dict(type='CocoMetric', metric='bbox')
    assert rule_of(coco) == Rule(0.5, 'area', False)
    voc = dict(type='VOCDetMetric', iou_thrs=[0.75, 0.5], eval_mode='area')
    assert rule_of([coco, voc]) == Rule(0.75, 'area', True)
    voc['use_legacy_coordinate'] = False
    assert rule_of(voc) == Rule(0.75, 'area', False)
