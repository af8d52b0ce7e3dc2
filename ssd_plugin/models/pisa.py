"""Prime sample attention (PISA, arXiv:1904.04821): priors count by how much mAP depends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssd_plugin.models.head import SSDMultiBoxHead
from ssd_plugin.models.targets import Targets


@MODELS.register_module()
class PISASSDMultiBoxHead(SSDMultiBoxHead):
    """``SSDMultiBoxHead`` with prime sample attention, as MMDetection's ``PISASSDHead``.

    Training, beside what :class:`SSDMultiBoxHead` does:

    1. ISR-P: the classification losses of the matched priors get weights, by how well the
       predicted box fits. Negatives are mined as before.
    2. CARL: one more loss, ``loss_carl``, is the regression loss with each matched prior weighted
       by the score of its class. Its gradient also reaches the scores: those of boxes that fit
       badly fall.

    Parameters and inference are those of :class:`SSDMultiBoxHead`.

    Args:
        args: Those of :class:`SSDMultiBoxHead`; likewise ``kwargs``.
        train_cfg: Also ``isr`` and ``carl``, each with its ``k`` and ``bias``. A part that is not
            named is left out.
    """

    elsewhere = {k: v for k, v in SSDMultiBoxHead.elsewhere.items() if k not in ('isr', 'carl')}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        isr, carl = ((self.train_cfg or {}).get(part) for part in ('isr', 'carl'))
        self.isr = None if isr is None else ImportanceReweighting(**isr)
        self.carl = None if carl is None else ClassificationAwareWeighting(**carl)

    def loss_by_targets(
        self, scores: Tensor, deltas: Tensor, priors: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        """``loss_cls``, ``loss_bbox`` and with CARL ``loss_carl``."""
        if self.isr is not None:
            ious = self.predicted_ious(deltas, priors, targets)  # (B, P)
            quality = ious if self.batch_cls_loss.learns_quality else None
            with torch.no_grad():
                losses = self.batch_cls_loss.per_prior(scores, targets.labels, quality)  # (B, P)
            targets = targets._replace(weights=self.isr(ious, losses, targets))
        losses_of_batch = super().loss_by_targets(scores, deltas, priors, targets)
        if self.carl is not None:
            weights = self.carl(self.target_probabilities(scores, targets.labels), targets.matched)
            # (B, P)
            losses = self.per_prior_box_loss(deltas, priors, targets.bboxes, targets.matched)
            losses_of_batch['loss_carl'] = (losses * weights).sum() / targets.avg_factor
        return losses_of_batch

    def target_probabilities(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Probability (B, P) of each prior's label; of no meaning for background with sigmoids."""
        if self.use_sigmoid_cls:
            labels = labels.clamp(max=self.num_classes - 1)
            return scores.gather(-1, labels.unsqueeze(-1)).squeeze(-1).sigmoid()
        losses = cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction='none')
        return (-losses).exp().view_as(labels)


@dataclass(frozen=True)
class ImportanceReweighting:
    """Weights of importance-based sample reweighting, of positives (ISR-P).

    1. Of the priors that are matched to the same box, the one whose predicted box fits best is
       the first, and so on.
    2. Of the priors of a class, in the whole batch, first come all first ones, then all second
       ones, and so on; those of the same place by IoU. A prior's place in this order is its rank
       (IoU-HLR).
    3. A weight falls linearly with the rank, from 1 by 1 / n a place, where n is the number of
       priors of the most frequent class; it becomes ``(bias + (1 - bias) * weight) ** k``.
    4. All weights are multiplied by one factor, such that the sum of the weighted losses is that
       of the losses.

    The numbers are those of MMDetection's ``isr_p``, except where that mistakes boxes of
    different images for the same one, which it can from the third image on.

    Args:
        k: Power of step 3.
        bias: Shift of step 3.
    """

    k: float = 2.0
    bias: float = 0.0

    @torch.no_grad()
    def __call__(self, ious: Tensor, losses: Tensor, targets: Targets) -> Tensor:
        """Weights (B, P); those of unmatched priors are the targets'.

        Args:
            ious: IoU (B, P) of each prior's predicted box with its target.
            losses: Classification losses (B, P).
            targets: What the priors are matched to.
        """
        matched = targets.matched
        rank = hierarchical_rank(ious, targets.labels, targets.gt_inds)
        most = torch.where(matched, rank + 1, 0).amax()  # priors of the most frequent class
        weights = (self.bias + (1 - self.bias) * (most - rank) / most) ** self.k
        total, weighted = (
            torch.where(matched, each, 0).sum() for each in (losses, losses * weights)
        )
        tiny = torch.finfo(losses.dtype).tiny  # Losses may all be 0; the factor is 1 then.
        factor = (total + tiny) / (weighted + tiny)
        return torch.where(matched, weights * factor, targets.weights)


@dataclass(frozen=True)
class ClassificationAwareWeighting:
    """Weights of the classification-aware regression loss (CARL).

    The weight of a matched prior with probability p of its class is ``(bias + (1 - bias) * p) **
    k``, divided by the mean of these; with a gradient for p. As MMDetection's ``carl_loss``.

    Args:
        k: The power.
        bias: The weight of a prior with probability 0, before the power.
    """

    k: float = 1.0
    bias: float = 0.2

    def __call__(self, probabilities: Tensor, matched: Tensor) -> Tensor:
        """Weights (B, P) from probabilities (B, P); 0 for priors that are not matched."""
        # Those of unmatched priors are replaced before the power, whose gradient at 0 may be
        # infinite.
        probabilities = torch.where(matched, probabilities, 1)
        weights = torch.where(matched, (self.bias + (1 - self.bias) * probabilities) ** self.k, 0)
        return weights * matched.sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def hierarchical_rank(ious: Tensor, labels: Tensor, gt_inds: Tensor) -> Tensor:
    """Places (B, P) int64 of the priors among those of their label, from 0 (IoU-HLR).

    All priors are sorted, also the unmatched ones: to pick some would wait for a GPU.

    Args:
        ious: (B, P) IoU of the predicted box with its target.
        labels: (B, P) int64.
        gt_inds: (B, P) int64, the matched box in its image; see :class:`Targets`.
    """
    image = torch.arange(len(gt_inds), device=gt_inds.device).unsqueeze(1)
    boxes = (image * (gt_inds.max() + 2) + gt_inds).flatten()  # gt_inds start at -1
    by_iou = ious.flatten().argsort(descending=True, stable=True)
    place = place_in_group(by_iou, boxes)
    by_place = by_iou[place[by_iou].argsort(stable=True)]
    return place_in_group(by_place, labels.flatten()).view_as(labels)


def place_in_group(order: Tensor, groups: Tensor) -> Tensor:
    """Place of each of n entries among those of its group, from 0, if all come in an order.

    Args:
        order: (n,) int64, indices of the entries.
        groups: (n,) int64, the group of each entry.
    """
    order = order[groups[order].argsort(stable=True)]  # group by group
    ordered_groups = groups[order]
    start_of_group = torch.searchsorted(ordered_groups, ordered_groups)
    places = torch.arange(len(order), device=order.device) - start_of_group
    return torch.empty_like(places).scatter_(0, order, places)
