"""Whether priors fit the network input, and which strides and sizes do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.detectors.base import BaseDetector
from mmengine.config import Config

from ssd_plugin.analysis.prior_grid import PriorGrid, existing_maps
from ssd_plugin.datasets.config import input_size
from ssd_plugin.models.priors import SSDPriorGenerator, covers

# How far outside of the input a cell's centre may lie, as a share of the side. The paper's own
# SSD300 needs it: the last centres of its third level are at 304 of 300 pixels.
SLACK = 0.02
# By how much an input grows to see by how much each level shrinks it: a multiple of such factors.
GROWTH = 1024


def misfits(grid: PriorGrid) -> list[str]:
    """What of the priors does not fit the network input: a phrase for each level and direction.

    A level fits if all centres of its cells lie inside the input, and the cells, taken together,
    miss the input's side by less than one cell.
    """
    found = []
    levels = zip(grid.featmap_sizes, grid.generator.strides, grid.generator.center_offset)
    for level, (cells, strides, offset) in enumerate(levels):
        for direction, n, stride, side in zip(
            ('wide', 'high'), cells[::-1], strides, grid.input_size
        ):
            if not fits(n, stride, offset, side, SLACK):
                last = (n - 1 + offset) * stride
                found.append(
                    f'level {level} is {n} cell{"s" * (n > 1)} of {stride:g} pixels {direction}, '
                    f'the last centred at {last:g}'
                )
    return found


def fits(cells: int, stride: float, offset: float, side: int, slack: float = 0) -> bool:
    """Whether cells in a row cover the input's side, with their centres inside of it.

    ``slack`` is how far outside centres may lie, as a share of the side.
    """
    first, last = offset * stride, (cells - 1 + offset) * stride
    inside = first >= -slack * side and last <= (1 + slack) * side
    return inside and covers(cells, stride, side)


def fit_priors_to_input(cfg: Config, model: BaseDetector, size: tuple[int, int]) -> dict[str, Any]:
    """Arguments of a config's ``SSDPriorGenerator`` that fit a network input of (w, h) pixels.

    A stride by which the network itself shrinks the input to this level stays, if all centres lie
    inside the new input; any other becomes the input's side over the number of cells. Sizes grow
    with the shorter side. At the size that the priors are made for, all that fits stays.

    Args:
        cfg: The config.
        model: Its detector, on the meta device.
        size: (w, h).

    Returns:
        ``input_size``, ``strides`` and, unless they follow from ``basesize_ratio_range``,
        ``min_sizes`` and ``max_sizes``.

    Raises:
        ConfigError: If the feature map of a level vanishes.
    """
    generator = model.bbox_head.prior_generator
    own_size = size_of_priors(cfg, generator)
    maps = existing_maps(model, size)
    larger = existing_maps(model, (size[0] + GROWTH, size[1] + GROWTH))
    strides = []
    for cells, more, given, offset in zip(maps, larger, generator.strides, generator.center_offset):
        pair = []
        for n, m, stride, side in zip(cells[::-1], more[::-1], given, size):
            is_networks = stride * (m - n) == GROWTH
            stays = (is_networks and fits(n, stride, offset, side)) or (
                own_size == size and fits(n, stride, offset, side, SLACK)
            )
            pair.append(stride if stays else tidy(side / n))
        strides.append(tuple(pair) if pair[0] != pair[1] else pair[0])
    values: dict[str, Any] = dict(input_size=size if size[0] != size[1] else size[0])
    values['strides'] = strides
    linear = cfg.model.bbox_head.anchor_generator.get('basesize_ratio_range') is not None
    if size != own_size and not linear:
        factor = min(size) / min(own_size)
        for name in ('min_sizes', 'max_sizes'):
            values[name] = grown(getattr(generator, name), factor)
    return values


def grown(sizes: Sequence[float | Sequence[float]], factor: float) -> list:
    """Sizes of the levels, of which some may have several, times a factor."""
    return [
        grown(size, factor) if isinstance(size, Sequence) else tidy(size * factor) for size in sizes
    ]


def size_of_priors(cfg: Config, generator: SSDPriorGenerator) -> tuple[int, int]:
    """The (w, h) of the network input that a config's priors are made for, in pixels.

    That is the generator's ``input_size``, or the pipeline's if it neither has nor uses one.
    """
    stated = cfg.model.bbox_head.anchor_generator
    used = generator.clip or generator.clip_sides or stated.get('basesize_ratio_range')
    return tuple(generator.input_size) if used or 'input_size' in stated else input_size(cfg)


def tidy(number: float) -> float:
    """Rounded to hundredths, and an int where that makes no difference."""
    rounded = round(number, 2)
    return int(rounded) if rounded == int(rounded) else rounded
