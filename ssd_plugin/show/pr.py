"""Precision over recall of each class, by the evaluation that a config asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmdet.evaluation import eval_map

from .detections import Result
from .style import BLUE, FONT, ORANGE

PANEL, MAX_COLUMNS = 2.7, 6  # inches


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


def draw_pr(curves: Sequence[Curve], title: str) -> Figure:
    """A panel for each class.

    Args:
        curves: At least one.
        title: Of the whole.
    """
    columns = min(len(curves), MAX_COLUMNS, max(3, ceil(len(curves) ** 0.5)))
    rows = ceil(len(curves) / columns)
    figure = Figure(figsize=(PANEL * columns, (PANEL + 0.4) * rows + 0.8), layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, curve in zip(panels.ravel(), curves):
        _draw_curve(axes, curve)
    for axes in panels.ravel()[len(curves) :]:
        axes.axis('off')
    for axes in panels.ravel()[max(len(curves) - columns, 0) : len(curves)]:
        axes.tick_params(labelbottom=True)  # the last in its column
    figure.supxlabel('recall', fontsize=FONT + 2)
    figure.supylabel('precision', fontsize=FONT + 2)
    figure.suptitle(title, fontsize=13, fontweight='bold')
    return figure


def _draw_curve(axes: Axes, curve: Curve) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(labelsize=FONT)
    axes.grid(color='#e5e5e5')
    axes.set_axisbelow(True)
    title = f'{curve.name}: AP {curve.ap:.3f}'
    axes.set_title(title, fontsize=FONT + 1, fontweight='bold')
    note = f'{curve.num_objects} objects, no detections'
    if len(curve.recall):
        recall = np.concatenate([[0], curve.recall])
        precision = np.concatenate([curve.precision[:1], curve.precision])
        axes.fill_between(recall, precision, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(recall, precision, color=BLUE, linewidth=1.8)
        f1, index = curve.best
        axes.plot(
            curve.recall[index],
            curve.precision[index],
            marker='o',
            markersize=8,
            color=ORANGE,
            markeredgecolor='black',
            clip_on=False,
        )
        note = f'{curve.num_objects} objects\nbest F1 {f1:.2f}, score {curve.scores[index]:.2f}'
    axes.text(
        0.04,
        0.05,
        note,
        fontsize=FONT - 1,
        transform=axes.transAxes,
        bbox=dict(facecolor='white', edgecolor='none', alpha=0.8, pad=1.5),
    )
