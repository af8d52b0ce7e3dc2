"""Matching: which prior learns which ground-truth box, for a whole batch at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners.base_assigner import BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from ssd_plugin.models.boxes import iof, iou, is_valid_box


class BatchAssignResult(NamedTuple):
    """Matches of B images and P priors."""

    gt_inds: Tensor  # (B, P) int64: -1 ignored, 0 background, g + 1 matched to box g
    max_overlaps: Tensor  # (B, P): best IoU of the prior with any box, 0 without boxes
    labels: Tensor  # (B, P) int64: class of the matched box, -1 elsewhere


@TASK_UTILS.register_module()
class BatchMaxIoUAssigner(BaseAssigner):
    """SSD's matching strategy (paper, section 2.2), on a padded batch.

    1. Bipartite: every box gets a prior of its own. Over all (box, prior) pairs of an image, the
       pair with the highest IoU is matched, its box and prior leave, and so on. Hence no box loses
       its prior to another, however low its IoU. A box that overlaps no prior gets none.
    2. Every other prior is matched to its best box where their IoU is >= ``pos_iou_thr``.
    3. Of the rest, priors with a best IoU < ``neg_iou_thr`` are background. The others, and
       background priors that mostly lie in an ignored box, are ignored.

    Boxes that are not valid take no part; see :func:`ssd_plugin.models.boxes.is_valid_box`.

    Args:
        pos_iou_thr: IoU from which a prior is matched in step 2.
        neg_iou_thr: IoU below which an unmatched prior is background.
        bipartite: The rule of step 1. With False each box claims its best prior, and where two
            boxes claim one prior the later box has it, as in MMDetection's ``MaxIoUAssigner`` and
            in ssd.pytorch.
        ignore_iof_thr: Background priors with more than this share of their area inside an
            ignored box are left out of training. With a negative number, none are.

    Raises:
        ValueError: If a threshold is no number, or ``neg_iou_thr`` exceeds ``pos_iou_thr``.
    """

    def __init__(
        self,
        pos_iou_thr: float = 0.5,
        neg_iou_thr: float = 0.5,
        bipartite: bool = True,
        ignore_iof_thr: float = -1,
    ) -> None:
        for name, value in dict(pos_iou_thr=pos_iou_thr, neg_iou_thr=neg_iou_thr).items():
            if not isinstance(value, (int, float)):  # MMDetection's takes two as well
                raise ValueError(f'BatchMaxIoUAssigner: {name} is {value!r}, and not a number')
        if neg_iou_thr > pos_iou_thr:
            excess = f'neg_iou_thr {neg_iou_thr} exceeds pos_iou_thr {pos_iou_thr}'
            raise ValueError(f'BatchMaxIoUAssigner: {excess}')
        self.pos_iou_thr, self.neg_iou_thr = pos_iou_thr, neg_iou_thr
        self.bipartite, self.ignore_iof_thr = bipartite, ignore_iof_thr

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Match one image's priors, by the interface of MMDetection's heads.

        Args:
            pred_instances: ``priors`` (P, 4) xyxy in pixels.
            gt_instances: ``bboxes`` (G, 4) and ``labels`` (G,).
            gt_instances_ignore: ``bboxes`` (I, 4), the ignored boxes.

        Returns:
            MMDetection's result, with ``gt_inds``, ``max_overlaps`` and ``labels`` of shape (P,).
        """
        bboxes = get_box_tensor(gt_instances.bboxes)
        ignored = None
        if gt_instances_ignore is not None:
            ignored = get_box_tensor(gt_instances_ignore.bboxes)[None]
        priors, labels = get_box_tensor(pred_instances.priors), gt_instances.labels[None]
        mask = bboxes.new_ones(1, len(bboxes), dtype=torch.bool)
        result = self.assign_batch(priors, bboxes[None], labels, mask, ignored)
        return AssignResult(len(bboxes), *(values[0] for values in result))

    @torch.no_grad()
    def assign_batch(
        self,
        priors: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        gt_mask: Tensor,
        ignore_bboxes: Tensor | None = None,
    ) -> BatchAssignResult:
        """Match the priors of B images, in float32 whatever the precision of the boxes.

        Args:
            priors: (P, 4) xyxy in pixels.
            gt_bboxes: (B, G, 4) xyxy in pixels; padding may have any values.
            gt_labels: (B, G) int64.
            gt_mask: (B, G) bool, False for padding and for boxes that take no part.
            ignore_bboxes: (B, I, 4) ignored boxes, padded with boxes without area.

        Returns:
            The matches; see :class:`BatchAssignResult`.
        """
        priors, gt_bboxes = priors.float(), gt_bboxes.float()
        batch, num_gts = gt_labels.shape
        if num_gts == 0:
            overlaps = priors.new_zeros(batch, len(priors))
            gt_inds = gt_labels.new_zeros(batch, len(priors))
            labels = torch.full_like(gt_inds, -1)
            return BatchAssignResult(self._ignore(gt_inds, priors, ignore_bboxes), overlaps, labels)
        # Without area, a box has an IoU of 0 with everything and is never matched.
        takes_part = gt_mask & is_valid_box(gt_bboxes)
        gt_bboxes = torch.where(takes_part.unsqueeze(-1), gt_bboxes, 0)
        overlaps = iou(gt_bboxes.unsqueeze(2), priors)  # (B, G, P)
        max_overlaps, best_gt = overlaps.max(dim=1)  # (B, P)

        own_gt = (match_greedily if self.bipartite else match_by_argmax)(overlaps)
        gt_inds = torch.where(max_overlaps < self.neg_iou_thr, 0, -1)
        gt_inds = self._ignore(gt_inds, priors, ignore_bboxes)
        gt_inds = torch.where(max_overlaps >= self.pos_iou_thr, best_gt + 1, gt_inds)
        gt_inds = torch.where(own_gt > 0, own_gt, gt_inds)

        matched_labels = gt_labels.gather(1, (gt_inds - 1).clamp(min=0))
        labels = torch.where(gt_inds > 0, matched_labels, -1)
        return BatchAssignResult(gt_inds, max_overlaps, labels)

    def _ignore(self, gt_inds: Tensor, priors: Tensor, ignore_bboxes: Tensor | None) -> Tensor:
        """Set -1 in ``gt_inds`` (B, P) where a prior lies in an ignored box."""
        if self.ignore_iof_thr < 0 or ignore_bboxes is None or ignore_bboxes.size(1) == 0:
            return gt_inds
        ignore_bboxes = ignore_bboxes.float()
        valid = is_valid_box(ignore_bboxes).unsqueeze(-1)
        ignore_bboxes = torch.where(valid, ignore_bboxes, 0).unsqueeze(2)  # (B, I, 1, 4)
        inside = iof(ignore_bboxes, priors).amax(dim=1)  # (B, P)
        return gt_inds.masked_fill(inside > self.ignore_iof_thr, -1)


