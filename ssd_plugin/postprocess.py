"""From scores and boxes to detections: score filter, NMS by class, the best of each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mmcv.ops import batched_nms as mmcv_batched_nms
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import batched_nms


class Candidates(NamedTuple):
    """(prior, class) pairs of a batch that passed the score filter, N in all."""

    image: Tensor  # (N,) int64
    label: Tensor  # (N,) int64
    prior: Tensor  # (N,) int64
    score: Tensor  # (N,)


def filter_scores(scores: Tensor, score_thr: float, nms_pre: int) -> Candidates:
    """Keep scores above the threshold, at most ``nms_pre`` of each class in each image.

    Args:
        scores: (B, P, C), without background.
        score_thr: Scores must be greater.
        nms_pre: How many a class keeps, the highest; no limit where negative.

    Returns:
        The pairs that are left.
    """
    by_class = scores.transpose(1, 2)  # (B, C, P)
    num_priors = by_class.size(2)
    keep = min(nms_pre, num_priors) if nms_pre >= 0 else num_priors
    top, prior = by_class.topk(keep, dim=2)  # (B, C, keep)
    image, label, rank = (top > score_thr).nonzero(as_tuple=True)
    return Candidates(image, label, prior[image, label, rank], top[image, label, rank])


def nms_by_class(
    bboxes: Tensor, candidates: Candidates, num_classes: int, nms: dict
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression of all images and classes at once.

    Args:
        bboxes: (N, 4) xyxy in pixels, a box for each candidate.
        candidates: What they stand for.
        num_classes: C.
        nms: ``dict(type='nms', iou_threshold=...)``, or another that MMCV knows.
            ``class_agnostic=True`` lets the classes of an image compete.

    Returns:
        (N',) indices of those that are left, highest score first, and their (N',) scores, which
        some kinds of NMS lower.
    """
    nms = dict(nms)
    groups = candidates.image
    if not nms.pop('class_agnostic', False):
        groups = groups * num_classes + candidates.label
    if nms.get('type', 'nms') == 'nms' and nms.keys() <= {'type', 'iou_threshold'}:
        # Groups are kept apart by moving each to a place of its own; in float32 the far ones
        # would lose the decimals on which an overlap near the threshold depends.
        keep = batched_nms(bboxes.double(), candidates.score.double(), groups, nms['iou_threshold'])
        return keep, candidates.score[keep]
    dets, keep = mmcv_batched_nms(bboxes, candidates.score, groups, nms)
    return keep, dets[:, 4]


def detect(
    scores: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    test_cfg: dict,
    with_nms: bool = True,
) -> list[InstanceData]:
    """Detections of B images (paper, section 3.1 "Inference time").

    1. Keep scores above ``score_thr``, at most the ``nms_pre`` highest of each class.
    2. Decode the boxes of those only.
    3. NMS within each class of each image.
    4. Keep the ``max_per_img`` highest of each image, by score.

    Args:
        scores: (B, P, C) probabilities, without background.
        decode: Takes (N,) image and (N,) prior indices, gives their (N, 4) boxes.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms`` and ``max_per_img``.
        with_nms: False leaves out steps 3 and 4.

    Returns:
        For each image ``bboxes`` (n, 4), ``scores`` (n,) and ``labels`` (n,), highest first.
    """
    batch, _, num_classes = scores.shape
    found = filter_scores(scores, test_cfg.get('score_thr', 0), test_cfg.get('nms_pre', -1))
    bboxes = decode(found.image, found.prior)
    if with_nms and len(bboxes):
        keep, score = nms_by_class(bboxes, found, num_classes, test_cfg['nms'])
    else:
        score, keep = found.score.sort(descending=True, stable=True)
    results = InstanceData(
        bboxes=bboxes[keep], scores=score, labels=found.label[keep], image=found.image[keep]
    )
    limit = test_cfg.get('max_per_img', -1) if with_nms else -1
    return [_of_image(results, index, limit) for index in range(batch)]


def _of_image(results: InstanceData, index: int, limit: int) -> InstanceData:
    mine = results[results.image == index]
    mine.pop('image')
    return mine[:limit] if limit >= 0 else mine
