"""Made-up detections beside their ground truth, and VOC's evaluation of them as a naive loop."""

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from ssd_plugin.evaluation.results import Result
from tests.support.helpers import iou


def make_result(gts, detections, path='a.jpg'):
    """An image from ground truth (box, label, ignored) and detections (box, label, score)."""
    detections = sorted(detections, key=lambda d: -d[2])
    return Result(
        path,
        np.array([gt[0] for gt in gts], dtype=np.float64).reshape(-1, 4),
        np.array([gt[1] for gt in gts], dtype=np.int64),
        np.array([bool(gt[2]) for gt in gts], dtype=bool),
        np.array([d[0] for d in detections], dtype=np.float32).reshape(-1, 4),
        np.array([d[1] for d in detections], dtype=np.int64),
        np.array([d[2] for d in detections], dtype=np.float32),
    )


def as_instances(bboxes, labels, **scores):
    return InstanceData(
        bboxes=torch.as_tensor(bboxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.as_tensor(labels, dtype=torch.int64),
        **{key: torch.as_tensor(value, dtype=torch.float32) for key, value in scores.items()},
    )


def evaluate(results, classes, **options):
    """VOCDetMetric on images with ground truth and detections."""
    evaluator = Evaluator(dict(type='VOCDetMetric', **options))
    evaluator.dataset_meta = dict(classes=classes)
    for r in results:
        kept, ignored = (
            as_instances(r.gt_bboxes[mask], r.gt_labels[mask])
            for mask in (~r.gt_ignored, r.gt_ignored)
        )
        found = as_instances(r.det_bboxes, r.det_labels, scores=r.det_scores)
        sample = dict(gt_instances=kept, ignored_instances=ignored, pred_instances=found)
        evaluator.process([sample])
    return evaluator.evaluate(len(results))


def naive_voc_curve(results, label, extra=1, iou_thr=0.5):
    """Recall and precision after each detection of a class, as VOC's development kit has them.

    ``extra`` is what the kit adds to x2 and y2: the last pixel is part of a box. Answers None for
    a class without ground truth.
    """

    def wider(box):
        return [box[0], box[1], box[2] + extra, box[3] + extra]

    total = sum(int(((r.gt_labels == label) & ~r.gt_ignored).sum()) for r in results)
    if total == 0:
        return None
    detections = [
        (float(score), number, box)
        for number, r in enumerate(results)
        for box, n, score in zip(r.det_bboxes.tolist(), r.det_labels, r.det_scores)
        if n == label
    ]
    taken, right, wrong, curve = set(), 0, 0, []
    for _, number, box in sorted(detections, key=lambda d: -d[0]):
        r, best, best_g = results[number], 0, None
        for g, gt_box in enumerate(r.gt_bboxes.tolist()):
            if r.gt_labels[g] == label and iou(wider(box), wider(gt_box)) > best:
                best, best_g = iou(wider(box), wider(gt_box)), g
        if best < iou_thr:
            wrong += 1
        elif not r.gt_ignored[best_g]:
            first = (number, best_g) not in taken
            taken.add((number, best_g))
            right, wrong = right + first, wrong + (not first)
        curve.append((right / total, right / max(right + wrong, 1)))
    return curve


def naive_ap(curve, eleven_points):
    """Average precision of a curve, by VOC2007's rule or by the area."""

    def best_precision(recall):
        return max((p for r, p in curve if r >= recall), default=0)

    if eleven_points:
        return sum(best_precision(0.1 * k) for k in range(11)) / 11
    recalls = sorted({r for r, _ in curve})
    steps = zip([0, *recalls], recalls)
    return sum((here - before) * best_precision(here) for before, here in steps)


def image_with_everything(path='a.jpg'):
    """An image with a detection of each kind and a missed box."""
    gts = [([0, 0, 40, 40], 0, 0), ([100, 0, 140, 40], 1, 0), ([0, 100, 40, 140], 2, 0)]
    gts += [([100, 100, 140, 140], 0, 0), ([60, 60, 90, 90], 1, 1)]
    detections = [
        ([0, 0, 40, 40], 0, 0.9),
        ([0, 0, 40, 36], 0, 0.7),
        ([100, 0, 140, 38], 2, 0.8),
        ([20, 100, 60, 140], 2, 0.6),
        ([150, 150, 160, 160], 1, 0.5),
        ([60, 60, 90, 89], 1, 0.95),
    ]
    return make_result(gts, detections, path)
