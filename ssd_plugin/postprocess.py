"""From scores and boxes to detections: score filter, NMS by class, the best of each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from mmcv.ops import batched_nms as mmcv_batched_nms
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from .devices import values_are_free

# Candidates of an image that are looked at for each detection that may come of it, at first, and by
# how much the number grows where they do not suffice.
SHORTLIST, GROWTH = 2, 16
# NMS takes time by the square of the boxes; for this many, on the CPU, about as much as a call.
BOXES_PER_CALL = 640


class Candidates(NamedTuple):
    """(prior, class) pairs of a batch that passed the score filter, N in all.

    Ordered by image, and in an image by score, the highest first.
    """

    image: Tensor  # (N,) int64
    label: Tensor  # (N,) int64
    prior: Tensor  # (N,) int64
    score: Tensor  # (N,)
    is_all: Tensor  # (B,) bool: no other pair of the image would have passed


# Which priors, (B, P) bool with n of them True, to their scores (n, C), without background, and the
# indices (n,) of their images and of themselves.
ScoresOf = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def filter_scores(
    best: Tensor, scores_of: ScoresOf, score_thr: float, nms_pre: int, most: int
) -> Candidates:
    """Keep the best scores of each image, of those above the threshold.

    Args:
        best: Each prior's highest score, (B, P).
        scores_of: Gives the scores of the priors that are looked at.
        score_thr: Scores must be greater.
        nms_pre: How many a class may keep, the highest; no limit where negative.
        most: How many an image may keep, the highest.

    Returns:
        The pairs that are left.
    """
    # The best pairs of an image lie in as many of its priors, those with the best scores.
    last = best.new_full((len(best), 1), -torch.inf)
    if most < best.size(1):
        last = best.topk(most, dim=1).values[:, -1:]  # (B, 1)
    is_all = (last <= score_thr).flatten()
    values, image, prior = scores_of((best > score_thr) & (best >= last))
    row, label = ((values > score_thr) & (values >= last[image])).nonzero(as_tuple=True)

    score, order = values[row, label].sort(descending=True, stable=True)
    image, by_image = image[row[order]].sort(stable=True)
    order = order[by_image]
    found = Candidates(image, label[order], prior[row[order]], score[by_image], is_all)
    sizes = image.bincount(minlength=len(best))
    is_all &= sizes <= most
    within = torch.arange(len(image), device=image.device) < (sizes.cumsum(0) - sizes + most)[image]
    if 0 <= nms_pre < len(image):
        within &= rank_in_group(image * values.size(1) + found.label) < nms_pre
    return Candidates(*(part[within] for part in found[:4]), is_all)


def without_nan(candidates: Candidates, bboxes: Tensor) -> tuple[Candidates, Tensor]:
    """Leave out the candidates whose boxes (N, 4) are not finite, and those boxes."""
    finite = bboxes.isfinite().all(1)
    if finite.all():
        return candidates, bboxes
    return Candidates(*(part[finite] for part in candidates[:4]), candidates.is_all), bboxes[finite]


def rank_in_group(group: Tensor) -> Tensor:
    """How many of the same group stand before each: (N,) int64 to (N,) int64."""
    by_group, order = group.sort(stable=True)
    place = torch.arange(len(group), device=group.device)
    rank = place - torch.searchsorted(by_group, by_group)
    return torch.empty_like(group).scatter_(0, order, rank)


def nms_by_class(
    bboxes: Tensor, candidates: Candidates, num_classes: int, nms: dict
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression within the classes of each image.

    Args:
        bboxes: (N, 4) xyxy in pixels, a box for each candidate.
        candidates: What they stand for.
        num_classes: C.
        nms: ``dict(type='nms', iou_threshold=...)``, or another that MMCV knows.
            ``class_agnostic=True`` lets the classes of an image compete.

    Returns:
        (N',) indices of those that are left, by image and in an image by score, and their (N',)
        scores, which some kinds of NMS lower.
    """
    nms = dict(nms)
    group = candidates.image
    if not nms.pop('class_agnostic', False):
        group = group * num_classes + candidates.label
    if is_plain(nms):
        keep = grouped_nms(bboxes, candidates.score, group, nms['iou_threshold'])
        return keep, candidates.score[keep]
    dets, keep = mmcv_batched_nms(bboxes, candidates.score, group, nms)
    by_image = candidates.image[keep].sort(stable=True).indices  # they came by score
    return keep[by_image], dets[by_image, 4]


