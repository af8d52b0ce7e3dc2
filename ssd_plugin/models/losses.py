"""Hard negative mining, around any classification loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, QualityFocalLoss, VarifocalLoss
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss as TorchLoss

from ssd_plugin.models.devices import values_are_free
from ssd_plugin.models.level_maps import flatten_levels, map_levels, select_levels

REDUCTIONS = ('none', 'mean', 'sum')
# Their target for the class of a matched prior is how well its predicted box fits, 0 to 1.
QUALITY_LOSSES = (QualityFocalLoss, VarifocalLoss)


@MODELS.register_module()
class HardNegativeMiningLoss(nn.Module):
    """Classification loss over the matched priors and the hardest of the others.

    SSD's confidence loss (paper, section 2.2, formula 3 and "Hard negative mining"):

    1. The inner loss of every prior, those that are matched to no object against background.
    2. In each image, the ``k`` unmatched priors with the highest loss are kept, where
       ``k = min(max(neg_pos_ratio * positives, min_negatives), negatives)``. Which ones they are
       carries no gradient.
    3. The losses of the matched and the kept priors are summed, and divided by ``avg_factor``.

    Background is the label after the last class: K - 1 where the K scores include background
    (softmax), K where they don't (sigmoid).

    Args:
        loss: The inner loss, any classification loss of MMDetection's that can give the loss of
            each prior (``reduction_override='none'``), or one of PyTorch's that takes classes, by
            its full name. ``docs/losses.md`` has a table.
        neg_pos_ratio: Negatives kept for each positive of the image.
        min_negatives: Negatives kept at least, so that images with no objects can teach. With
            the paper's 0 they teach nothing.
        loss_weight: Weight of this loss in the total.
        use_sigmoid: Whether the scores are one sigmoid a class, without background; None is what
            the inner loss says. MMDetection's anchor heads, such as ``RetinaHead``, read it from
            the config to know how many scores to give: for them, write True there around a
            sigmoid loss.

    Raises:
        ValueError: If ``use_sigmoid`` is not what the inner loss says.
    """

    def __init__(
        self,
        loss: dict | None = None,
        neg_pos_ratio: float = 3,
        min_negatives: int = 0,
        loss_weight: float = 1.0,
        use_sigmoid: bool | None = None,
    ) -> None:
        super().__init__()
        self.loss = MODELS.build(loss or dict(type='CrossEntropyLoss'))
        self.neg_pos_ratio = neg_pos_ratio
        self.min_negatives = min_negatives
        self.loss_weight = loss_weight
        self.use_sigmoid = getattr(self.loss, 'use_sigmoid', bool(use_sigmoid))
        if use_sigmoid not in (None, self.use_sigmoid):
            raise ValueError(
                f'HardNegativeMiningLoss: use_sigmoid is {use_sigmoid}, but the inner '
                f'{type(self.loss).__name__} has use_sigmoid={self.use_sigmoid}'
            )
        if isinstance(self.loss, TorchLoss):
            self.loss.reduction = 'none'

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Mine each image and reduce.

        Args:
            cls_score: Scores before softmax or sigmoid, (B, P, K), each image mined by itself;
                or (n, K), mined as one set.
            label: Class of each prior, (B, P) or (n,) int64; or the class and the quality of
                each, for inner losses that learn quality (:func:`learns_quality`).
            weight: Weight of each prior, of the same shape. A prior with weight 0 is left out:
                it is neither positive nor a candidate for mining.
            avg_factor: What the sum is divided by; the number of positives, at least 1, if None.
            reduction_override: 'mean' (as above, and the default), 'sum' (not divided), or
                'none' (the loss of each prior, 0 where not kept).

        Returns:
            A scalar, or a tensor of the shape of ``label`` with reduction 'none'; float32 where
            the scores are in half precision.
        """
        reduction = reduction_override or 'mean'
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction_override must be one of {REDUCTIONS}, got {reduction!r}')
        label, quality = label if isinstance(label, tuple) else (label, None)
        # Sums over thousands of priors leave float16, and lose their digits in bfloat16.
        cls_score = cls_score.to(torch.promote_types(cls_score.dtype, torch.float32))
        losses = prior_losses(self.loss, cls_score, label, quality)  # (B, P) or (n,)
        positive, candidate = self.roles(label, weight, cls_score.size(-1))
        kept = positive | self.hardest(losses, positive, candidate)
        losses = losses if weight is None else losses * weight
        losses = self.loss_weight * torch.where(kept, losses, 0)
        if reduction == 'none':
            return losses
        if reduction == 'sum':
            return losses.sum()
        if avg_factor is None:
            avg_factor = positive.sum().clamp(min=1)
        return losses.sum() / avg_factor

    def of_maps(
        self,
        maps: Sequence[Tensor],
        num_scores: int,
        label: Tensor,
        weight: Tensor,
        avg_factor: Tensor | float,
        quality: Tensor | None = None,
    ) -> Tensor:
        """The same as calling the loss, from a head's maps, for where values can be looked at.

        Mining needs but one number of each prior, its loss as background, and that carries no
        gradient. The inner loss and its gradient are computed for the priors that are kept.

        Args:
            maps: Scores (B, A_k * K, H_k, W_k) of each level.
            num_scores: K.
            label: (B, P).
            weight: (B, P).
            avg_factor: What the sum is divided by.
            quality: (B, P), for inner losses that learn it.

        Returns:
            A scalar.
        """
        positive, candidate = self.roles(label, weight, num_scores)
        with torch.no_grad():
            losses = map_levels(maps, num_scores, self.background_losses)
        kept = positive | self.hardest(losses, positive, candidate)
        scores, image, prior = select_levels(kept, maps, num_scores)
        place = image, prior
        quality = None if quality is None else quality[place]
        losses = prior_losses(self.loss, scores, label[place], quality) * weight[place]
        return self.loss_weight * losses.sum() / avg_factor

    def roles(self, label: Tensor, weight: Tensor | None, num_scores: int) -> tuple[Tensor, Tensor]:
        """Which priors are positive, and which can be mined: two bool tensors like ``label``."""
        background = num_scores - (not self.use_sigmoid)
        positive = (label >= 0) & (label < background)
        candidate = label == background
        if weight is None:
            return positive, candidate
        counts = weight > 0
        return positive & counts, candidate & counts

    def background_losses(self, scores: Tensor) -> Tensor:
        """The inner loss of priors if they are background: (N, K, ...) to (N, ...)."""
        if self._is_softmax:
            # Along the dimension that the scores have, without turning them into rows.
            return -self.loss.loss_weight * scores.log_softmax(1)[:, -1]
        rows = scores.movedim(1, -1)
        background = scores.size(1) - (not self.use_sigmoid)
        label = rows.new_full(rows.shape[:-1], background, dtype=torch.long)
        return prior_losses(self.loss, rows, label)

    @property
    def _is_softmax(self) -> bool:
        return (
            type(self.loss) is CrossEntropyLoss
            and not (self.loss.use_sigmoid or self.loss.use_mask)
            and self.loss.class_weight is None
        )

    @torch.no_grad()
    def hardest(self, losses: Tensor, positive: Tensor, candidate: Tensor) -> Tensor:
        """Mark the k candidates with the highest loss in each row; exactly k, also among equals.

        Args:
            losses: (..., P), detached or not.
            positive: (..., P) bool.
            candidate: (..., P) bool.

        Returns:
            (..., P) bool.
        """
        quota = (self.neg_pos_ratio * positive.sum(-1)).clamp(min=self.min_negatives)
        quota = torch.minimum(quota, candidate.sum(-1))
        longest = losses.size(-1)
        if values_are_free(losses):
            longest = math.ceil(quota.max())
        order = losses.masked_fill(~candidate, -torch.inf).topk(longest, dim=-1).indices
        rank = torch.arange(longest, device=losses.device)
        first = (rank < quota.unsqueeze(-1)).expand_as(order)
        return torch.zeros_like(candidate).scatter(-1, order, first)


