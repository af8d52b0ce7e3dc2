"""Precision over recall of each class; test_voc_metric.py compares the curves with a naive loop."""

import numpy as np
import pytest

from ssd_plugin.evaluation.pr import Curve, Rule, compute_curves, rule_of
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
