"""Which pairs of prior and class of a batch to decode and compare: the best of each image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Candidates(NamedTuple):
    """(prior, class) pairs of a batch that passed the score filter, N in all.

    Ordered by image, and in an image by prior, then by class.
    """

    image: Tensor  # (N,) int64
    label: Tensor  # (N,) int64
    prior: Tensor  # (N,) int64
    score: Tensor  # (N,)
    is_all: Tensor  # (B,) bool: no other pair of the image would have passed


def filter_scores(
    scores: Tensor, best: Tensor, score_thr: float, nms_pre: int, most: int
) -> Candidates:
    """Keep the best scores of each image, of those above the threshold.

    Args:
        scores: Of each class and prior, (B, C, P).
        best: Each prior's highest, (B, P), -inf for a prior that is to find nothing.
        score_thr: Scores must be greater.
        nms_pre: How many a class may keep, the highest; no limit where negative.
        most: How many an image keeps, the highest; where it is cheaper, up to twice as many.

    Returns:
        The pairs that are left. Of an image, none that is left out is better than one that is
        kept, but for those that ``nms_pre`` takes.
    """
    image, prior, lowest, is_all = best_priors(best, score_thr, most)
    return pair_up(image, prior, scores[image, :, prior], lowest, is_all, nms_pre, most)


def best_priors(best: Tensor, score_thr: float, most: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The priors in which the best (prior, class) pairs of each image lie: as many as those.

    Args:
        best: See :func:`filter_scores`; also the rest.

    Returns:
        ``image``, ``prior``, ``lowest`` and ``is_all`` for :func:`pair_up`.
    """
    last = best.new_full((len(best), 1), -torch.inf)
    if most < best.size(1):
        last = best.topk(most, dim=1, sorted=False).values.amin(1, keepdim=True)  # (B, 1)
    lowest = last.clamp(min=next_above(score_thr))
    image, prior = (best >= lowest).nonzero(as_tuple=True)
    return image, prior, lowest, (last <= score_thr).flatten()


def next_above(number: float) -> float:
    """The least float32 above a number."""
    return float(np.nextafter(np.float32(number), np.float32(np.inf)))


def pair_up(
    image: Tensor,
    prior: Tensor,
    scores: Tensor,
    lowest: Tensor,
    is_all: Tensor,
    nms_pre: int,
    most: int,
) -> Candidates:
    """Keep the best scores of each image, of the priors that are given.

    Args:
        image: (n,), ascending.
        prior: (n,), ascending in an image.
        scores: Of each class, (n, C).
        lowest: The lowest score that passes, of each image, (B, 1).
        is_all: Whether no other prior of the image has one that passes ``score_thr``, (B,).
        nms_pre: As in :func:`filter_scores`.
        most: As in :func:`filter_scores`.
    """
    row, label = (scores >= lowest[image]).nonzero(as_tuple=True)
    image = image[row]
    batch, num_classes = len(lowest), scores.size(1)
    of_class = (image * num_classes + label).bincount(minlength=batch * num_classes)
    # More than `most` by the second scores of the same priors: few, unless many scores are alike.
    few = of_class.view(batch, num_classes).sum(1) <= 2 * most
    found = Candidates(image, label, prior[row], scores[row, label], is_all & few)
    within = few.all()
    if nms_pre >= 0:
        within = within & (of_class.max() <= nms_pre)
    if within:
        return found
    return keep_best(found, num_classes, 2 * most, nms_pre)


def keep_best(found: Candidates, num_classes: int, most: int, nms_pre: int) -> Candidates:
    """Of each image the ``most`` best, and of those the ``nms_pre`` best of each class."""
    by_score = found.score.argsort(descending=True, stable=True)
    image, label = found.image[by_score], found.label[by_score]
    within = rank_in_group(image) < most
    if nms_pre >= 0:
        within &= rank_in_group(image * num_classes + label) < nms_pre
    kept = by_score[within].sort().values
    return Candidates(*(part[kept] for part in found[:4]), found.is_all)


def rank_in_group(group: Tensor) -> Tensor:
    """How many of the same group stand before each: (N,) int64 to (N,) int64."""
    by_group, order = group.sort(stable=True)
    place = torch.arange(len(group), device=group.device)
    rank = place - torch.searchsorted(by_group, by_group)
    return torch.empty_like(group).scatter_(0, order, rank)
