"""The best IoU of each object with any prior, without looking at every prior.

A level's priors of one shape differ in their centres only, which lie on a grid. The intersection
of an object with such a prior is the product of two lengths, one an axis, and neither grows with
the distance of the centres along its axis. So the best of them is the one whose centre is nearest
to the object's along both axes: of the 8732 priors of SSD300, 32 are looked at.

That holds for priors that are not clipped to the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

from ssd_plugin.analysis.prior_grid import PriorGrid


class Grid(NamedTuple):
    """Centres of the cells of one level."""

    stride: tuple[float, float]  # (w, h) in pixels
    cells: tuple[int, int]  # how many across, how many down
    offset: float  # of the first centre from the image's edge, as a share of the stride


def grids_of(grid: PriorGrid) -> list[Grid]:
    """The grid of each level of a detector."""
    generator = grid.generator
    return [
        Grid(stride, (width, height), offset)
        for stride, (height, width), offset in zip(
            generator.strides, grid.featmap_sizes, generator.center_offset, strict=True
        )
    ]


def distance_to_grid(centres: np.ndarray, grid: Grid) -> np.ndarray:
    """Distance of points (2, N) to the nearest centre of a grid, along each axis: (2, N)."""
    stride, cells = np.array(grid.stride)[:, None], np.array(grid.cells)[:, None]
    cell = np.rint(centres / stride - grid.offset).clip(0, cells - 1)
    return np.abs((cell + grid.offset) * stride - centres)


def shapes_of(min_size: float, max_size: float, ratios: Sequence[float]) -> np.ndarray:
    """Priors of one cell by ``SSDPriorGenerator``'s arguments: (2, A), w and h in pixels."""
    roots = np.sqrt(ratios)
    wide, high = min_size * roots, min_size / roots
    squares = [min_size, sqrt(min_size * max_size)]
    return np.array([[*squares, *wide, *high], [*squares, *high, *wide]])


def best_iou(sides: np.ndarray, distances: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Best IoU of each object with the priors of one level.

    Args:
        sides: (2, N), w and h of the objects.
        distances: (2, N), from :func:`distance_to_grid`.
        shapes: (2, A), w and h of the level's priors.

    Returns:
        (N,).
    """
    width, height = (_overlap(*axis) for axis in zip(sides, distances, shapes))  # (A, N)
    inter = np.multiply(width, height, out=width)
    areas = sides[0] * sides[1] + (shapes[0] * shapes[1])[:, None]
    areas -= inter
    return np.divide(inter, areas, out=inter).max(0)


def _overlap(sides: np.ndarray, distances: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Length along one axis that N objects and A priors share, (A, N)."""
    shapes = shapes[:, None]
    length = (sides / 2 - distances) + shapes / 2
    np.minimum(length, np.minimum(sides, shapes), out=length)
    return np.maximum(length, 0, out=length)
