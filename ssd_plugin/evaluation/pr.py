"""Precision over recall of each class, by the evaluation that a config asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmdet.evaluation import eval_map

from ssd_plugin.evaluation.results import Result


class Rule(NamedTuple):
    """How average precision is computed; VOC's words."""

    iou_thr: float = 0.5
    eval_mode: str = 'area'
    use_legacy_coordinate: bool = False


class Curve(NamedTuple):
    """A class's detections by falling score."""

    name: str
    num_objects: int
    recall: np.ndarray  # (D,) after each detection
    precision: np.ndarray  # (D,)
    scores: np.ndarray  # (D,)
    ap: float

    @property
    def best(self) -> tuple[float, int]:
        """The greatest F1, the harmonic mean of both, and after which detection it is reached."""
        total = self.recall + self.precision
        f1 = 2 * self.recall * self.precision / np.where(total > 0, total, 1)
        index = int(f1.argmax())
        return float(f1[index]), index


def rule_of(evaluator: Mapping | Sequence[Mapping]) -> Rule:
    """The rule of a config's evaluator: that of a VOC metric among them, else one for COCO's boxes.

    Of several IoU thresholds the first counts.
    """
    for metric in [evaluator] if isinstance(evaluator, Mapping) else evaluator:
        if 'VOC' in str(metric['type']):
            iou_thr = metric.get('iou_thrs', 0.5)
            return Rule(
                iou_thr if isinstance(iou_thr, float) else iou_thr[0],
                metric.get('eval_mode', '11points'),
                metric.get('use_legacy_coordinate', True),
            )
    return Rule()


def compute_curves(results: Sequence[Result], classes: Sequence[str], rule: Rule) -> list[Curve]:
    """Curves of the classes that have objects, by MMDetection's ``eval_map``."""
    detections = [
        [
            np.column_stack([r.det_bboxes, r.det_scores])[r.det_labels == label]
            for label in range(len(classes))
        ]
        for r in results
    ]
    annotations = [
        dict(
            bboxes=r.bboxes[~r.ignored],
            labels=r.labels[~r.ignored],
            bboxes_ignore=r.bboxes[r.ignored],
            labels_ignore=r.labels[r.ignored],
        )
        for r in results
    ]
    _, evaluated = eval_map(
        detections,
        annotations,
        iou_thr=rule.iou_thr,
        dataset=list(classes),
        logger='silent',
        eval_mode=rule.eval_mode,
        use_legacy_coordinate=rule.use_legacy_coordinate,
    )
    curves = []
    for label, (name, one) in enumerate(zip(classes, evaluated, strict=True)):
        if one['num_gts']:
            scores = np.concatenate([d[label][:, 4] for d in detections])
            scores = -np.sort(-scores)
            curves.append(
                Curve(
                    name,
                    one['num_gts'],
                    one['recall'],
                    one['precision'],
                    scores,
                    float(one['ap']),
                )
            )
    return curves


def mean_ap(curves: Sequence[Curve]) -> float:
    """The mean over classes that have objects."""
    return float(np.mean([curve.ap for curve in curves]))
