"""The IoU that priors of given sizes and ratios reach with each ground-truth box.

Not every prior is looked at. A level's priors of one shape differ only in their centres, which lie
on a grid. The intersection of a box with such a prior is the product of two lengths, one along each
axis, and neither grows with the distance of the centres along its axis. So the prior of this shape
with the highest IoU is the one whose centre is nearest to the box's along both axes: of the 8732
priors of SSD300, 32 are looked at.

This holds for priors that are not clipped to the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple, cast

import numpy as np

from ssd_plugin.analysis.fit_priors.boxes import TrainingBoxes
from ssd_plugin.analysis.prior_grid import PriorGrid
from ssd_plugin.models.priors import SSDPriorGenerator

WEIGHT = 10  # in the score, of the share at IoU 0.5


class PriorArgs(NamedTuple):
    """The arguments of ``SSDPriorGenerator`` that are fitted, one of each for each level."""

    min_sizes: list[float]  # in pixels of the network input
    max_sizes: list[float]
    ratios: list[list[float]]

    @classmethod
    def of(cls, generator: SSDPriorGenerator) -> PriorArgs:
        """Those of a generator, which may have been built with ``basesize_ratio_range``.

        Its levels must have one min size and one max size each.
        """
        ratios = [list(level) for level in generator.ratios]
        sizes = [list(generator.min_sizes), list(generator.max_sizes)]
        min_sizes, max_sizes = cast(list[list[float]], sizes)
        return cls(min_sizes, max_sizes, ratios)

    def put_into(self, generator: SSDPriorGenerator) -> SSDPriorGenerator:
        """A generator with these arguments that is like the given one otherwise."""
        names = ('strides', 'input_size', 'center_offset', 'clip', 'clip_sides')
        kept = {name: getattr(generator, name) for name in names}
        return type(generator)(**self._asdict(), **kept)

    def rounded(self) -> PriorArgs:
        """Rounded to tenths of pixels and hundredths of ratios, as a person would write them."""
        return PriorArgs(
            [round(float(size), 1) for size in self.min_sizes],
            [round(float(size), 1) for size in self.max_sizes],
            [sorted(round(float(ratio), 2) for ratio in level) for level in self.ratios],
        )

    def to_logs(self) -> list[np.ndarray]:
        """For each level (2 + R,): logarithms of min size, of max size / min size, of ratios.

        A ratio below 1 stands for the same two priors as its inverse, which is taken.
        """
        return [
            np.concatenate([np.log([m, M / m]), np.abs(np.log(ratios))])
            for m, M, ratios in zip(*self, strict=True)
        ]

    @classmethod
    def from_logs(cls, logs: Sequence[np.ndarray]) -> PriorArgs:
        """The inverse of :meth:`to_logs`."""
        levels = [np.exp(level) for level in logs]
        min_sizes, max_sizes = [m for m, *_ in levels], [m * step for m, step, *_ in levels]
        return cls(min_sizes, max_sizes, [list(level[2:]) for level in levels])


class Problem:
    """What priors are fitted to: the boxes, and the grids on which the priors' centres lie.

    The sizes and ratios of ``grid`` are disregarded.
    """

    def __init__(self, boxes: TrainingBoxes, grid: PriorGrid) -> None:
        generator = grid.generator
        self.sides, self.strides, self.input_size = boxes.sides, generator.strides, grid.input_size
        # With clip_sides no prior is larger than the input.
        largest = generator.input_size if generator.clip_sides else (np.inf, np.inf)
        self.largest = np.array(largest, dtype=float)[:, None]
        levels = zip(self.strides, grid.featmap_sizes, generator.center_offset, strict=True)
        self.distances = [
            distance_to_grid(boxes.centres, stride, cells[::-1], offset)
            for stride, cells, offset in levels
        ]

    def level_iou(self, level: int, logs: np.ndarray) -> np.ndarray:
        """Best IoU of each box with the priors of one level, (N,)."""
        m, step, *ratios = np.exp(logs)
        shapes = np.minimum(shapes_of(m, m * step, ratios), self.largest)
        return best_iou(self.sides, self.distances[level], shapes)

    def iou(self, logs: Sequence[np.ndarray]) -> np.ndarray:
        """Best IoU of each box with any prior, (N,)."""
        return np.max([self.level_iou(k, level) for k, level in enumerate(logs)], 0)


def score(iou: np.ndarray) -> float:
    """The number from 0 to 12 that is maximised, from the best IoU of each box (N,).

    It is ten times the share of boxes with an IoU of at least 0.5, plus the share with at least
    0.7, plus the mean IoU. The first weighs most because a box below 0.5 is learnt from a single
    prior, which fits badly.
    """
    counts = WEIGHT * np.count_nonzero(iou >= 0.5) + np.count_nonzero(iou >= 0.7)
    return (counts + float(iou.sum())) / len(iou)


def distance_to_grid(
    centres: np.ndarray, stride: tuple[float, float], cells: tuple[int, int], offset: float
) -> np.ndarray:
    """Distance (2, N) of points (2, N) to the nearest centre of a level's cells, along each axis.

    All in pixels. ``stride`` is the (w, h) of a cell, ``cells`` how many there are across and down,
    ``offset`` the distance of the first centre from the image's edge as a share of the stride.
    """
    step, last = np.array(stride)[:, None], np.array(cells)[:, None] - 1
    cell = np.rint(centres / step - offset).clip(0, last)
    return np.abs((cell + offset) * step - centres)


def shapes_of(min_size: float, max_size: float, ratios: Sequence[float]) -> np.ndarray:
    """Sides of the priors of one cell by ``SSDPriorGenerator``'s arguments: (2, A), w and h."""
    roots = np.sqrt(ratios)
    wide, high = min_size * roots, min_size / roots
    squares = [min_size, sqrt(min_size * max_size)]
    return np.array([[*squares, *wide, *high], [*squares, *high, *wide]])


def best_iou(sides: np.ndarray, distances: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Best IoU (N,) of boxes with w and h ``sides`` (2, N) and a level's priors ``shapes`` (2, A).

    ``distances`` (2, N) are those of :func:`distance_to_grid`.
    """
    sides, shapes = sides[:, None], shapes[:, :, None]  # (2, 1, N), (2, A, 1)
    length = (sides / 2 - distances[:, None]) + shapes / 2  # shared along each axis, (2, A, N)
    np.minimum(length, np.minimum(sides, shapes), out=length)
    width, height = np.maximum(length, 0, out=length)
    inter = np.multiply(width, height, out=width)
    areas = sides[0] * sides[1] + shapes[0] * shapes[1]
    areas -= inter
    return np.divide(inter, areas, out=inter).max(0)
