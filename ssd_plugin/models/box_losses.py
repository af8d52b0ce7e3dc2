"""Regression losses of the matched priors, on deltas or on boxes."""

from __future__ import annotations

import torch
from mmdet.models import losses as mmdet_losses
from torch import Tensor, nn

from ssd_plugin.models.boxes import BoxCoder

# These compare two boxes, whatever numbers they are given.
IOU_LOSSES = (
    mmdet_losses.IoULoss,
    mmdet_losses.BoundedIoULoss,
    mmdet_losses.GIoULoss,
    mmdet_losses.DIoULoss,
    mmdet_losses.CIoULoss,
    mmdet_losses.EIoULoss,
    mmdet_losses.SIoULoss,
)


class BoxRegressionLoss:
    """A regression loss of MMDetection's, called for the loss of each prior of a batch.

    1. Priors that are not matched predict themselves and have themselves as their target, apart
       from the graph. They are replaced before the loss, since the gradient of a NaN times 0 is
       NaN; and they stay in the batch, since picking the matched ones would wait for a GPU.
    2. Predictions and targets are compared as deltas (paper, formula 2) or as boxes in pixels.
    3. The losses of unmatched priors are set to 0.

    Args:
        loss: The loss.
        coder: From boxes to deltas and back.
        decoded: Whether boxes are compared rather than deltas; IoU losses need it.

    Raises:
        ValueError: If an IoU loss is to compare deltas.
    """

    def __init__(self, loss: nn.Module, coder: BoxCoder, decoded: bool) -> None:
        if isinstance(loss, IOU_LOSSES) and not decoded:
            raise ValueError(
                f'SSDMultiBoxHead: {type(loss).__name__} compares boxes and not deltas, '
                'it needs reg_decoded_bbox=True'
            )
        self.loss, self.coder, self.decoded = loss, coder, decoded
        # Of a box that equals its target, MMDetection's CIoULoss divides 0 by 0.
        self.perfect_is_nan = isinstance(loss, mmdet_losses.CIoULoss)

    def __call__(self, deltas: Tensor, priors: Tensor, bboxes: Tensor, matched: Tensor) -> Tensor:
        """The loss of each prior.

        Args:
            deltas: Predictions (B, P, 4).
            priors: (P, 4) xyxy in pixels.
            bboxes: Matched ground-truth boxes (B, P, 4) xyxy in pixels, the prior itself where
                there is none.
            matched: (B, P) bool.

        Returns:
            (B, P); 0 where a prior is not matched.
        """
        deltas = torch.where(matched.unsqueeze(-1), deltas, 0).flatten(0, 1)  # (B * P, 4)
        priors, bboxes = priors.repeat(len(bboxes), 1), bboxes.flatten(0, 1)
        if self.decoded:
            losses = self._each(self.coder.decode(priors, deltas), bboxes)
        else:
            losses = self._each(deltas, self.coder.encode(priors, bboxes))
        return torch.where(matched, losses.view_as(matched), 0)

    def _each(self, preds: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row: (n, 4) and (n, 4) to (n,)."""
        # Without weights: MMDetection's losses would look at them, to see whether all are 0.
        losses = self.loss(preds, targets, reduction_override='none')
        if self.perfect_is_nan:
            perfect = losses.isnan() & preds.isfinite().all(-1)
            preds = torch.where(perfect.unsqueeze(-1), targets + 1, preds)
            losses = self.loss(preds, targets, reduction_override='none')
            return torch.where(perfect, 0, losses)
        return losses.sum(-1) if losses.dim() > 1 else losses  # IoU losses give (n,).
