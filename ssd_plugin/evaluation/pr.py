"""Precision over recall of each class, by the rule of the config's evaluator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmdet.evaluation import eval_map

from ssd_plugin.evaluation.results import Result


class Rule(NamedTuple):
    """How average precision is computed, as arguments of MMDetection's ``eval_map``."""

    iou_thr: float = 0.5
    eval_mode: str = 'area'
    use_legacy_coordinate: bool = False


class Curve(NamedTuple):
    """Recall and precision of a class after each of its D detections, by falling score."""

    name: str
    num_gts: int  # ground-truth boxes that are not ignored
    recall: np.ndarray  # (D,)
    precision: np.ndarray  # (D,)
    scores: np.ndarray  # (D,)
    ap: float

    @property
    def best(self) -> tuple[float, int]:
        """The highest F1 score, and the index of the detection after which it is reached."""
        total = self.recall + self.precision
        f1 = 2 * self.recall * self.precision / np.where(total > 0, total, 1)
        index = int(f1.argmax())
        return float(f1[index]), index

    @property
    def best_score(self) -> float | None:
        """The score of that detection, or None if no detection is right."""
        if not self.recall.any():
            return None
        return float(self.scores[self.best[1]])


def rule_of(evaluator: Mapping | Sequence[Mapping]) -> Rule:
    """The rule of a config's evaluator: that of its VOC metric, or COCO's where it has none.

    Of several IoU thresholds the first counts.
    """
    for metric in [evaluator] if isinstance(evaluator, Mapping) else evaluator:
        if 'VOC' in str(metric['type']):
            iou_thr = float(np.ravel(metric.get('iou_thrs', 0.5))[0])
            legacy = metric.get('use_legacy_coordinate', True)
            return Rule(iou_thr, metric.get('eval_mode', '11points'), legacy)
    return Rule()


def compute_curves(results: Sequence[Result], classes: Sequence[str], rule: Rule) -> list[Curve]:
    """Curves of the classes that have ground-truth boxes, by MMDetection's ``eval_map``."""
    detections, annotations = [], []
    for r in results:
        rows, kept = np.column_stack([r.det_bboxes, r.det_scores]), ~r.gt_ignored
        detections.append([rows[r.det_labels == label] for label in range(len(classes))])
        truth = dict(bboxes=r.gt_bboxes[kept], labels=r.gt_labels[kept])
        ignored = dict(bboxes_ignore=r.gt_bboxes[~kept], labels_ignore=r.gt_labels[~kept])
        annotations.append(truth | ignored)
    _, evaluated = eval_map(
        detections, annotations, dataset=list(classes), logger='silent', **rule._asdict()
    )
    curves = []
    for label, (name, one) in enumerate(zip(classes, evaluated, strict=True)):
        if one['num_gts']:
            scores = np.sort(np.concatenate([d[label][:, 4] for d in detections]))[::-1]
            ap = float(one['ap'])
            curves.append(Curve(name, one['num_gts'], one['recall'], one['precision'], scores, ap))
    return curves


def mean_ap(curves: Sequence[Curve]) -> float:
    """The mean over the classes that have ground-truth boxes."""
    return float(np.mean([curve.ap for curve in curves]))


def best_thresholds(
    curves: Sequence[Curve], classes: Sequence[str], otherwise: float
) -> dict[str, float]:
    """For each class the score from which on its detections have the best F1 score.

    It is rounded down to six places. A class of which no detection is right has ``otherwise``.
    """
    best = dict.fromkeys(classes, otherwise)
    for curve in curves:
        if curve.best_score is not None:
            best[curve.name] = math.floor(curve.best_score * 1e6) / 1e6
    return best
