"""From scores and boxes to detections: score filter, NMS by class, the best of each image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmcv.ops import batched_nms as mmcv_batched_nms
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from ssd_plugin.models.candidates import Candidates, filter_scores, next_above, pair_up
from ssd_plugin.models.devices import values_are_free
from ssd_plugin.models.small_groups import nms_in_small_groups

# Candidates of an image that are looked at for each detection that may come of it, at first, and by
# how much the number grows where they do not suffice.
SHORTLIST, GROWTH = 2, 16
# torchvision's NMS takes time by the square of the boxes; for this many, on the CPU, about as much
# as a call takes.
BOXES_PER_CALL = 160


def without_nan(candidates: Candidates, bboxes: Tensor) -> tuple[Candidates, Tensor]:
    """Leave out the candidates whose boxes (N, 4) are not finite, and those boxes."""
    if bboxes.sum().isfinite():  # one number to look at; an overflow only makes it look closer
        return candidates, bboxes
    finite = bboxes.isfinite().all(1)
    return Candidates(*(part[finite] for part in candidates[:4]), candidates.is_all), bboxes[finite]


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
        (N',) indices of those that are left, and their (N',) scores, which some kinds of NMS lower.
    """
    nms = dict(nms)
    group = candidates.image
    if not nms.pop('class_agnostic', False):
        group = group * num_classes + candidates.label
    if is_plain(nms):
        keep = grouped_nms(bboxes, candidates.score, group, nms['iou_threshold'])
        return keep, candidates.score[keep]
    dets, keep = mmcv_batched_nms(bboxes, candidates.score, group, nms)
    return keep, dets[:, 4]


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
        (N',) indices of those that are left, in no order.
    """
    sizes = group.bincount() if values_are_free(bboxes) and len(bboxes) else None
    if sizes is not None and sizes.max() <= BOXES_PER_CALL:
        arrays = (values.detach().numpy() for values in (bboxes, scores, group))
        return torch.from_numpy(nms_in_small_groups(*arrays, iou_threshold))
    # Groups are kept apart by moving each to a place of its own; in float32 the far ones would
    # lose the decimals on which an overlap near the threshold depends.
    bboxes, scores = bboxes.double(), scores.double()
    extent = bboxes.max() - bboxes.min() + 1 if len(bboxes) else 0
    bboxes = bboxes + (group * extent).unsqueeze(1)
    if sizes is None:
        return torchvision_nms(bboxes, scores, iou_threshold)
    call = (sizes.cumsum(0) - sizes) // BOXES_PER_CALL  # of each group, by where it starts
    lengths = call.bincount(sizes).long().tolist()
    order = group.argsort(stable=True)
    parts = zip(*(values.split(lengths) for values in (order, bboxes[order], scores[order])))
    return torch.cat([index[torchvision_nms(*dets, iou_threshold)] for index, *dets in parts])


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

    NMS asks of a box only whether a better one is near. So if enough of an image's best
    candidates are left after it, the others would change nothing; the steps are first done with
    a short list, and again with a longer one where it did not suffice.

    Args:
        scores: Probabilities of each class, without background, and prior: (B, C, P).
        decode: Takes (N,) image and (N,) prior indices, gives their (N, 4) boxes.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms`` and ``max_per_img``.
        with_nms: False leaves out steps 3 and 4.

    A prior with a NaN among its scores or offsets finds nothing; nor does one that has a score of
    +inf before softmax, which makes NaN of it. Detections are finite, and the others the same.

    Returns:
        For each image ``bboxes`` (n, 4), ``scores`` (n,) and ``labels`` (n,), highest first.
    """
    # NaN would count as the highest score of all.
    best = scores.amax(1).nan_to_num(nan=-torch.inf)
    score_thr, nms_pre = test_cfg.get('score_thr', 0), test_cfg.get('nms_pre', -1)

    def shortlist(most: int) -> Candidates:
        return filter_scores(scores, best, score_thr, nms_pre, most)

    return detect_listed(shortlist, scores.shape, decode, test_cfg, with_nms)


def detect_among(
    image: Tensor,
    prior: Tensor,
    scores: Tensor,
    shape: tuple[int, int, int],
    decode: Callable[[Tensor, Tensor], Tensor],
    test_cfg: dict,
    with_nms: bool = True,
) -> list[InstanceData]:
    """:func:`detect` where only these priors can have a score above the threshold.

    Args:
        image: (n,), ascending.
        prior: (n,), ascending in an image.
        scores: Probabilities of each class, without background, (n, C).
        shape: (B, C, P).
        decode: As in :func:`detect`; also the rest.
    """
    lowest = scores.new_full((shape[0], 1), next_above(test_cfg.get('score_thr', 0)))
    is_all = torch.ones_like(lowest, dtype=torch.bool).flatten()
    nms_pre = test_cfg.get('nms_pre', -1)

    def shortlist(most: int) -> Candidates:
        return pair_up(image, prior, scores, lowest, is_all, nms_pre, most)

    return detect_listed(shortlist, shape, decode, test_cfg, with_nms)


def detect_listed(
    shortlist: Callable[[int], Candidates],
    shape: tuple[int, int, int],
    decode: Callable[[Tensor, Tensor], Tensor],
    test_cfg: dict,
    with_nms: bool,
) -> list[InstanceData]:
    """The steps of :func:`detect` after the first.

    Args:
        shortlist: Gives the best candidates of each image, about as many as it is asked for.
        shape: (B, C, P).
        decode: As in :func:`detect`; also the rest.
    """
    batch, num_classes, num_priors = shape
    most = num_classes * num_priors
    limit = test_cfg.get('max_per_img', -1) if with_nms else -1
    if limit >= 0 and is_plain(test_cfg['nms']):
        most = SHORTLIST * max(limit, 1)
    while True:
        found = shortlist(most)
        bboxes = decode(found.image, found.prior)
        found, bboxes = without_nan(found, bboxes)
        keep, score = torch.arange(len(bboxes), device=bboxes.device), found.score
        if with_nms and len(bboxes):
            keep, score = nms_by_class(bboxes, found, num_classes, test_cfg['nms'])
        sizes = found.image[keep].bincount(minlength=batch)
        lengths, is_all = torch.stack([sizes, found.is_all]).tolist()
        if limit < 0 or all(a or n >= limit for a, n in zip(is_all, lengths, strict=True)):
            break
        most *= GROWTH
    # By image, in an image by score: no score is above 1, and double keeps all of its digits.
    order = (2 * found.image[keep] - score.double()).argsort(stable=True)
    keep = keep[order]
    fields = dict(bboxes=bboxes[keep], scores=score[order], labels=found.label[keep])
    limit = limit if limit >= 0 else None
    parts = zip(*(values.split(lengths) for values in fields.values()), strict=True)
    return [
        InstanceData(**{name: values[:limit] for name, values in zip(fields, part, strict=True)})
        for part in parts
    ]
