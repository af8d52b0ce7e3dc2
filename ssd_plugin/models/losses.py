"""Classification losses of a batch: with hard negative mining, or over all priors."""

from __future__ import annotations

import torch
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, QualityFocalLoss, VarifocalLoss
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss as TorchLoss

REDUCTIONS = ('none', 'mean', 'sum')
# For the class of a matched prior, the target of these losses is how well its predicted box fits,
# from 0 to 1.
QUALITY_LOSSES = (QualityFocalLoss, VarifocalLoss)


@MODELS.register_module()
class HardNegativeMiningLoss(nn.Module):
    """Classification loss over the matched priors and the hardest of the others.

    SSD's confidence loss (paper, section 2.2, formula 3 and "Hard negative mining"):

    1. Compute the inner loss of every prior; priors that are matched to no box are compared with
       background.
    2. In each image, keep the k unmatched priors with the highest loss, where
       ``k = min(max(neg_pos_ratio * positives, min_negatives), negatives)``. This selection
       carries no gradient.
    3. Sum the losses of the matched and of the kept priors, and divide by ``avg_factor``.

    Background is the label after the last class: K - 1 where the K scores include background
    (softmax), K where they do not (sigmoid).

    Args:
        loss: The inner loss: any classification loss of MMDetection's that can give the loss of
            each prior (``reduction_override='none'``), or one of PyTorch's that takes classes, by
            its full name. ``docs/losses.md`` has a table.
        neg_pos_ratio: Negatives that are kept for each positive of the image.
        min_negatives: Negatives that are kept at least, so that images without objects can teach.
            With the paper's 0 they teach nothing.
        loss_weight: Weight of this loss in the total.
        use_sigmoid: Whether the scores are one sigmoid a class, without background; None takes it
            from the inner loss. MMDetection's anchor heads, such as ``RetinaHead``, read it from
            the config to know how many scores to give: for them, write True there around a
            sigmoid loss.

    Raises:
        ValueError: If a number is negative, or ``use_sigmoid`` contradicts the inner loss; in the
            first step, if another head has not been told of a sigmoid loss.
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
        for name, value in dict(neg_pos_ratio=neg_pos_ratio, min_negatives=min_negatives).items():
            if value < 0:
                remedy = 'min_negatives=100_000 keeps all negatives'
                raise ValueError(f'HardNegativeMiningLoss: {name} is {value}, below 0; {remedy}')
        self.loss = MODELS.build(loss or dict(type='CrossEntropyLoss'))
        self.per_prior = PerPriorLoss(self.loss)
        self.learns_quality = self.per_prior.learns_quality
        self.neg_pos_ratio = neg_pos_ratio
        self.min_negatives = min_negatives
        self.loss_weight = loss_weight
        self.use_sigmoid = getattr(self.loss, 'use_sigmoid', bool(use_sigmoid))
        if use_sigmoid not in (None, self.use_sigmoid):
            raise ValueError(
                f'HardNegativeMiningLoss: use_sigmoid is {use_sigmoid}, but the inner '
                f'{type(self.loss).__name__} has use_sigmoid={self.use_sigmoid}'
            )
        self.says_sigmoid = use_sigmoid is not None

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
                each, for inner losses that learn quality.
            weight: Weight of each prior, of the same shape. A prior with weight 0 is left out:
                it is neither positive nor a candidate for mining.
            avg_factor: What the sum is divided by; if None, the number of positives, at least 1.
            reduction_override: 'mean' (as above, and the default), 'sum' (not divided), or
                'none' (the loss of each prior, 0 where it is not kept).

        Returns:
            A scalar, or a tensor of the shape of ``label`` with reduction 'none'; float32 where
            the scores are in half precision.
        """
        reduction = reduction_override or 'mean'
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction_override must be one of {REDUCTIONS}, got {reduction!r}')
        losses, positive, mined = self.select(cls_score, label, weight)
        losses = losses if weight is None else losses * weight
        losses = self.loss_weight * torch.where(positive | mined, losses, 0)
        if reduction == 'none':
            return losses
        if reduction == 'sum':
            return losses.sum()
        if avg_factor is None:
            avg_factor = positive.sum().clamp(min=1)
        return losses.sum() / avg_factor

    def select(
        self, cls_score: Tensor, label: Tensor | tuple[Tensor, Tensor], weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Steps 1 and 2, for the arguments of :meth:`forward`.

        Returns:
            The inner losses, which priors are positive (bool), and which negatives are mined
            (bool), each (B, P) or (n,).
        """
        if self.use_sigmoid and not self.says_sigmoid and cls_score.dim() == 2:
            raise ValueError(  # it has given one score more, and background would be a class
                'HardNegativeMiningLoss: write use_sigmoid=True beside the inner '
                f"{type(self.loss).__name__}: MMDetection's heads read it there, to know how many "
                'scores to give'
            )
        label, quality = self.per_prior.split(label)
        # Sums over thousands of priors overflow float16 and lose their digits in bfloat16.
        cls_score = cls_score.to(torch.promote_types(cls_score.dtype, torch.float32))
        losses = self.per_prior(cls_score, label, quality)
        background = cls_score.size(-1) - (not self.use_sigmoid)
        positive = (label >= 0) & (label < background)
        negative = label == background
        if weight is not None:
            positive, negative = positive & (weight > 0), negative & (weight > 0)
        return losses, positive, self.hardest(losses, positive, negative)

    @torch.no_grad()
    def hardest(self, losses: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Mark the k negatives with the highest loss in each row.

        They are exactly k. Among equal losses, the first priors count as the hardest.

        Args:
            losses: (..., P).
            positive: (..., P) bool; likewise ``negative`` and the result.
        """
        quota = (self.neg_pos_ratio * positive.sum(-1)).clamp(min=self.min_negatives)
        quota = torch.minimum(quota, negative.sum(-1)).unsqueeze(-1)  # (..., 1)
        losses = losses.masked_fill(~negative, -torch.inf)
        order = losses.argsort(dim=-1, descending=True, stable=True)
        rank = torch.arange(losses.size(-1), device=losses.device)
        return torch.zeros_like(negative).scatter(-1, order, (rank < quota).expand_as(order))


class PerPriorLoss:
    """A classification loss of MMDetection's or PyTorch's, called for the loss of each prior.

    Losses differ in what they take as a prior's target; which kind a loss is of is decided here.

    - Softmax losses take the class.
    - Sigmoid losses take a row of C targets. Those that learn quality cannot do without; for the
      others, a row avoids mmcv's compiled operation (``FocalLoss`` on a GPU) and every look at
      values that would synchronise with a GPU.
    - Losses that learn quality have the IoU of the predicted box as the target of the matched
      class (Generalized Focal Loss, arXiv:2006.04388; VarifocalNet, arXiv:2008.13367).

    Args:
        loss: The loss. The reduction of one of PyTorch's is set to 'none'.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss
        self.learns_quality = isinstance(loss, QUALITY_LOSSES)
        self.takes_rows = isinstance(loss, (FocalLoss, *QUALITY_LOSSES)) or (
            isinstance(loss, CrossEntropyLoss) and loss.use_sigmoid and loss.ignore_index is None
        )
        self.options = dict(reduction_override='none')
        if isinstance(loss, TorchLoss):  # They are told so at construction, not in the call.
            loss.reduction, self.options = 'none', {}

    def split(self, label: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Labels and, for a loss that learns it and a caller that gives it, quality."""
        labels, quality = (label, None) if torch.is_tensor(label) else label
        return labels, quality if self.learns_quality else None

    def __call__(self, cls_score: Tensor, label: Tensor, quality: Tensor | None = None) -> Tensor:
        """The loss of each prior.

        Args:
            cls_score: (..., K).
            label: (...) int64.
            quality: (...) from 0 to 1: the target of a matched prior's class, for losses that
                learn it; values of background priors are not used. None stands for 1 everywhere.

        Returns:
            (...).
        """
        num_scores = cls_score.size(-1)
        target = label.reshape(-1)  # (n,)
        if self.takes_rows:
            is_own = target.unsqueeze(-1) == torch.arange(num_scores, device=label.device)
            target = is_own.to(cls_score.dtype)  # (n, K)
            if quality is not None:
                target = torch.where(is_own, quality.reshape(-1, 1), 0)
        losses = self.loss(cls_score.reshape(-1, num_scores), target, **self.options)
        losses = losses.sum(-1) if losses.dim() > 1 else losses  # Sigmoid losses give (n, K).
        return losses.reshape(label.shape)


class UnminedLoss:
    """A classification loss over all priors of a batch, called as ``HardNegativeMiningLoss`` is.

    Args:
        loss: One of MMDetection's.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss, self.per_prior = loss, PerPriorLoss(loss)
        self.learns_quality = self.per_prior.learns_quality

    def __call__(
        self,
        cls_score: Tensor,
        label: Tensor | tuple[Tensor, Tensor],
        weight: Tensor,
        avg_factor: Tensor,
    ) -> Tensor:
        """A scalar from scores (B, P, K), labels (B, P) (and qualities) and weights (B, P)."""
        label, quality = self.per_prior.split(label)
        if self.per_prior.takes_rows:
            losses = self.per_prior(cls_score, label, quality)
            return (losses * weight).sum() / avg_factor
        # The call of MMDetection's heads: a loss such as GHMC needs all priors at once.
        return self.loss(
            cls_score.flatten(0, 1), label.flatten(), weight.flatten(), avg_factor=avg_factor
        )


def make_batch_loss(loss: nn.Module) -> HardNegativeMiningLoss | UnminedLoss:
    """The classification loss of a head as one that is called with a whole batch."""
    return loss if isinstance(loss, HardNegativeMiningLoss) else UnminedLoss(loss)
