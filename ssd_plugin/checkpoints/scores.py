"""The layers of a detector's head that end in scores: for each prior of a cell, K of them.

Their channels are the priors of a cell, in order, and within each prior its scores: one a class, in
the order of the labels and, unless the loss is a sigmoid's, background last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

# The last convolutions of the two branches: of SSD's head, and of heads with one for all levels
# such as RetinaNet's.
CLASS_LAYER = re.compile(r'bbox_head\.(cls_convs\.\d+\.\d+|\w+_cls)\.(weight|bias)')
BOX_LAYER = re.compile(r'bbox_head\.(reg_convs\.\d+\.\d+|\w+_reg)\.(weight|bias)')


def class_layers(state: Mapping[str, Tensor]) -> list[str]:
    """The parameters whose rows are scores, weights and biases."""
    return [name for name in state if CLASS_LAYER.fullmatch(name)]


def split_scores(value: Tensor, outputs: int) -> Tensor:
    """Rows (A * K, ...) of A priors as (A, K, ...)."""
    return value.unflatten(0, (-1, outputs))


def select_scores(value: Tensor, outputs: int, order: Sequence[int]) -> Tensor:
    """Rows (A * K, ...) of A priors with these of their K scores, in this order."""
    return split_scores(value, outputs)[:, list(order)].flatten(0, 1)


def priors_per_cell(state: Mapping[str, Tensor]) -> list[int]:
    """The number of priors of a cell, by level, as the weights of the box branch have it."""
    layers = [n for n in state if BOX_LAYER.fullmatch(n) and n.endswith('weight')]
    return [len(state[name]) // 4 for name in layers]


def scores_per_prior(state: Mapping[str, Tensor]) -> int | None:
    """The number of scores of a prior, K; None if the class branch isn't one of these priors."""
    priors = sum(priors_per_cell(state))
    channels = sum(len(state[name]) for name in class_layers(state) if name.endswith('weight'))
    return channels // priors if priors and channels % priors == 0 and channels else None
