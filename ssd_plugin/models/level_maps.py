"""The outputs of all levels, addressed by prior.

A head answers one map (B, A_k * C, H_k, W_k) a level. Matching and mining count priors, (B, P) in
all: level by level, in a level cell by cell in row order, and in a cell the A_k priors in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def flatten_levels(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Maps (B, A_k * channels, H_k, W_k) of all levels as (B, P, channels) float32.

    float32 because sums over thousands of priors and box sides need more digits than the half
    precision that convolutions do with.
    """
    batch = maps[0].size(0)
    flat = [m.permute(0, 2, 3, 1).reshape(batch, -1, channels) for m in maps]
    return torch.cat(flat, dim=1).float()


def stack_levels(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Maps (B, A_k * channels, H_k, W_k) of all levels as (B, channels, P) float32.

    What is done with all channels of each prior is then done with whole vectors of priors, which is
    several times as fast as where the channels of a prior lie side by side.
    """
    batch = len(maps[0])
    count = sum(level[0].numel() for level in maps) // channels
    stack = maps[0].new_empty(batch, channels, count, dtype=torch.float32)
    start = 0
    for level in maps:
        by_class = level.reshape(batch, -1, channels, level[0, 0].numel())
        by_cell = by_class.permute(0, 2, 3, 1)  # (B, channels, cells, A)
        end = start + by_cell[0, 0].numel()
        stack[:, :, start:end].view(by_cell.shape).copy_(by_cell)
        start = end
    return stack


def map_levels(
    maps: Sequence[Tensor], channels: int, function: Callable[[Tensor], Tensor]
) -> Tensor:
    """A number for each prior, computed where its channels lie in memory.

    Args:
        maps: (B, A_k * channels, H_k, W_k).
        channels: Channels of a prior.
        function: From (N, channels, ...) float32 to (N, ...).

    Returns:
        (B, P).
    """
    return torch.cat([_map_level(level.float(), channels, function) for level in maps], dim=1)


def _map_level(level: Tensor, channels: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    batch, _, *cells = level.shape
    if level.is_contiguous(memory_format=torch.channels_last):
        rows = level.permute(0, 2, 3, 1).reshape(-1, channels)
        return function(rows).reshape(batch, -1)
    values = function(level.reshape(-1, channels, *cells))  # (B * A, H, W)
    return values.reshape(batch, -1, *cells).permute(0, 2, 3, 1).flatten(1)


def select_levels(
    chosen: Tensor, maps: Sequence[Tensor], channels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The channels of the chosen priors, and which they are.

    Args:
        chosen: (B, P) bool, n of them True.
        maps: (B, A_k * channels, H_k, W_k).
        channels: Channels of a prior.

    Returns:
        (n, channels) float32, and the indices (n,) of their images and of their priors; ordered
        by level, then by image.
    """
    rows, images, priors = [], [], []
    start = 0
    for level in maps:
        height, width = level.shape[-2:]
        per_cell = level.size(1) // channels
        size = height * width * per_cell
        here = chosen[:, start : start + size].unflatten(1, (height, width, per_cell))
        image, y, x, number = here.nonzero(as_tuple=True)
        rows.append(_pick(level, channels, image, y, x, number).float())
        images.append(image)
        priors.append(start + (y * width + x) * per_cell + number)
        start += size
    return torch.cat(rows), torch.cat(images), torch.cat(priors)


def _pick(
    level: Tensor, channels: int, image: Tensor, y: Tensor, x: Tensor, number: Tensor
) -> Tensor:
    """(n, channels) of a map, indexed so that its gradient has the memory layout of the map."""
    by_prior = level.unflatten(1, (-1, channels))  # (B, A, channels, H, W)
    if level.is_contiguous(memory_format=torch.channels_last):
        return by_prior.permute(0, 3, 4, 1, 2)[image, y, x, number]
    return by_prior[image, number, :, y, x]
