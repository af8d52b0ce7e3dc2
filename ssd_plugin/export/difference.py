"""How far the detections of two detectors are apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

BOX_TOLERANCE, SCORE_TOLERANCE = 1e-2, 1e-4  # in pixels of the input, and of a probability
# Boxes that differ by no more than the tolerance change an IoU with others by about so much.
IOU_TOLERANCE = 1e-3
# Two detections that differ by more than so many times the tolerance are not the same.
SAME = 100


class Difference(NamedTuple):
    """Between the detections of two detectors, of the same images."""

    detections: int  # of the first
    boxes: float  # largest difference of the same detection's coordinates, in pixels
    scores: float  # largest difference of its scores
    unmatched: int  # detections that only one of the two has
    borderline: int  # such ones that don't count, since rounding may be the reason

    @classmethod
    def total(cls, parts: Iterable[Difference]) -> Difference:
        """Of several images."""
        detections, boxes, scores, unmatched, borderline = zip(*parts)
        return cls(sum(detections), max(boxes), max(scores), sum(unmatched), sum(borderline))

    @property
    def is_small(self) -> bool:
        """Whether it is within the tolerances, and no detection is missing on either side."""
        within = self.boxes <= BOX_TOLERANCE and self.scores <= SCORE_TOLERANCE
        return within and self.unmatched == 0

    def __str__(self) -> str:
        text = f'{self.detections} detections, boxes differ by up to {self.boxes:.1e} px, '
        text += f'scores by up to {self.scores:.1e}, {self.unmatched} are on one side only'
        if self.borderline:
            text += (
                f' (and {self.borderline} whose score or IoU is that of another or of a threshold)'
            )
        return text


def compare(expected: InstanceData, found: InstanceData, test_cfg: dict) -> Difference:
    """Compare two detectors' detections of an image.

    Detections of the same label are paired so that they differ least, in whatever order they
    come. One without a partner is unmatched, unless a threshold is so near that rounding may
    have taken the partner away: ``score_thr``, the last score that ``max_per_img`` leaves, or
    ``iou_threshold`` with a detection of the other side. Of two boxes that overlap and have the
    same score either may suppress the other: they stand for each other.

    Args:
        expected: ``bboxes`` (n, 4) in pixels, ``scores`` (n,) and ``labels`` (n,).
        found: The same, of m detections.
        test_cfg: The thresholds.
    """
    boxes = (expected.bboxes[:, None] - found.bboxes).abs().amax(2)  # (n, m)
    scores = (expected.scores[:, None] - found.scores).abs()
    cost = torch.maximum(boxes / BOX_TOLERANCE, scores / SCORE_TOLERANCE)
    rows, columns = pair(cost.where(expected.labels[:, None] == found.labels, torch.inf))
    on_edge = torch.cat(
        [
            is_borderline(without(expected, rows), found, test_cfg),
            is_borderline(without(found, columns), expected, test_cfg),
        ]
    )
    return Difference(
        len(expected.scores),
        max(boxes[rows, columns].tolist(), default=0.0),
        max(scores[rows, columns].tolist(), default=0.0),
        int((~on_edge).sum()),
        int(on_edge.sum()),
    )


def pair(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (k,) of a cost (n, m) in pairs, for the least sum; only costs below SAME."""
    capped = cost.nan_to_num(nan=SAME).clamp(max=SAME)
    rows, columns = map(torch.from_numpy, linear_sum_assignment(capped.double().numpy()))
    same = capped[rows, columns] < SAME
    return rows[same], columns[same]


def without(detections: InstanceData, index: Tensor) -> InstanceData:
    """Those detections that the index doesn't name."""
    left = torch.ones(len(detections.scores), dtype=torch.bool)
    left[index] = False
    return detections[left]


def is_borderline(lone: InstanceData, others: InstanceData, test_cfg: dict) -> Tensor:
    """Which of n detections rounding may have kept from the other side's m: (n,) bool."""
    on_edge = lone.scores <= test_cfg.get('score_thr', 0) + SCORE_TOLERANCE
    if len(others.scores) == 0:
        return on_edge
    if len(others.scores) == test_cfg.get('max_per_img', -1):
        on_edge |= lone.scores <= others.scores.min() + SCORE_TOLERANCE
    ious = bbox_overlaps(lone.bboxes, others.bboxes)  # (n, m)
    over = ious - test_cfg['nms']['iou_threshold']
    equal = (lone.scores[:, None] - others.scores).abs() <= SCORE_TOLERANCE
    near = (over.abs() <= IOU_TOLERANCE) | (equal & (over > 0))
    if not test_cfg['nms'].get('class_agnostic', False):
        near &= lone.labels[:, None] == others.labels
    return on_edge | near.any(1)
