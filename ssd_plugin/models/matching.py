"""Overlaps of boxes and priors, and three ways to give each box a prior of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from ssd_plugin.models.devices import values_are_free

SMALLEST_AREA = 1e-6  # divided by, where a box and a prior have none


def pairwise_iou(bboxes: Tensor, priors: Tensor) -> Tensor:
    """IoU of each box with each prior.

    Coordinate by coordinate and in place: the tensors are the largest of the training step, and
    fetching fresh memory for them takes longer than the arithmetic.

    Args:
        bboxes: (B, G, 4) xyxy.
        priors: (P, 4) xyxy.

    Returns:
        (B, G, P); 0 for boxes of no area.
    """
    inter = _intersections(bboxes, priors)
    areas = _areas(bboxes).unsqueeze(-1) + _areas(priors)
    return inter.div_(areas.sub_(inter).clamp_(min=SMALLEST_AREA))


def pairwise_iof(bboxes: Tensor, priors: Tensor) -> Tensor:
    """Share of each prior's area inside each box; see :func:`pairwise_iou`."""
    return _intersections(bboxes, priors).div_(_areas(priors).clamp(min=SMALLEST_AREA))


def _intersections(bboxes: Tensor, priors: Tensor) -> Tensor:
    x1, y1, x2, y2 = bboxes.unsqueeze(-2).unbind(-1)  # (B, G, 1)
    left, top, right, bottom = priors.t().contiguous()  # (P,)
    inter = torch.minimum(x2, right)  # (B, G, P)
    inter.sub_(torch.maximum(x1, left)).clamp_(min=0)
    height = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).clamp_(min=0)
    return inter.mul_(height)


def _areas(bboxes: Tensor) -> Tensor:
    """Of boxes (..., 4), (...)."""
    x1, y1, x2, y2 = bboxes.unbind(-1)
    return (x2 - x1) * (y2 - y1)


def match_by_argmax(overlaps: Tensor) -> Tensor:
    """Each box takes its best prior; of boxes with the same one, the last has it.

    Args:
        overlaps: IoU (B, G, P).

    Returns:
        (B, P) int64: g + 1 for the prior that box g has, 0 elsewhere.
    """
    best_overlap, best_prior = overlaps.max(dim=2)  # (B, G)
    number = torch.arange(1, overlaps.size(1) + 1, device=overlaps.device)
    number = torch.where(best_overlap > 0, number, 0)
    own_gt = number.new_zeros(overlaps.size(0), overlaps.size(2))
    return own_gt.scatter_reduce(1, best_prior, number, reduce='amax')


def match_greedily(overlaps: Tensor) -> Tensor:
    """Take the highest IoU over all (box, prior) pairs, drop that box and prior, and repeat.

    Equal IoUs go to the lower box, then to the lower prior. Computed by rounds on the CPU, by
    :func:`match_by_offers` elsewhere; the result is the same.

    Args:
        overlaps: IoU (B, G, P).

    Returns:
        (B, P) int64: g + 1 for the prior that box g has, 0 elsewhere.
    """
    return (match_by_rounds if values_are_free(overlaps) else match_by_offers)(overlaps)


def match_by_rounds(overlaps: Tensor) -> Tensor:
    """:func:`match_greedily` in as many rounds as boxes stand in each other's way.

    A pair that is the best of its box and the best of its prior is what the greedy order takes
    sooner or later, whatever happens to the others; so all such pairs of the batch are taken
    together. As a rule that is all boxes in the first round.
    """
    batch, num_gts, num_priors = overlaps.shape
    own_gt = overlaps.new_zeros(batch, num_priors, dtype=torch.long)
    number = torch.arange(1, num_gts + 1, device=overlaps.device)
    best_overlap, best_prior = overlaps.max(dim=2)  # (B, G)
    waiting = best_overlap > 0
    while waiting.any():
        # rivals[b, h, g] is the IoU of the waiting box h with the prior that box g wants.
        rivals = overlaps.gather(2, best_prior.unsqueeze(1).expand(-1, num_gts, -1))
        rivals.masked_fill_(~waiting.unsqueeze(2), -1)
        wins = waiting & (rivals.argmax(dim=1) + 1 == number)
        own_gt.scatter_reduce_(1, best_prior, torch.where(wins, number, 0), reduce='amax')
        waiting &= ~wins
        images, boxes = waiting.nonzero(as_tuple=True)
        left = overlaps[images, boxes].masked_fill_(own_gt[images] > 0, -1)  # (n, P)
        best_overlap[images, boxes], best_prior[images, boxes] = left.max(dim=1)
        waiting &= best_overlap > 0
    return own_gt


def match_by_offers(overlaps: Tensor) -> Tensor:
    """:func:`match_greedily` in G rounds of fixed shape, for accelerators and compiled graphs.

    Each box lists its G best priors, one of which it will get, since the other boxes take G - 1
    at most. In each round it makes an offer to the first on its list that holds no better one
    (Gale and Shapley's deferred acceptance). Boxes and priors rank pairs by the same IoU, so the
    stable outcome is the greedy one; the k-th pair of the greedy order is settled by round k.

    An accelerator waits for the operations to be issued more than for their results, so a pair is
    one integer: from the highest bit down the IoU, the box and the prior, lower ones first.
    """
    num_gts, num_priors = overlaps.shape[1:]
    prior_bits = num_priors.bit_length()
    bits_below = num_gts.bit_length() + prior_bits
    box = torch.arange(num_gts, 0, -1, device=overlaps.device).unsqueeze(1) << prior_bits
    column = torch.arange(num_priors, 0, -1, device=overlaps.device)  # 0 is nobody's
    # Non-negative floats sort as their bits do, and those of an IoU are 30.
    pairs = overlaps.contiguous().view(torch.int32).long() << bits_below
    offers = (pairs | (box | column)).topk(min(num_gts, num_priors), dim=2).values  # (B, G, N)
    offers = offers * (offers >= 1 << bits_below)  # no prior is offered an IoU of 0
    columns = (offers & ((1 << prior_bits) - 1)).flatten(1)

    held = offers.new_zeros(len(overlaps), 1 + num_priors)
    for _ in range(num_gts):
        is_best = held.gather(1, columns).view_as(offers) <= offers
        made = (offers * is_best).amax(2)  # (B, G), the first on the list that is
        held.scatter_reduce_(1, made & ((1 << prior_bits) - 1), made, 'amax')
    held = held[:, 1:].flip(1)  # (B, P)
    own_gt = num_gts + 1 - (held >> prior_bits & ((1 << num_gts.bit_length()) - 1))
    return own_gt * (held > 0)
