"""What is wrong with the detections of an image: kinds of errors, and how they are told.

Detections with a score of at least ``score_thr`` (0.3) are taken by falling score; overlap is
IoU, of boxes whose width is x2 - x1. The first rule that fits gives a detection its kind:

1. The object of its class that it overlaps most, by 0.5 or more: it has *found* that object, or
   is a *duplicate* if a surer detection has.
2. The object of another class that it overlaps most, by 0.5 or more: *confused* with that class.
3. The object of its class that it overlaps most, by 0.1 or more: *badly placed*.
4. Else it is *false*: there is nothing of the kind.

If the object is an ignored one ("difficult", a crowd), then after rules 1 and 2 the detection
counts as neither right nor wrong; by rule 3 it is none.

Each object that is not ignored is *found*, or else *confused* or *badly placed* if a detection
of that kind has it as its object, or else *missed*.

Rule 1 is that of VOC's evaluation; the rest is as in TIDE (arXiv:2008.08115), whose "both" and
"background" errors are *false* here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ssd_plugin.evaluation.results import Result
from ssd_plugin.models.boxes import pairwise_iou

IOU_THR, NEAR_THR, SCORE_THR = 0.5, 0.1, 0.3

FOUND, DUPLICATE, CONFUSED = 'found', 'duplicate', 'confused'
PLACED, FALSE, MISSED, IGNORED = 'badly placed', 'false', 'missed', 'ignored'
WRONG = (CONFUSED, PLACED, DUPLICATE, FALSE)  # detections
OBJECT_STATES = (FOUND, CONFUSED, PLACED, MISSED)  # a better one before a worse one


class Diagnosis(NamedTuple):
    """An image's detections and objects, each with its kind."""

    result: Result  # with only those detections whose score is high enough
    kinds: list[str]  # of the D detections
    of_object: np.ndarray  # (D,) int64: the object that a detection's kind is about, -1 for none
    overlaps: np.ndarray  # (D,): IoU with it
    states: list[str]  # of the G objects

    @property
    def num_errors(self) -> int:
        """Wrong detections and missed objects."""
        return sum(kind in WRONG for kind in self.kinds) + self.states.count(MISSED)

    @property
    def badness(self) -> tuple[int, float]:
        """What images are sorted by: errors, then how sure the wrong detections are."""
        wrong = [kind in WRONG for kind in self.kinds]
        return self.num_errors, float(self.result.det_scores[wrong].sum())


def diagnose(
    result: Result,
    score_thr: float = SCORE_THR,
    iou_thr: float = IOU_THR,
    near_thr: float = NEAR_THR,
) -> Diagnosis:
    """Give each detection and each object of an image its kind; see the module.

    Args:
        result: The image.
        score_thr: Detections below are left out.
        iou_thr: Of rules 1 and 2.
        near_thr: Of rule 3.
    """
    sure = result.det_scores >= score_thr
    result = result._replace(
        det_bboxes=result.det_bboxes[sure],
        det_labels=result.det_labels[sure],
        det_scores=result.det_scores[sure],
    )
    iou = _iou(result.det_bboxes, result.bboxes)  # (D, G)
    same = result.det_labels[:, None] == result.labels
    own, own_iou = _best(np.where(same, iou, 0))
    other, other_iou = _best(np.where(same, 0, iou))
    real = ~result.ignored
    # For rule 3 ignored objects do not exist.
    near, near_iou = _best(np.where(same & real, iou, 0))
    kinds, of_object, overlaps, found = [], [], [], set()
    for d in range(len(iou)):
        if own_iou[d] >= iou_thr:
            g, overlap = own[d], own_iou[d]
            kind = DUPLICATE if g in found else FOUND
            found.add(g)
        elif other_iou[d] >= iou_thr:
            g, overlap, kind = other[d], other_iou[d], CONFUSED
        elif near_iou[d] >= near_thr:
            g, overlap, kind = near[d], near_iou[d], PLACED
        else:
            g, overlap, kind = -1, 0.0, FALSE
        if g >= 0 and result.ignored[g]:
            kind = IGNORED
        kinds.append(kind)
        of_object.append(int(g))
        overlaps.append(float(overlap))
    of_object = np.array(of_object, dtype=np.int64)
    states = [
        IGNORED if ignored else _state([kinds[d] for d in np.flatnonzero(of_object == g)])
        for g, ignored in enumerate(result.ignored)
    ]
    return Diagnosis(result, kinds, of_object, np.array(overlaps), states)


class Counts(NamedTuple):
    """How often each kind occurs, in a class or in all."""

    objects: Counter  # by state
    detections: Counter  # by kind

    @property
    def num_objects(self) -> int:
        """Objects to be found."""
        return sum(self.objects[state] for state in OBJECT_STATES)


def count_by_class(diagnoses: Sequence[Diagnosis], num_classes: int) -> list[Counts]:
    """Counts of each class: objects of it, detections that say so."""
    counts = [Counts(Counter(), Counter()) for _ in range(num_classes)]
    for diagnosis in diagnoses:
        for label, state in zip(diagnosis.result.labels, diagnosis.states):
            counts[label].objects[state] += 1
        for label, kind in zip(diagnosis.result.det_labels, diagnosis.kinds):
            counts[label].detections[kind] += 1
    return counts


def total(counts: Sequence[Counts]) -> Counts:
    """The sum over classes."""
    objects = sum((one.objects for one in counts), Counter())
    return Counts(objects, sum((one.detections for one in counts), Counter()))


def confusions(diagnoses: Sequence[Diagnosis]) -> Counter:
    """How often (what it is, what it is taken for) occurs, as labels."""
    return Counter(
        (int(d.result.labels[g]), int(label))
        for d in diagnoses
        for kind, g, label in zip(d.kinds, d.of_object, d.result.det_labels)
        if kind == CONFUSED
    )


def worst(diagnoses: Sequence[Diagnosis], number: int) -> list[Diagnosis]:
    """The images with most errors; of equals those whose wrong detections are surer."""
    ranked = sorted((d for d in diagnoses if d.num_errors), key=lambda d: d.badness, reverse=True)
    return ranked[:number]


def _state(kinds: Sequence[str]) -> str:
    """State of an object from the kinds of the detections that are about it."""
    return next((state for state in OBJECT_STATES if state in kinds), MISSED)


def _iou(bboxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (D, G) of boxes (D, 4) and (G, 4)."""
    first, second = (torch.from_numpy(np.asarray(b, dtype=np.float64)) for b in (bboxes, others))
    return pairwise_iou(first[None], second)[0].numpy()


def _best(iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and IoU of each row's best, (D,) each; -1 and 0 where nothing overlaps."""
    if iou.shape[1] == 0:
        return np.full(len(iou), -1), np.zeros(len(iou))
    best = iou.argmax(1)
    values = iou[np.arange(len(iou)), best]
    return np.where(values > 0, best, -1), values
