"""Precision over recall of each class."""

import numpy as np
import pytest

from ssd_plugin.evaluation.pr import Curve, Rule, compute_curves, mean_ap, rule_of
from ssd_plugin.visualization.pr import draw_pr
from tests.support.helpers import iou
from tests.visualization.test_errors import make_result

CLASSES = ('cat', 'dog', 'cow')


def random_results(number=6, seed=0):
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(number):
        low = rng.uniform(0, 60, (5, 2))
        boxes = np.concatenate([low, low + rng.uniform(15, 40, (5, 2))], axis=1)
        labels = rng.integers(0, 2, 5)
        objects = [(b, n, i) for b, n, i in zip(boxes, labels, rng.random(5) < 0.2)]
        found = boxes + rng.normal(0, 4, boxes.shape)
        again = boxes + rng.normal(0, 8, boxes.shape)
        detections = [(b, n, rng.random()) for b, n in zip([*found, *again], [*labels, *labels])]
        results.append(make_result(objects, detections))
    return results


def naive_curve(results, label, iou_thr, extra):
    """VOC's rule: detections of a class by falling score, and what becomes of each."""
    total = sum(int(((r.labels == label) & ~r.ignored).sum()) for r in results)
    detections = [
        (float(score), number, box)
        for number, r in enumerate(results)
        for box, n, score in zip(r.det_bboxes.tolist(), r.det_labels, r.det_scores)
        if n == label
    ]

    def wider(box):
        return [box[0], box[1], box[2] + extra, box[3] + extra]

    taken, right, wrong, recall, precision = set(), 0, 0, [], []
    for _, number, box in sorted(detections, key=lambda d: -d[0]):
        r = results[number]
        overlaps = [
            (iou(wider(box), wider(b)), g)
            for g, b in enumerate(r.bboxes.tolist())
            if r.labels[g] == label
        ]
        overlap, g = max(overlaps, default=(0, None))
        if overlap < iou_thr:
            wrong += 1
        elif not r.ignored[g]:
            right, wrong = right + ((number, g) not in taken), wrong + ((number, g) in taken)
            taken.add((number, g))
        recall.append(right / total)
        precision.append(right / max(right + wrong, 1))
    return recall, precision


def area(recall, precision):
    """Area under the curve after precision is made to fall."""
    points = sorted(zip(recall, precision))
    ap, last = 0.0, 0.0
    for i, (r, _) in enumerate(points):
        ap += (r - last) * max(p for _, p in points[i:])
        last = r
    return ap


@pytest.mark.parametrize('legacy', [True, False])
def test_curves_are_those_of_the_naive_loop(legacy):
    results = random_results()
    curves = compute_curves(results, CLASSES, Rule(0.5, 'area', legacy))
    assert [curve.name for curve in curves] == ['cat', 'dog']  # there are no cows
    for label, curve in enumerate(curves):
        recall, precision = naive_curve(results, label, 0.5, extra=int(legacy))
        assert curve.recall == pytest.approx(recall, abs=1e-6)
        assert curve.precision == pytest.approx(precision, abs=1e-6)
        assert curve.ap == pytest.approx(area(recall, precision), abs=1e-5)
        assert len(curve.scores) == len(recall)
        assert (np.diff(curve.scores) <= 0).all()
    assert mean_ap(curves) == pytest.approx(np.mean([curve.ap for curve in curves]))


def test_eleven_points():
    curve = compute_curves(random_results(), CLASSES, Rule(eval_mode='11points'))[0]
    recall, precision = curve.recall, curve.precision
    best = [max(precision[recall >= t], default=0) for t in np.linspace(0, 1, 11)]
    assert curve.ap == pytest.approx(np.mean(best), abs=0.1)  # one threshold may round away


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


def test_a_panel_for_each_class_also_without_detections():
    results = random_results()
    results.append(make_result([([0, 0, 9, 9], 2, 0)], []))
    curves = compute_curves(results, CLASSES, Rule())
    assert curves[2].ap == 0 and len(curves[2].recall) == 0
    figure = draw_pr(curves, 'Precision and recall')
    assert [axes.get_title()[:7] for axes in figure.axes] == ['cat: AP', 'dog: AP', 'cow: AP']
