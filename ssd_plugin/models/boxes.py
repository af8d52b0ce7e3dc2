"""Boxes: which ones are valid, how far they overlap, and how they are encoded as deltas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.coders.base_bbox_coder import BaseBBoxCoder
from torch import Tensor

# Sides in pixels. Outside of this range, deltas from a prior or areas may leave float32.
SMALLEST_SIDE, LARGEST_SIDE = 1e-6, 1e6
SMALLEST_AREA = 1e-6  # the least that an area is divided by
# DeltaXYWHBBoxCoder's default: a decoded side is between 1/62.5 and 62.5 times the prior's.
MAX_LOG_RATIO = float(abs(np.log(16 / 1000)))


def is_valid_box(bboxes: Tensor) -> Tensor:
    """Whether boxes (..., 4) xyxy in pixels are finite, with sides from 1e-6 to 1e6 pixels."""
    size = bboxes[..., 2:] - bboxes[..., :2]
    # The difference of two infinities is NaN, and every comparison with NaN is False.
    return ((size >= SMALLEST_SIDE) & (size <= LARGEST_SIDE)).all(-1)


def valid_gt_mask(bboxes: Tensor, img_shape: Sequence[int | Tensor]) -> Tensor:
    """Which ground-truth boxes can be trained on, (...) bool: they are valid and touch the image.

    Args:
        bboxes: (..., 4) xyxy in pixels.
        img_shape: (h, w) in pixels: two numbers, or two tensors that broadcast against (...).
    """
    height, width = img_shape
    left, top, right, bottom = bboxes.unbind(-1)
    touches = (right > 0) & (bottom > 0) & (left < width) & (top < height)
    return is_valid_box(bboxes) & touches


def iou(bboxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) xyxy; 0 for boxes without area.

    They broadcast: boxes (B, G, 1, 4) and priors (P, 4) give (B, G, P). Computed coordinate by
    coordinate and in place: these tensors are the largest ones of the matching, and allocating new
    memory for each operation takes longer than the arithmetic.
    """
    intersection = _intersection(bboxes, others)
    areas = _area(bboxes) + _area(others)
    return intersection.div_(areas.sub_(intersection).clamp_(min=SMALLEST_AREA))


def iof(bboxes: Tensor, priors: Tensor) -> Tensor:
    """Share of each prior's area that lies inside a box; shapes as for :func:`iou`."""
    return _intersection(bboxes, priors).div_(_area(priors).clamp(min=SMALLEST_AREA))


def _intersection(bboxes: Tensor, others: Tensor) -> Tensor:
    x1, y1, x2, y2 = bboxes.unbind(-1)
    left, top, right, bottom = others.movedim(-1, 0).contiguous()
    width = torch.minimum(x2, right)
    width.sub_(torch.maximum(x1, left)).clamp_(min=0)
    height = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).clamp_(min=0)
    return width.mul_(height)


def _area(bboxes: Tensor) -> Tensor:
    x1, y1, x2, y2 = bboxes.unbind(-1)
    return (x2 - x1) * (y2 - y1)


class DeltaCoder:
    """The formulas of MMDetection's ``DeltaXYWHBBoxCoder``, without its synchronisations.

    MMDetection's coder makes tensors of its means and standard deviations in each call. Copying
    them to a GPU waits for all that the GPU still has to do, several times in a training step.

    For a prior (x, y, w, h) and a box (x', y', w', h') the deltas are ((x' - x) / w - mean) / std
    and (log(w' / w) - mean) / std; likewise for y and h (paper, section 2.2, formula 2).

    Args:
        coder: Has the means and the standard deviations.
    """

    def __init__(self, coder: DeltaXYWHBBoxCoder) -> None:
        self.means, self.stds = coder.means, coder.stds

    def encode(self, priors: Tensor, bboxes: Tensor) -> Tensor:
        """Deltas (n, 4) from priors (n, 4) xyxy to boxes (n, 4) xyxy."""
        centre, size = _centre_and_size(priors.float())
        gt_centre, gt_size = _centre_and_size(bboxes.float())
        deltas = torch.cat([(gt_centre - centre) / size, (gt_size / size).log()], dim=1)
        columns = zip(deltas.unbind(1), self.means, self.stds, strict=True)
        return torch.stack([(delta - mean) / std for delta, mean, std in columns], dim=1)

    def decode(self, priors: Tensor, deltas: Tensor) -> Tensor:
        """Boxes (n, 4) xyxy, not clipped, from priors (n, 4) xyxy and deltas (n, 4)."""
        columns = zip(deltas.unbind(1), self.means, self.stds, strict=True)
        x, y, w, h = (delta * std + mean for delta, mean, std in columns)
        centre, size = _centre_and_size(priors)
        centre = centre + size * torch.stack([x, y], dim=1)
        ratio = torch.stack([w, h], dim=1).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        half = size * ratio * 0.5
        return torch.cat([centre - half, centre + half], dim=1)


BoxCoder: TypeAlias = DeltaCoder | BaseBBoxCoder  # what encodes and decodes (n, 4) boxes


def without_synchronisation(coder: BaseBBoxCoder) -> BoxCoder:
    """The coder that a head computes with: :class:`DeltaCoder` where it gives the same result."""
    if type(coder) is DeltaXYWHBBoxCoder and not coder.add_ctr_clamp:
        return DeltaCoder(coder)
    return coder


def _centre_and_size(bboxes: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 4) xyxy to (n, 2) centres and (n, 2) widths and heights."""
    top_left, bottom_right = bboxes[:, :2], bboxes[:, 2:]
    return (top_left + bottom_right) * 0.5, bottom_right - top_left
