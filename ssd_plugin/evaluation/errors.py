"""What is wrong with the detections of an image: the kinds of errors, counted and in a table.

Detections with a score of at least ``score_thr`` (0.3) are taken by falling score. Overlap is the
IoU of boxes whose width is x2 - x1. The first rule that applies gives a detection its kind:

1. Of the ground-truth boxes of its class it overlaps one most, by 0.5 or more: it has *found* that
   box, or is a *duplicate* if a detection with a higher score has found it.
2. Of the ground-truth boxes of other classes it overlaps one most, by 0.5 or more: it is
   *confused* with that class.
3. Of the ground-truth boxes of its class it overlaps one most, by 0.1 or more: *badly placed*.
4. Otherwise it is *false*: there is nothing of this class here.

If the ground-truth box is ignored ("difficult", a crowd), a detection to which rule 1 or 2 applies
is *ignored*, too: it counts as neither right nor wrong. Rule 3 disregards ignored boxes.

A ground-truth box that is not ignored is *found*, or else *confused* or *badly placed* if a
detection of that kind refers to it, or else *missed*.

Rule 1 is that of VOC's evaluation. The rest is as in TIDE (arXiv:2008.08115), whose "both" and
"background" errors are *false* here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ssd_plugin.evaluation.results import Result

IOU_THR, NEAR_THR, SCORE_THR = 0.5, 0.1, 0.3  # of rules 1 and 2, of rule 3, of detections

FOUND, DUPLICATE, CONFUSED = 'found', 'duplicate', 'confused'
PLACED, FALSE, MISSED, IGNORED = 'badly placed', 'false', 'missed', 'ignored'
WRONG = (CONFUSED, PLACED, DUPLICATE, FALSE)  # detections
GT_STATES = (FOUND, CONFUSED, PLACED, MISSED)  # a better one before a worse one

MAX_CONFUSIONS = 5  # that are printed


class Diagnosis(NamedTuple):
    """The kind of each detection and the state of each ground-truth box of an image."""

    result: Result  # only with the detections whose score is high enough
    kinds: list[str]  # of the D detections
    gt_inds: np.ndarray  # (D,) int64: the ground-truth box that a kind refers to, or -1
    ious: np.ndarray  # (D,): IoU with it
    gt_states: list[str]  # of the G ground-truth boxes

    @property
    def num_errors(self) -> int:
        """Wrong detections and missed ground-truth boxes."""
        return sum(kind in WRONG for kind in self.kinds) + self.gt_states.count(MISSED)


def diagnose(result: Result, score_thr: float = SCORE_THR) -> Diagnosis:
    """Give each detection of an image its kind and each ground-truth box its state."""
    sure = result.det_scores >= score_thr
    result = result._replace(
        det_bboxes=result.det_bboxes[sure],
        det_labels=result.det_labels[sure],
        det_scores=result.det_scores[sure],
    )
    boxes = (result.det_bboxes, result.gt_bboxes)
    iou = bbox_overlaps(*(torch.from_numpy(b.astype(np.float64)) for b in boxes)).numpy()  # (D, G)
    same = result.det_labels[:, None] == result.gt_labels
    own, own_iou = _best(np.where(same, iou, 0))
    other, other_iou = _best(np.where(same, 0, iou))
    near, near_iou = _best(np.where(same & ~result.gt_ignored, iou, 0))
    kinds, gt_inds, ious, found = [], [], [], set()
    for d in range(len(iou)):
        if own_iou[d] >= IOU_THR:
            g, overlap = own[d], own_iou[d]
            kind = DUPLICATE if g in found else FOUND
            found.add(g)
        elif other_iou[d] >= IOU_THR:
            g, overlap, kind = other[d], other_iou[d], CONFUSED
        elif near_iou[d] >= NEAR_THR:
            g, overlap, kind = near[d], near_iou[d], PLACED
        else:
            g, overlap, kind = -1, 0.0, FALSE
        if g >= 0 and result.gt_ignored[g]:
            kind = IGNORED
        kinds.append(kind)
        gt_inds.append(int(g))
        ious.append(float(overlap))
    gt_states = []
    for g, ignored in enumerate(result.gt_ignored):
        about = [kind for kind, index in zip(kinds, gt_inds) if index == g]
        state = next((state for state in GT_STATES if state in about), MISSED)
        gt_states.append(IGNORED if ignored else state)
    return Diagnosis(result, kinds, np.array(gt_inds, dtype=np.int64), np.array(ious), gt_states)


def _best(iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and value of the maximum of each row, (D,) each; -1 and 0 where nothing overlaps."""
    if iou.shape[1] == 0:
        return np.full(len(iou), -1), np.zeros(len(iou))
    best = iou.argmax(1)
    values = iou[np.arange(len(iou)), best]
    return np.where(values > 0, best, -1), values


class Counts(NamedTuple):
    """How often each kind occurs, in one class or in all."""

    gt_states: Counter
    kinds: Counter  # of detections

    @property
    def num_gts(self) -> int:
        """Ground-truth boxes that are not ignored."""
        return sum(self.gt_states[state] for state in GT_STATES)


def count_by_class(diagnoses: Sequence[Diagnosis], num_classes: int) -> list[Counts]:
    """Counts of each class: of the ground-truth boxes and of the detections with its label."""
    counts = [Counts(Counter(), Counter()) for _ in range(num_classes)]
    for diagnosis in diagnoses:
        for label, state in zip(diagnosis.result.gt_labels, diagnosis.gt_states):
            counts[label].gt_states[state] += 1
        for label, kind in zip(diagnosis.result.det_labels, diagnosis.kinds):
            counts[label].kinds[kind] += 1
    return counts


def total(counts: Sequence[Counts]) -> Counts:
    """The sum over classes."""
    return Counts(*(sum(counters, Counter()) for counters in zip(*counts)))


def worst(diagnoses: Sequence[Diagnosis], number: int) -> list[Diagnosis]:
    """The images with most errors; among equals those whose wrong detections score higher."""

    def badness(diagnosis: Diagnosis) -> tuple[int, float]:
        wrong = [kind in WRONG for kind in diagnosis.kinds]
        return diagnosis.num_errors, float(diagnosis.result.det_scores[wrong].sum())

    return sorted((d for d in diagnoses if d.num_errors), key=badness, reverse=True)[:number]


def confusion_lines(diagnoses: Sequence[Diagnosis], classes: Sequence[str]) -> list[str]:
    """The most frequent confusions, in words."""
    pairs = Counter(
        f'{classes[d.result.gt_labels[g]]} taken for {classes[label]}'
        for d in diagnoses
        for kind, g, label in zip(d.kinds, d.gt_inds, d.result.det_labels)
        if kind == CONFUSED
    )
    return [f'{pair}: {number}' for pair, number in pairs.most_common(MAX_CONFUSIONS)]


def count_table(counts: Sequence[Counts], classes: Sequence[str]) -> Table:
    """Ground-truth boxes and detections of each kind, by class and in all."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column('class', overflow='fold')
    for name in ('objects', FOUND, MISSED, CONFUSED, PLACED, DUPLICATE, FALSE):
        table.add_column(name.replace(' ', '\n'), justify='right')
    for name, one in zip([*classes, 'all'], [*counts, total(counts)], strict=True):
        numbers = [one.num_gts, one.gt_states[FOUND], one.gt_states[MISSED]]
        numbers += [one.kinds[kind] for kind in (CONFUSED, PLACED, DUPLICATE, FALSE)]
        table.add_row(Text(name), *map(str, numbers), end_section=name == classes[-1])
    return table