def match_greedily(overlaps: Tensor) -> Tensor:
    """Match the pair with the highest IoU, drop its box and its prior, and repeat.

    Among equal IoUs, the lower box and then the lower prior come first.

    Computed in G rounds whose shapes do not depend on values, so that nothing waits for a GPU and
    the step can be compiled. Each box lists its G best priors; it will get one of them, since the
    other boxes take at most G - 1. In each round, every box makes an offer to the first prior of
    its list that holds no better one (deferred acceptance, Gale and Shapley 1962). Boxes and
    priors rank their pairs by the same IoU, so the only stable outcome is the greedy one; the k-th
    pair of the greedy order is settled after k rounds.

    A pair is one integer, which holds, from the highest bit down, its IoU, its box and its prior,
    so that a comparison of two pairs is one operation.

    Args:
        overlaps: IoU (B, G, P) float32, G >= 1.

    Returns:
        (B, P) int64: g + 1 for the prior that box g gets, 0 elsewhere.
    """
    num_gts, num_priors = overlaps.shape[1:]
    gt_bits, prior_bits = num_gts.bit_length(), num_priors.bit_length()
    # Numbers fall from G and P to 1: the lower box or prior is the greater integer. 0 is nobody.
    gt = torch.arange(num_gts, 0, -1, device=overlaps.device).unsqueeze(1) << prior_bits  # (G, 1)
    prior = torch.arange(num_priors, 0, -1, device=overlaps.device)  # (P,)
    # The bits of non-negative floats, read as integers, are in the order of the floats.
    iou = overlaps.contiguous().view(torch.int32).long() << (gt_bits + prior_bits)
    offers = (iou | gt | prior).topk(min(num_gts, num_priors), dim=2).values  # (B, G, N)
    offers = offers * (offers >= 1 << (gt_bits + prior_bits))  # no offer with an IoU of 0
    target = (offers & ((1 << prior_bits) - 1)).flatten(1)  # (B, G * N), the prior's number

    held = offers.new_zeros(len(overlaps), 1 + num_priors)  # each prior's best offer so far
    for _ in range(num_gts):
        is_best = held.gather(1, target).view_as(offers) <= offers
        made = (offers * is_best).amax(2)  # (B, G), the first of the list that is not refused
        held.scatter_reduce_(1, made & ((1 << prior_bits) - 1), made, 'amax')
    held = held[:, 1:].flip(1)  # (B, P)
    own_gt = num_gts + 1 - (held >> prior_bits & ((1 << gt_bits) - 1))
    return own_gt * (held > 0)


def match_by_argmax(overlaps: Tensor) -> Tensor:
    """Each box takes its best prior; of several boxes with the same one, the last has it.

    Argument and result are those of :func:`match_greedily`.
    """
    best_overlap, best_prior = overlaps.max(dim=2)  # (B, G)
    number = torch.arange(1, overlaps.size(1) + 1, device=overlaps.device)
    number = torch.where(best_overlap > 0, number, 0)
    own_gt = number.new_zeros(overlaps.size(0), overlaps.size(2))
    return own_gt.scatter_reduce(1, best_prior, number, reduce='amax')
