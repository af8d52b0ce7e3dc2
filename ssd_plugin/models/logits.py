"""From scores before softmax or sigmoid to detections, with no more of those than needed."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ssd_plugin.models.candidates import Candidates, best_priors, pair_up
from ssd_plugin.models.devices import values_are_free
from ssd_plugin.models.postprocess import detect, detect_among, detect_listed

# Of all priors, the part up to which it is cheaper to pick them than to take the softmax of all.
FEW = 1 / 4
# Nearer to 1, probabilities in float32 are too coarse to be compared by their logits.
HIGHEST_THR = 0.9


def detect_from_logits(
    logits: Tensor,
    use_sigmoid: bool,
    decode: Callable[[Tensor, Tensor], Tensor],
    test_cfg: dict,
    with_nms: bool = True,
) -> list[InstanceData]:
    """:func:`ssd_plugin.models.postprocess.detect` of probabilities yet to be computed.

    In a trained detector nearly all priors are background, surely: they need no softmax. Which they
    are is looked at only on the CPU; elsewhere, to know how many are left means to wait.

    Args:
        logits: Of each class and prior, (B, C, P) before sigmoid; or (B, C + 1, P) before softmax,
            background the last. They are written over, unless they require a gradient.
        use_sigmoid: Whether it is by sigmoid.
        decode: See ``detect``.
        test_cfg: See ``detect``.
        with_nms: See ``detect``.
    """
    highest = (logits if use_sigmoid else logits[:, :-1]).amax(1)  # (B, P)
    score_thr = test_cfg.get('score_thr', 0)
    if 0 < score_thr <= HIGHEST_THR and values_are_free(logits):
        likely = may_exceed(highest if use_sigmoid else highest - logits[:, -1], score_thr)
        if likely.count_nonzero() <= FEW * likely.numel():
            image, prior = likely.nonzero(as_tuple=True)
            few = probabilities(logits[image, :, prior], use_sigmoid)
            shape = len(logits), few.size(1), logits.size(2)
            return detect_among(image, prior, few, shape, decode, test_cfg, with_nms)
    if logits.requires_grad:
        return detect(probabilities(logits, use_sigmoid), decode, test_cfg, with_nms)
    # In place from here on: to allocate as much again may take longer than to fill it.
    if use_sigmoid:
        return detect(logits.sigmoid_(), decode, test_cfg, with_nms)
    return detect_by_softmax_(logits, highest, decode, test_cfg, with_nms)


def detect_by_softmax_(
    logits: Tensor,
    highest: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    test_cfg: dict,
    with_nms: bool,
) -> list[InstanceData]:
    """:func:`detect_from_logits` by softmax, which is divided by its sum only for the best priors.

    Args:
        logits: (B, C + 1, P).
        highest: Each prior's of the C classes, (B, P).
        decode: See ``detect``; also the rest.
    """
    # Of background it may be inf; then the classes' probabilities, below 1e-38, become 0.
    powers = logits.sub_(highest.unsqueeze(1)).exp_()
    total = powers.sum(1)  # (B, P)
    best = total.reciprocal().nan_to_num(nan=-torch.inf)  # the power of the highest is 1
    score_thr, nms_pre = test_cfg.get('score_thr', 0), test_cfg.get('nms_pre', -1)

    def shortlist(most: int) -> Candidates:
        image, prior, lowest, is_all = best_priors(best, score_thr, most)
        scores = powers[image, :-1, prior] / total[image, prior].unsqueeze(1)
        return pair_up(image, prior, scores, lowest, is_all, nms_pre, most)

    shape = len(logits), logits.size(1) - 1, logits.size(2)
    return detect_listed(shortlist, shape, decode, test_cfg, with_nms)


def may_exceed(margin: Tensor, score_thr: float) -> Tensor:
    """Whether the probability of some class can be above a threshold.

    By softmax, a class with logit a beside background with logit b has at most
    1 / (1 + exp(b - a)), which is more than t where a - b > log(t / (1 - t)). By sigmoid it has
    just that, with b = 0.

    Args:
        margin: The highest of a - b among the classes; NaN exceeds nothing.
        score_thr: The threshold, above 0 and at most ``HIGHEST_THR``.

    Returns:
        bool, of the same shape.
    """
    # Up to that threshold, float32 moves the logit of a probability by less than 1e-5.
    return margin > log(score_thr / (1 - score_thr)) - 1e-5


def probabilities(logits: Tensor, use_sigmoid: bool) -> Tensor:
    """Of the C classes, without background: (N, C or C + 1, ...) to (N, C, ...)."""
    return logits.sigmoid() if use_sigmoid else logits.softmax(1)[:, :-1]
