"""From boxes to offsets and back, as ``DeltaXYWHBBoxCoder`` does it, and waiting for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.coders.base_bbox_coder import BaseBBoxCoder
from torch import Tensor

# MMDetection's: no side is decoded to more than 62.5 times that of its prior, or to less than that.
MAX_LOG_RATIO = float(abs(np.log(16 / 1000)))


def encode(coder: BaseBBoxCoder, priors: Tensor, bboxes: Tensor) -> Tensor:
    """Offsets of boxes from priors, by any coder.

    ``DeltaXYWHBBoxCoder`` makes tensors of its means and deviations each time, and copying those
    to an accelerator waits for all that it has to do before. So its formula is computed here, with
    the same result: ((x_g - x_p) / w_p - mean) / std and (log(w_g / w_p) - mean) / std; likewise
    for y and h.

    Args:
        coder: ``DeltaXYWHBBoxCoder``, or another, whose ``encode`` is called.
        priors: (n, 4) xyxy.
        bboxes: (n, 4) xyxy.

    Returns:
        (n, 4).
    """
    if type(coder) is not DeltaXYWHBBoxCoder:
        return coder.encode(priors, bboxes)
    centre, size = centre_and_size(priors.float())
    gt_centre, gt_size = centre_and_size(bboxes.float())
    offsets = torch.cat([(gt_centre - centre) / size, (gt_size / size).log()], dim=1)
    columns = zip(offsets.unbind(1), coder.means, coder.stds, strict=True)
    return torch.stack([(offset - mean) / std for offset, mean, std in columns], dim=1)


def decode(coder: BaseBBoxCoder, priors: Tensor, offsets: Tensor) -> Tensor:
    """Boxes (n, 4) xyxy, not clipped, from priors (n, 4) and offsets (n, 4): see :func:`encode`."""
    if type(coder) is not DeltaXYWHBBoxCoder or coder.add_ctr_clamp:
        return coder.decode(priors, offsets)
    columns = zip(offsets.unbind(1), coder.means, coder.stds, strict=True)
    x, y, w, h = (offset * std + mean for offset, mean, std in columns)
    centre, size = centre_and_size(priors)
    centre = centre + size * torch.stack([x, y], dim=1)
    ratio = torch.stack([w, h], dim=1).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    half = size * ratio * 0.5
    return torch.cat([centre - half, centre + half], dim=1)


def centre_and_size(bboxes: Tensor) -> Sequence[Tensor]:
    """(n, 4) xyxy to (n, 2) centres and (n, 2) widths and heights."""
    top_left, bottom_right = bboxes[:, :2], bboxes[:, 2:]
    return (top_left + bottom_right) * 0.5, bottom_right - top_left
