"""From MMDetection's list of instances to one padded batch, and which boxes can be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ssd_plugin.models.devices import is_compiling

# Sides in pixels. Below and above them offsets from a prior, or areas, may leave float32.
SMALLEST_SIDE, LARGEST_SIDE = 1e-6, 1e6


class GroundTruth(NamedTuple):
    """Ground truth of a batch, padded to the image with most boxes (G >= 1)."""

    bboxes: Tensor  # (B, G, 4) xyxy in pixels of the network input
    labels: Tensor  # (B, G) int64, -1 where padded
    mask: Tensor  # (B, G) bool, False where padded or where the box takes no part


def has_area(bboxes: Tensor) -> Tensor:
    """Whether boxes (..., 4) xyxy have a width and height to compute with: (...) bool.

    That is one of a millionth to a million pixels; what is not finite has none.
    """
    size = bboxes[..., 2:] - bboxes[..., :2]
    # A difference of infinities is NaN, and comparisons with NaN are False.
    return ((size >= SMALLEST_SIDE) & (size <= LARGEST_SIDE)).all(-1)


def valid_gt_mask(bboxes: Tensor, img_shape: Tensor | Sequence[int]) -> Tensor:
    """Which ground-truth boxes can be trained on: with area, finite, and touching the image.

    Args:
        bboxes: Boxes (..., 4) xyxy in pixels.
        img_shape: (h, w) in pixels, as two numbers, or as a tensor (..., 2) that broadcasts
            against the boxes.

    Returns:
        A bool tensor (...).
    """
    height, width = img_shape.unbind(-1) if isinstance(img_shape, Tensor) else img_shape
    left, top, right, bottom = bboxes.unbind(-1)
    touches = (right > 0) & (bottom > 0) & (left < width) & (top < height)
    return has_area(bboxes) & touches


def batch_ignored(
    batch_instances: Sequence[InstanceData | None] | None, device: torch.device
) -> Tensor | None:
    """Ignored boxes of B images as (B, I, 4) float32, zeros where padded; None where none are."""
    if batch_instances is None:
        return None
    bboxes = [None if i is None else get_box_tensor(i.bboxes) for i in batch_instances]
    # An image that came without the field has none.
    empty = torch.zeros(0, 4, device=next((b.device for b in bboxes if b is not None), device))
    bboxes = pad_sequence([empty if b is None else b for b in bboxes], batch_first=True)
    return send(bboxes.float(), device)


def batch_ground_truth(
    batch_gt_instances: Sequence[InstanceData],
    batch_img_metas: Sequence[dict],
    device: torch.device,
) -> GroundTruth:
    """Pad the ground truth of B images into tensors and mask out what can't be trained on.

    Done where the instances are: on the host that takes less time than on an accelerator.

    Args:
        batch_gt_instances: For each image ``bboxes`` (n, 4) and ``labels`` (n,).
        batch_img_metas: For each image ``img_shape``, the (h, w) of the network input in pixels.
        device: Where the tensors are to be.

    Returns:
        The batch as tensors; see :class:`GroundTruth`.
    """
    bboxes = [get_box_tensor(i.bboxes) for i in batch_gt_instances]
    bboxes = pad_sequence(bboxes, batch_first=True).float()
    labels = [i.labels for i in batch_gt_instances]
    labels = pad_sequence(labels, batch_first=True, padding_value=-1)
    if labels.size(1) == 0:  # one padded box, so that boxes can always be gathered by index
        bboxes, labels = bboxes.new_zeros(len(labels), 1, 4), labels.new_full((len(labels), 1), -1)
    mask = (labels >= 0) & valid_gt_mask(bboxes, _common_shape(batch_img_metas, bboxes))
    return GroundTruth(*(send(tensor, device) for tensor in (bboxes, labels, mask)))


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to a device without waiting for it; the tensor itself where it is there already."""
    if tensor.device == device:
        return tensor
    if device.type == 'cuda' and tensor.device.type == 'cpu' and not is_compiling():
        tensor = tensor.pin_memory()  # from elsewhere, the host would wait
    return tensor.to(device, non_blocking=True)


def _common_shape(batch_img_metas: Sequence[dict], like: Tensor) -> tuple[int, int] | Tensor:
    """(h, w) of the images, as plain numbers where all are equal: those cost no copy to a GPU."""
    shapes = [tuple(meta['img_shape'][:2]) for meta in batch_img_metas]
    return shapes[0] if len(set(shapes)) == 1 else like.new_tensor(shapes).unsqueeze(1)
