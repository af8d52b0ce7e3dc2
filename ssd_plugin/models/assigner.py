"""Which prior learns which object: the two-step matching of SSD, for a whole batch at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners.base_assigner import BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from ssd_plugin.models.devices import values_are_free
from ssd_plugin.models.ground_truth import has_area
from ssd_plugin.models.matching import match_by_argmax, match_greedily, pairwise_iof, pairwise_iou

# The table of overlaps goes through a CPU's cache about ten times: images are taken together while
# their tables fit.
PAIRS_AT_ONCE = 1_000_000


class BatchAssignResult(NamedTuple):
    """Matches of B images and P priors."""

    gt_inds: Tensor  # (B, P) int64: -1 ignored, 0 background, g + 1 matched to box g
    max_overlaps: Tensor  # (B, P): best IoU of the prior with any box, 0 without boxes
    labels: Tensor  # (B, P) int64: class of the matched box, -1 elsewhere


@TASK_UTILS.register_module()
class BatchMaxIoUAssigner(BaseAssigner):
    """SSD's matching strategy (paper, section 2.2), on a padded batch.

    1. Bipartite: every box gets a prior of its own. Over all (box, prior) pairs of an image the
       highest IoU wins, its box and prior leave, and so on; hence no box loses its prior to
       another, however low its IoU. A box that overlaps no prior gets none.
    2. Every other prior is matched to its best box where their IoU is >= ``pos_iou_thr``.
    3. Of the rest, priors with a best IoU < ``neg_iou_thr`` are background, and the others, as
       well as background priors that mostly lie in an ignored box, are ignored.

    Boxes without area or with non-finite numbers take no part; see
    :func:`ssd_plugin.models.ground_truth.has_area`.

    Args:
        pos_iou_thr: IoU from which a prior is matched in step 2.
        neg_iou_thr: IoU below which an unmatched prior is background.
        bipartite: The rule of step 1. With False each box claims its best prior, and where two
            claim one the later box has it: MMDetection's ``MaxIoUAssigner`` and ssd.pytorch.
        ignore_iof_thr: Background priors with more than this share of their area inside an
            ignored box are left out of training. Negative: none are.
    """

    def __init__(
        self,
        pos_iou_thr: float = 0.5,
        neg_iou_thr: float = 0.5,
        bipartite: bool = True,
        ignore_iof_thr: float = -1,
    ) -> None:
        if neg_iou_thr > pos_iou_thr:
            raise ValueError(
                f'BatchMaxIoUAssigner: neg_iou_thr {neg_iou_thr} exceeds pos_iou_thr {pos_iou_thr}'
            )
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.bipartite = bipartite
        self.ignore_iof_thr = ignore_iof_thr

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs,
    ) -> AssignResult:
        """Match one image's priors, as MMDetection's heads ask for it.

        Args:
            pred_instances: ``priors`` (P, 4) xyxy in pixels.
            gt_instances: ``bboxes`` (G, 4) and ``labels`` (G,).
            gt_instances_ignore: ``bboxes`` (I, 4) of ignored objects.

        Returns:
            MMDetection's result, with ``gt_inds``, ``max_overlaps`` and ``labels`` of shape (P,).
        """
        bboxes = get_box_tensor(gt_instances.bboxes)
        ignored = None
        if gt_instances_ignore is not None:
            ignored = get_box_tensor(gt_instances_ignore.bboxes)[None]
        result = self.assign_batch(
            get_box_tensor(pred_instances.priors),
            bboxes[None],
            gt_instances.labels[None],
            bboxes.new_ones(1, len(bboxes), dtype=torch.bool),
            ignored,
        )
        return AssignResult(
            len(bboxes), result.gt_inds[0], result.max_overlaps[0], result.labels[0]
        )

    @torch.no_grad()
    def assign_batch(
        self,
        priors: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        gt_mask: Tensor,
        ignore_bboxes: Tensor | None = None,
    ) -> BatchAssignResult:
        """Match the priors of B images, in float32 whatever the boxes come in.

        Args:
            priors: (P, 4) xyxy in pixels.
            gt_bboxes: (B, G, 4) xyxy in pixels, padded with anything.
            gt_labels: (B, G) int64.
            gt_mask: (B, G) bool, False for boxes that are padding or take no part.
            ignore_bboxes: (B, I, 4) ignored boxes, padded with boxes of no area.

        Returns:
            The matches; see :class:`BatchAssignResult`.
        """
        # The area of a large prior is no number in float16.
        priors, gt_bboxes = priors.float(), gt_bboxes.float()
        batch, num_gts = gt_labels.shape
        at_once = max(PAIRS_AT_ONCE // max(num_gts * len(priors), 1), 1)
        if batch > at_once and values_are_free(priors):
            inputs = [gt_bboxes, gt_labels, gt_mask]
            inputs += [] if ignore_bboxes is None else [ignore_bboxes]
            chunks = zip(*(tensor.split(at_once) for tensor in inputs), strict=True)
            parts = [self.assign_batch(priors, *chunk) for chunk in chunks]
            return BatchAssignResult(*map(torch.cat, zip(*parts, strict=True)))
        if num_gts == 0:
            overlaps = priors.new_zeros(batch, len(priors))
            none = gt_labels.new_zeros(batch, len(priors))
            return BatchAssignResult(
                self._ignore(none, priors, ignore_bboxes), overlaps, torch.full_like(none, -1)
            )
        gt_mask = gt_mask & has_area(gt_bboxes)
        gt_bboxes = torch.where(gt_mask.unsqueeze(-1), gt_bboxes, 0)
        # A box of no area has an IoU of 0 with everything, and so is never matched.
        overlaps = pairwise_iou(gt_bboxes, priors)  # (B, G, P)
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
        """Set -1 where priors of (B, P) lie in an ignored box by more than the threshold."""
        if self.ignore_iof_thr < 0 or ignore_bboxes is None or ignore_bboxes.size(1) == 0:
            return gt_inds
        ignore_bboxes = ignore_bboxes.float()
        clean = torch.where(has_area(ignore_bboxes).unsqueeze(-1), ignore_bboxes, 0)
        inside = pairwise_iof(clean, priors).amax(dim=1)  # (B, P)
        return gt_inds.masked_fill(inside > self.ignore_iof_thr, -1)