def learns_quality(loss: nn.Module) -> bool:
    """Whether a classification loss, mined or not, is taught how well a matched prior's box fits.

    The quality is the IoU of the predicted box with the object's (Generalized Focal Loss,
    arXiv:2006.04388; VarifocalNet, arXiv:2008.13367).
    """
    inner = loss.loss if isinstance(loss, HardNegativeMiningLoss) else loss
    return isinstance(inner, QUALITY_LOSSES)


def takes_rows(loss: nn.Module) -> bool:
    """Whether a loss of MMDetection's takes a row of C targets of each prior in place of its class.

    Those that learn quality can't do without. The others then need no operation that PyTorch has
    not (``FocalLoss`` calls mmcv's compiled one on a GPU), and none that waits for values.
    """
    if isinstance(loss, CrossEntropyLoss):
        return loss.use_sigmoid and loss.ignore_index is None
    return isinstance(loss, (FocalLoss, *QUALITY_LOSSES))


def prior_losses(
    loss: nn.Module, cls_score: Tensor, label: Tensor, quality: Tensor | None = None
) -> Tensor:
    """A classification loss of each prior by itself.

    Args:
        loss: One of MMDetection's, or of PyTorch's with reduction 'none'.
        cls_score: (..., K).
        label: (...) int64.
        quality: (...), 0 to 1: the target for its class of a prior that is no background, for
            losses that learn it; elsewhere it is not looked at. None is 1 everywhere.

    Returns:
        (...).
    """
    num_scores = cls_score.size(-1)
    target = label.reshape(-1)  # (n,)
    if takes_rows(loss):
        own = target.unsqueeze(-1) == torch.arange(num_scores, device=label.device)  # (n, K)
        target = own.to(cls_score.dtype)
        if quality is not None:
            target = torch.where(own, quality.reshape(-1, 1), 0)
    # PyTorch's are told when they are built.
    reduction = {} if isinstance(loss, TorchLoss) else dict(reduction_override='none')
    losses = loss(cls_score.reshape(-1, num_scores), target, **reduction)
    # Sigmoid losses answer one number a class.
    losses = losses.sum(-1) if losses.dim() > 1 else losses
    return losses.reshape(label.shape)


