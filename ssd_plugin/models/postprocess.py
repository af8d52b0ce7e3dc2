"""From scores and deltas to detections: score filter, NMS by class, the best of each image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmcv.ops import batched_nms as mmcv_batched_nms
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import batched_nms

from ssd_plugin.models.boxes import BoxCoder

# Candidates of an image that are looked at first for each detection that may come of it, and by how
# much the number grows where they do not suffice.
SHORTLIST, GROWTH = 2, 16


def detect(
    scores: Tensor,
    deltas: Tensor,
    priors: Tensor,
    coder: BoxCoder,
    test_cfg: dict,
    borders: Tensor | None = None,
    with_nms: bool = True,
) -> list[InstanceData]:
    """Detections of B images (paper, section 3.1 "Inference time").

    1. Keep the scores above ``score_thr``, at most the ``nms_pre`` highest of each class.
    2. Decode the boxes of those only, and clip them to the image.
    3. Suppress boxes that overlap a better one of their class by more than the NMS threshold.
    4. Keep the ``max_per_img`` highest of each image, sorted by score.

    Only a better box can suppress a box. So once ``max_per_img`` of an image's best candidates are
    left after step 3, the other candidates change nothing: the steps begin with a short list, which
    saves most of the time while scores are still spread, and start again where it was too short.

    Priors with a NaN among their scores, and boxes that are not finite, give no detection.

    Args:
        scores: Probabilities (B, P, C) of the classes, without background.
        deltas: Predictions (B, P, 4).
        priors: (P, 4) xyxy in pixels.
        coder: Decodes deltas.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms`` and ``max_per_img``.
        borders: (B, 4), the width, height, width and height in pixels that boxes are clipped to;
            None clips nothing.
        with_nms: False leaves out steps 3 and 4, but for the order.

    Returns:
        For each image ``bboxes`` (n, 4) xyxy in pixels, ``scores`` (n,) and ``labels`` (n,).
    """
    batch, most, num_classes = scores.shape
    limit = test_cfg.get('max_per_img', -1) if with_nms else -1
    if limit >= 0 and is_plain_nms(test_cfg['nms']):
        most = SHORTLIST * max(limit, 1)
    score_thr, nms_pre = test_cfg.get('score_thr', 0), test_cfg.get('nms_pre', -1)
    while True:
        found, complete = filter_scores(scores, score_thr, nms_pre, most)
        bboxes = coder.decode(priors[found.prior], deltas[found.image, found.prior])  # (N, 4)
        if borders is not None:
            bboxes = bboxes.clamp(min=0).minimum(borders[found.image])
        finite = bboxes.isfinite().all(1)
        found, bboxes = found.select(finite), bboxes[finite]
        if with_nms:
            keep, score = suppress(bboxes, found, num_classes, test_cfg['nms'])
            found, bboxes = found.select(keep)._replace(score=score), bboxes[keep]
        results = best_of_each_image(found, bboxes, batch, limit)
        if all(done or len(one) == limit for done, one in zip(complete, results, strict=True)):
            return results
        most *= GROWTH


class Candidates(NamedTuple):
    """(prior, class) pairs of a batch, N in all."""

    image: Tensor  # (N,) int64
    prior: Tensor  # (N,) int64
    label: Tensor  # (N,) int64
    score: Tensor  # (N,)

    def select(self, index: Tensor) -> Candidates:
        """Some of the pairs, by a mask (N,) bool or by indices (N',) int64."""
        return Candidates(*(values[index] for values in self))


def filter_scores(
    scores: Tensor, score_thr: float, nms_pre: int, most: int
) -> tuple[Candidates, list[bool]]:
    """Keep the best scores of each image that are above a threshold.

    Of a prior with a NaN, none is kept. Among equal scores, the first priors count as the highest.

    Args:
        scores: (B, P, C).
        score_thr: Scores must be greater.
        nms_pre: How many of a class are kept, the highest; a negative number keeps all.
        most: How many priors of an image are looked at, those with the best scores. Of the others
            no score is better than the worst that is kept.

    Returns:
        The pairs, and for each image whether no other prior has a score above the threshold.
    """
    best = scores.amax(-1)  # (B, P), NaN if a score of the prior is NaN
    best = best.where(best > score_thr, -torch.inf)
    last = best.new_full((len(best), 1), -torch.inf)
    if most < best.size(1):
        last = best.topk(most).values[:, -1:]  # (B, 1)
    complete = last.isneginf().flatten().tolist()
    image, prior = (best.isfinite() & (best >= last)).nonzero(as_tuple=True)  # (n,)
    values = scores[image, prior]  # (n, C)
    row, label = ((values > score_thr) & (values >= last[image])).nonzero(as_tuple=True)  # (N,)
    image, prior = image[row], prior[row]
    found = Candidates(image, prior, label, scores[image, prior, label])
    group = image * scores.size(2) + label
    if nms_pre < 0 or len(group) == 0 or group.bincount().max() <= nms_pre:
        return found, complete
    by_score = found.score.argsort(descending=True, stable=True)
    by_group, order = group[by_score].sort(stable=True)
    # The position of each pair within its group, which the sorted groups begin at.
    rank = torch.arange(len(group), device=group.device) - torch.searchsorted(by_group, by_group)
    return found.select(by_score[order[rank < nms_pre]].sort().values), complete


def suppress(
    bboxes: Tensor, found: Candidates, num_classes: int, nms: dict
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression within the classes of each image.

    Args:
        bboxes: (N, 4) xyxy in pixels.
        found: The pairs that the boxes belong to.
        num_classes: C.
        nms: ``dict(type='nms', iou_threshold=...)``, or another that MMCV knows.
            ``class_agnostic=True`` lets all classes of an image compete.

    Returns:
        (N',) indices of the boxes that are left, and their (N',) scores, which some kinds of NMS
        lower.
    """
    nms = dict(nms)
    group = found.image
    if not nms.pop('class_agnostic', False):
        group = group * num_classes + found.label
    if len(bboxes) == 0:
        return group, found.score
    if not is_plain_nms(nms):
        dets, keep = mmcv_batched_nms(bboxes, found.score, group, nms)
        return keep, dets[:, 4]
    # torchvision moves each group to a place of its own. There, in float32, boxes would lose the
    # decimals on which an IoU near the threshold depends.
    keep = batched_nms(bboxes.double(), found.score.double(), group, nms['iou_threshold'])
    return keep, found.score[keep]


def check_nms(test_cfg: dict) -> None:
    """Raise a ValueError unless a ``test_cfg`` says which NMS to do."""
    nms = test_cfg.get('nms') or {}
    if not {'iou_threshold', 'iou_thr'} & nms.keys():
        wanted = "nms=dict(type='nms', iou_threshold=0.45)"
        raise ValueError(f'model.test_cfg has nms={nms or None}; the paper has {wanted}')


def is_plain_nms(nms: dict) -> bool:
    """Whether this is the usual NMS, which removes boxes and leaves the others as they are."""
    known = {'type', 'iou_threshold', 'class_agnostic'}
    return nms.get('type', 'nms') == 'nms' and nms.keys() <= known


def best_of_each_image(
    found: Candidates, bboxes: Tensor, batch: int, limit: int
) -> list[InstanceData]:
    """Split N detections by image, sorted by score; at most ``limit`` each, if not negative."""
    by_score = found.score.argsort(descending=True, stable=True)
    order = by_score[found.image[by_score].argsort(stable=True)]
    counts = found.image.bincount(minlength=batch).tolist()
    fields = bboxes[order], found.score[order], found.label[order]
    last = limit if limit >= 0 else None
    return [
        InstanceData(bboxes=boxes[:last], scores=scores[:last], labels=labels[:last])
        for boxes, scores, labels in zip(*(values.split(counts) for values in fields), strict=True)
    ]