def is_plain(nms: dict) -> bool:
    """Whether this is the usual NMS, which takes boxes out and leaves the others as they are."""
    known = {'type', 'iou_threshold', 'class_agnostic'}
    return nms.get('type', 'nms') == 'nms' and nms.keys() <= known


def grouped_nms(bboxes: Tensor, scores: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    """NMS in which only boxes of the same group compete.

    Args:
        bboxes: (N, 4) xyxy.
        scores: (N,).
        group: (N,) int64, not negative.
        iou_threshold: Of two boxes with a larger IoU the one with the lower score leaves.

    Returns:
        (N',) indices of those that are left, ascending.
    """
    # Groups are kept apart by moving each to a place of its own; in float32 the far ones would
    # lose the decimals on which an overlap near the threshold depends.
    bboxes, scores = bboxes.double(), scores.double()
    extent = bboxes.max() - bboxes.min() + 1 if len(bboxes) else 0
    bboxes = bboxes + (group * extent).unsqueeze(1)
    if len(bboxes) <= BOXES_PER_CALL or not values_are_free(bboxes):
        return torchvision_nms(bboxes, scores, iou_threshold).sort().values
    sizes = group.bincount()
    call = (sizes.cumsum(0) - sizes) // BOXES_PER_CALL  # of each group, by where it starts
    parts = group.argsort(stable=True).split(call.bincount(sizes).long().tolist())
    left = [part[torchvision_nms(bboxes[part], scores[part], iou_threshold)] for part in parts]
    return torch.cat(left).sort().values


def detect(
    best: Tensor,
    scores_of: ScoresOf,
    num_classes: int,
    decode: Callable[[Tensor, Tensor], Tensor],
    test_cfg: dict,
    with_nms: bool = True,
) -> list[InstanceData]:
    """Detections of B images (paper, section 3.1 "Inference time").

    1. Keep scores above ``score_thr``, at most the ``nms_pre`` highest of each class.
    2. Decode the boxes of those only.
    3. NMS within each class of each image.
    4. Keep the ``max_per_img`` highest of each image, by score.

    NMS asks of a box only whether a better one is near. So if enough of an image's best
    candidates are left after it, the others would change nothing; the steps are first done with
    a short list, and again with a longer one where it did not suffice.

    Args:
        best: Each prior's highest score, (B, P).
        scores_of: Gives the scores of some priors.
        num_classes: C.
        decode: Takes (N,) image and (N,) prior indices, gives their (N, 4) boxes.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms`` and ``max_per_img``.
        with_nms: False leaves out steps 3 and 4.

    A prior with a NaN among its scores or offsets finds nothing; nor does one that has a score of
    +inf before softmax, which makes NaN of it. Detections are finite, and the others the same.

    Returns:
        For each image ``bboxes`` (n, 4), ``scores`` (n,) and ``labels`` (n,), highest first.
    """
    # NaN would count as the highest score of all.
    best = best.nan_to_num(nan=-torch.inf)
    batch, most = len(best), best.size(1) * num_classes
    limit = test_cfg.get('max_per_img', -1) if with_nms else -1
    if limit >= 0 and is_plain(test_cfg['nms']):
        most = SHORTLIST * max(limit, 1)
    while True:
        found = filter_scores(
            best, scores_of, test_cfg.get('score_thr', 0), test_cfg.get('nms_pre', -1), most
        )
        bboxes = decode(found.image, found.prior)
        found, bboxes = without_nan(found, bboxes)
        score = found.score
        keep = torch.arange(len(bboxes), device=bboxes.device)
        if with_nms and len(bboxes):
            keep, score = nms_by_class(bboxes, found, num_classes, test_cfg['nms'])
        sizes = found.image[keep].bincount(minlength=batch)
        if limit < 0 or (found.is_all | (sizes >= limit)).all():
            break
        most *= GROWTH
    fields = dict(bboxes=bboxes[keep], scores=score, labels=found.label[keep])
    limit = limit if limit >= 0 else None
    parts = zip(*(values.split(sizes.tolist()) for values in fields.values()), strict=True)
    return [
        InstanceData(**{name: values[:limit] for name, values in zip(fields, part, strict=True)})
        for part in parts
    ]