def batch_loss(
    loss: nn.Module,
    cls_scores: Sequence[Tensor],
    num_scores: int,
    labels: Tensor,
    weights: Tensor,
    avg_factor: Tensor,
    quality: Tensor | None = None,
) -> Tensor:
    """A classification loss, mined or not, of all priors of a batch: a scalar.

    Args:
        loss: ``HardNegativeMiningLoss``, or one of MMDetection's.
        cls_scores: Of each level, (B, A_k * K, H_k, W_k).
        num_scores: K.
        labels: (B, P), the background's where unmatched.
        weights: (B, P), 0 where ignored.
        avg_factor: What the sum over priors is divided by.
        quality: (B, P), for losses that learn it.
    """
    mining = isinstance(loss, HardNegativeMiningLoss)
    if mining and values_are_free(labels):
        return loss.of_maps(cls_scores, num_scores, labels, weights, avg_factor, quality)
    scores = flatten_levels(cls_scores, num_scores)  # (B, P, K)
    if mining:
        target = labels if quality is None else (labels, quality)
        return loss(scores, target, weights, avg_factor)
    if takes_rows(loss):
        return (prior_losses(loss, scores, labels, quality) * weights).sum() / avg_factor
    # As MMDetection's heads call a loss: it may know priors, but not images.
    return loss(scores.flatten(0, 1), labels.flatten(), weights.flatten(), avg_factor=avg_factor)
