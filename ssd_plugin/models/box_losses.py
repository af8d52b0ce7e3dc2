"""What the matched priors predict, beside what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.models import losses as mmdet_losses
from torch import Tensor, nn

from ssd_plugin.models.devices import values_are_free
from ssd_plugin.models.level_maps import flatten_levels, select_levels

# Of two boxes, whatever numbers they are given.
BOX_LOSSES = (
    mmdet_losses.IoULoss,
    mmdet_losses.BoundedIoULoss,
    mmdet_losses.GIoULoss,
    mmdet_losses.DIoULoss,
    mmdet_losses.CIoULoss,
    mmdet_losses.EIoULoss,
    mmdet_losses.SIoULoss,
)


def matched_losses(loss: nn.Module, preds: Tensor, targets: Tensor) -> Tensor:
    """A regression loss of each matched prior by itself.

    Args:
        loss: One of MMDetection's.
        preds: (n, 4), offsets or boxes.
        targets: (n, 4), the same.

    Returns:
        (n,).
    """
    losses = _each(loss, preds, targets)
    if not isinstance(loss, mmdet_losses.CIoULoss):
        return losses
    # Of a box that is its object, MMDetection's divides 0 by 0: its loss is 0, without gradient.
    perfect = losses.isnan() & preds.isfinite().all(-1)
    preds = torch.where(perfect.unsqueeze(-1), targets + 1, preds)
    return torch.where(perfect, 0, _each(loss, preds, targets))


def _each(loss: nn.Module, preds: Tensor, targets: Tensor) -> Tensor:
    # Without weights: to see whether all are 0, MMDetection's losses would look at them.
    losses = loss(preds, targets, reduction_override='none')
    return losses.sum(-1) if losses.dim() > 1 else losses  # IoU losses answer (n,)


class MatchedPriors(NamedTuple):
    """The matched priors of a batch, with what is predicted and what is there.

    Where values may be looked at these are the n matched ones. Elsewhere they are all B * P, and
    each unmatched prior predicts itself and has itself as its object, apart from the graph.
    """

    index: Tensor  # (n,) int64 into (B * P,)
    positive: Tensor  # (n,) bool
    priors: Tensor  # (n, 4) xyxy in pixels
    offsets: Tensor  # (n, 4) predicted, encoded
    bboxes: Tensor  # (n, 4) xyxy in pixels, of the objects


def match_predictions(
    bbox_preds: Sequence[Tensor], priors: Tensor, gt_bboxes: Tensor, gt_inds: Tensor
) -> MatchedPriors:
    """Put matched priors beside their predictions and their objects.

    Args:
        bbox_preds: Offsets of each level.
        priors: (P, 4) xyxy in pixels.
        gt_bboxes: (B, G, 4) xyxy in pixels.
        gt_inds: (B, P), g + 1 where matched to box g.

    Returns:
        See :class:`MatchedPriors`.
    """
    positive = gt_inds > 0  # (B, P)
    if values_are_free(gt_inds):
        offsets, image, prior = select_levels(positive, bbox_preds, 4)  # (n, 4)
        bboxes = gt_bboxes[image, gt_inds[image, prior] - 1]
        index = image * len(priors) + prior
        return MatchedPriors(index, positive[image, prior], priors[prior], offsets, bboxes)
    index = (gt_inds - 1).clamp(min=0).unsqueeze(-1).expand(-1, -1, 4)
    bboxes = gt_bboxes.gather(1, index).flatten(0, 1)  # (B * P, 4)
    positive, priors = positive.flatten(), priors.repeat(len(gt_inds), 1)
    offsets = flatten_levels(bbox_preds, 4).flatten(0, 1)
    # Taken out before the loss, and not only after it: a gradient of NaN times 0 is NaN.
    chosen = positive.unsqueeze(-1)
    return MatchedPriors(
        torch.arange(len(positive), device=positive.device),
        positive,
        priors,
        torch.where(chosen, offsets, 0),
        torch.where(chosen, bboxes, priors),
    )
