"""Precision over recall of each class; test_voc_metric.py compares the curves with a naive loop."""

import numpy as np
import pytest

from ssd_plugin.evaluation.pr import Curve, Rule, best_thresholds, compute_curves, rule_of
from tests.support.detections import make_result

CLASSES = ('cat', 'dog', 'cow')


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


def test_no_other_threshold_has_a_better_f1():
    results = [random_result(seed) for seed in range(6)]
    best = best_thresholds(compute_curves(results, CLASSES, Rule()), CLASSES, 0.3)
    assert list(best) == list(CLASSES)
    for label, name in enumerate(CLASSES[:2]):
        scores = np.concatenate([r.det_scores[r.det_labels == label] for r in results])
        f1 = {score: naive_f1(results, label, score) for score in scores.tolist()}
        assert naive_f1(results, label, best[name]) == max(f1.values()) > 0
        assert len(set(f1.values())) > 5
    assert best['cow'] == 0.3  # which is on no image


def random_result(seed):
    """Boxes on a grid, of which some are found, some with the other class, some twice."""
    random = np.random.default_rng(seed)
    truth = [([40 * i, 0, 40 * i + 30, 30], int(random.integers(2)), 0) for i in range(8)]
    found = []
    for box, label, _ in truth:
        for _ in range(random.integers(3)):
            label = label if random.random() < 0.7 else 1 - label
            found.append((box, label, float(random.random())))
    return make_result(truth, sorted(found, key=lambda detection: -detection[2]))


def naive_f1(results, label, threshold):
    """F1 of the detections with that score or more, each object found once."""
    right = detections = objects = 0
    for r in results:
        wanted = [tuple(box) for box in r.gt_bboxes[r.gt_labels == label]]
        objects += len(wanted)
        kept = (r.det_labels == label) & (r.det_scores >= threshold)
        detections += kept.sum()
        right += len(set(wanted) & {tuple(box) for box in r.det_bboxes[kept]})
    return 2 * right / (objects + detections)
