"""Default boxes ("priors") of SSD, for any input size and any number of levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from math import sqrt
from typing import Any

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS
from torch import Tensor
from torch.nn.modules.utils import _ntuple, _pair, _single

# Priors are the same in every step of a fixed-size detector, so they are kept; the bound only
# matters to training on ever-changing input sizes.
MAX_CACHED_SHAPES = 8


@TASK_UTILS.register_module()
class SSDPriorGenerator(AnchorGenerator):
    """Priors of SSD (paper, section 2.2).

    A cell (i, j) of level k, whose stride is s and whose sizes are m and M, has its priors'
    centre at ``((j + 0.5) s, (i + 0.5) s)`` and, in this order: a square of side m; a square of
    side sqrt(m M); then for each aspect ratio r the boxes ``(m sqrt(r), m / sqrt(r))`` and
    ``(m / sqrt(r), m sqrt(r))`` as (w, h). Sizes are real numbers and are never rounded.

    Sizes are given by ``min_sizes`` and ``max_sizes``, or follow from ``basesize_ratio_range`` by
    the paper's linear rule over *all* levels. (The released SSD models give their first level
    about half of the smallest scale, outside that rule: their configs state sizes.)

    Args:
        strides: Stride of each level in pixels of the network input, a number or (w, h). It need
            not be the input's side over the map's: that of 300 pixels on a 19 x 19 map is 16.
        ratios: Aspect ratios (w / h) of each level, without 1 and without reciprocals.
        min_sizes: m of each level, in pixels; a list for several, whose priors follow each other.
        max_sizes: M of each level, in pixels; a list for several m, ``[]`` for no second square.
        basesize_ratio_range: Smallest and largest scale as a share of the input's shorter side.
        input_size: Network input in pixels, a side or (w, h). Used by ``basesize_ratio_range``
            and by ``clip`` and ``clip_sides``.
        center_offset: Where in a cell its centre lies, as a share of the stride; or one a level.
        clip: Whether to clip priors to the input. Off in the paper's released models.
        clip_sides: Whether to clip widths and heights to the input's, as torchvision does.
        flip: Whether a ratio r also gives the prior of 1 / r.

    Raises:
        ValueError: If the lists differ in length, not exactly one way of giving sizes is used, a
            number is not positive, a level has unlike numbers of sizes or the same ratio twice, or
            shares are in percent.
    """

    use_box_type = False

    def __init__(
        self,
        strides: Sequence[float | tuple[float, float]],
        ratios: Sequence[Sequence[float]],
        min_sizes: Sequence[float | Sequence[float]] | None = None,
        max_sizes: Sequence[float | Sequence[float]] | None = None,
        basesize_ratio_range: tuple[float, float] | None = None,
        input_size: int | tuple[int, int] = 300,
        center_offset: float | Sequence[float] = 0.5,
        clip: bool = False,
        clip_sides: bool = False,
        flip: bool = True,
    ) -> None:
        self.strides = [_pair(stride) for stride in strides]
        self.input_size = _pair(input_size)
        self.center_offset = _ntuple(len(strides))(center_offset)
        if not all(0 <= offset <= 1 for offset in self.center_offset):
            raise ValueError(f'SSDPriorGenerator: center_offset {center_offset} is not from 0 to 1')
        self.clip, self.clip_sides, self.flip = clip, clip_sides, flip
        if (basesize_ratio_range is None) == (min_sizes is None and max_sizes is None):
            ways = 'min_sizes and max_sizes, or basesize_ratio_range'
            raise ValueError(f'SSDPriorGenerator takes either {ways}')
        if basesize_ratio_range is not None:
            if max(basesize_ratio_range) > 2:
                shares = tuple(percent / 100 for percent in basesize_ratio_range)
                raise ValueError(f'SSDPriorGenerator: write basesize_ratio_range={shares}, shares')
            side = min(self.input_size)
            min_sizes, max_sizes = linear_sizes(basesize_ratio_range, len(strides), side)
        self.ratios, self.min_sizes, self.max_sizes = ratios, min_sizes or (), max_sizes or ()
        for name in ('center_offset', 'strides', 'ratios', 'min_sizes', 'max_sizes'):
            values = getattr(self, name)
            if len(values) != len(strides):
                counts = f'{name} has {len(values)} levels, strides has {len(strides)}'
                raise ValueError(f'SSDPriorGenerator: {counts}')
            if name != 'center_offset' and any(v <= 0 for level in values for v in _single(level)):
                raise ValueError(f'SSDPriorGenerator: {name} must be positive, got {values}')
        for level in ratios if flip else ():
            twice = [r for r in level if r == 1 or 1 / r in level]
            if twice:
                what = 'without 1, whose squares there are anyway, and without reciprocals'
                raise ValueError(f'SSDPriorGenerator: write ratios {list(level)} {what}')
        self.base_anchors = self.gen_base_anchors()
        self._cache: dict[tuple, list[Tensor]] = {}

    def gen_base_anchors(self) -> list[Tensor]:
        """Priors of each level's first cell: a list of (A_k, 4) xyxy in pixels."""
        levels = []
        settings = (self.strides, self.center_offset, self.min_sizes, self.max_sizes, self.ratios)
        for stride, offset, smaller, larger, ratios in zip(*settings, strict=True):
            small, large = _single(smaller), _single(larger)
            if not small or len(large) not in (0, len(small)):
                raise ValueError(f'SSDPriorGenerator: min_sizes {small}, but max_sizes {large}')
            sizes = []
            for m, M in zip_longest(small, large):
                sizes += [(m, m)] if M is None else [(m, m), (sqrt(m * M), sqrt(m * M))]
                for r in ratios:
                    wide = m * sqrt(r), m / sqrt(r)
                    sizes += [wide, wide[::-1]] if self.flip else [wide]
            sides = torch.tensor(sizes, dtype=torch.float64)  # (A_k, 2): w, h
            if self.clip_sides:
                sides = sides.minimum(sides.new_tensor(self.input_size))
            half = sides / 2
            centre = offset * torch.tensor(stride, dtype=torch.float64)
            levels.append(torch.cat([centre - half, centre + half], dim=1).float())
        return levels

    def grid_priors(
        self,
        featmap_sizes: Sequence[tuple[int, int]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cuda',
    ) -> list[Tensor]:
        """Priors of all levels.

        ``featmap_sizes`` are the (h, w) of each level's feature map.

        Returns:
            A tensor (h_k * w_k * A_k, 4) of xyxy in pixels for each level, cell by cell in row
            order, as a convolution's output ``permute(0, 2, 3, 1)`` has them. Kept for the next
            call of the same shape: do not change them in place.
        """
        if len(featmap_sizes) != self.num_levels:
            raise ValueError(
                f'SSDPriorGenerator has {self.num_levels} levels, of strides {self.strides}, but '
                f'there are {len(featmap_sizes)} feature maps, of sizes {list(featmap_sizes)}'
            )
        key = (tuple(map(tuple, featmap_sizes)), dtype, torch.device(device))
        if key not in self._cache:
            if len(self._cache) >= MAX_CACHED_SHAPES:
                self._cache.clear()
            self._cache[key] = super().grid_priors(featmap_sizes, dtype, device)
        return self._cache[key]

    def single_level_grid_priors(
        self,
        featmap_size: tuple[int, int],
        level_idx: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cuda',
    ) -> Tensor:
        """Priors of one level, (h * w * A, 4); see :meth:`grid_priors`."""
        priors = super().single_level_grid_priors(featmap_size, level_idx, dtype, device)
        if self.clip:
            priors = priors.clamp(min=0).minimum(priors.new_tensor(self.input_size * 2))
        return priors

    def sparse_priors(self, prior_idxs: Tensor, *level: Any, **options: Any) -> Tensor:
        """The priors (n, 4) numbered ``prior_idxs`` (n,) of :meth:`single_level_grid_priors`."""
        return self.single_level_grid_priors(*level, **options)[prior_idxs]

    def __repr__(self) -> str:
        names = 'strides ratios min_sizes max_sizes input_size center_offset clip clip_sides flip'
        values = ', '.join(f'{name}={getattr(self, name)}' for name in names.split())
        return f'{type(self).__name__}({values})'


def linear_sizes(
    ratio_range: tuple[float, float], num_levels: int, side: float
) -> tuple[list[float], list[float]]:
    """Sizes of all levels: s_k = s_min + (s_max - s_min) / (m - 1) * (k - 1) (paper, formula 4).

    A level's max size is the next level's min size, and the last level's lies one step further.
    ``ratio_range`` is (s_min, s_max), shares of ``side``. Returns min sizes and max sizes in the
    unit of ``side``, one of each a level.
    """
    s_min, s_max = ratio_range
    step = (s_max - s_min) / max(num_levels - 1, 1)
    sizes = [(s_min + step * k) * side for k in range(num_levels + 1)]
    return sizes[:-1], sizes[1:]


def check_cover(
    featmap_sizes: Sequence[tuple[int, ...]],
    strides: Sequence[tuple[float, float]],
    input_shape: tuple[int, int],
) -> None:
    """Raise a ValueError unless the cells (h, w) of each level cover the input (h, w)."""
    for level, (cells, stride) in enumerate(zip(featmap_sizes, strides)):
        for direction, n, step, side in zip(('high', 'wide'), cells, stride[::-1], input_shape):
            if not covers(n, step, side):
                raise ValueError(
                    f'the priors do not fit the feature maps: level {level} is {n} cells '
                    f'{direction}, {n * step:g} pixels at its stride of {step:g}, but the network '
                    f'input is {side} pixels; see docs/configs.md, "Another input size"'
                )


def covers(cells: int, stride: float, side: float) -> bool:
    """Whether cells in a row miss the input's side by less than a cell, and are centred in it."""
    return abs(cells * stride - side) < min(stride, side)
