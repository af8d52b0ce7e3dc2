"""What each prior of a batch is to learn: ground truth is padded, then matched to the priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ssd_plugin.models.assigner import BatchMaxIoUAssigner
from ssd_plugin.models.boxes import valid_gt_mask

if hasattr(torch.compiler, 'is_compiling'):
    from torch.compiler import is_compiling
else:  # PyTorch 2.1
    from torch._utils import is_compiling


class Targets(NamedTuple):
    """Targets of B images and P priors."""

    labels: Tensor  # (B, P) int64: the matched box's class, num_classes for background
    weights: Tensor  # (B, P): 1, or 0 for ignored priors
    bboxes: Tensor  # (B, P, 4) xyxy in pixels: the matched box, elsewhere the prior itself
    gt_inds: Tensor  # (B, P) int64: -1 ignored, 0 background, g + 1 matched to box g
    avg_factor: Tensor  # number of matched priors: mean over ranks, see get_targets

    @property
    def matched(self) -> Tensor:
        """(B, P) bool: the priors that are matched to a box."""
        return self.gt_inds > 0


def build_assigner(train_cfg: Mapping, elsewhere: Mapping[str, str]) -> BatchMaxIoUAssigner:
    """The assigner that a head's ``train_cfg`` names.

    ``elsewhere`` says where keys belong that have no effect there.

    Raises:
        TypeError: If it cannot match a batch.
        ValueError: If there is one of those keys.
    """
    for key in elsewhere:
        if key in train_cfg:
            raise ValueError(f'model.train_cfg.{key} has no effect; it takes {elsewhere[key]}')
    assigner = TASK_UTILS.build(train_cfg['assigner'])
    if not hasattr(assigner, 'assign_batch'):
        name = type(assigner).__name__
        raise TypeError(f'{name} has no assign_batch, use BatchMaxIoUAssigner as assigner')
    return assigner


def get_targets(
    priors: Tensor,
    assigner: BatchMaxIoUAssigner,
    num_classes: int,
    batch_gt_instances: Sequence[InstanceData],
    batch_img_metas: Sequence[dict],
    batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
) -> Targets:
    """Match the priors of a batch, and look up what each is to learn, on the priors' device.

    ``avg_factor`` is the N of the paper's formula 1, averaged over ranks, since gradients are
    averaged over ranks as well. It is at least one prior on one rank, so that a batch without
    objects has a loss of 0.

    Args:
        priors: (P, 4) xyxy in pixels.
        assigner: Matches; has ``assign_batch``.
        num_classes: C, which is the label of background.
        batch_gt_instances: For each image ``bboxes`` (n, 4) xyxy in pixels and ``labels`` (n,), on
            the host or on the priors' device.
        batch_img_metas: For each image ``img_shape``, the (h, w) in pixels.
        batch_gt_instances_ignore: For each image ``bboxes`` (n, 4) of its ignored boxes, or None.
    """
    ground_truth = pad_ground_truth(batch_gt_instances, batch_img_metas)
    gt_bboxes, gt_labels, gt_mask = (send(tensor, priors.device) for tensor in ground_truth)
    ignored = pad_ignored(batch_gt_instances_ignore, priors.device)
    assigned = assigner.assign_batch(priors, gt_bboxes, gt_labels, gt_mask, ignored)

    matched = assigned.gt_inds > 0  # (B, P)
    gt_index = (assigned.gt_inds - 1).clamp(min=0).unsqueeze(-1).expand(-1, -1, 4)
    num_matched = reduce_mean(matched.sum().float())
    return Targets(
        labels=torch.where(matched, assigned.labels, num_classes),
        weights=(assigned.gt_inds >= 0).float(),
        bboxes=torch.where(matched.unsqueeze(-1), gt_bboxes.gather(1, gt_index), priors),
        gt_inds=assigned.gt_inds,
        avg_factor=num_matched.clamp(min=1 / get_world_size()),
    )


def pad_ground_truth(
    batch_gt_instances: Sequence[InstanceData], batch_img_metas: Sequence[dict]
) -> tuple[Tensor, Tensor, Tensor]:
    """Pad the ground truth of B images to G >= 1 boxes, where it is: on the host that is faster.

    Returns:
        Boxes (B, G, 4) float32, labels (B, G) int64 with -1 as padding, and a mask (B, G) bool,
        False for padding and for boxes that cannot be trained on.
    """
    boxes_of_images = [get_box_tensor(instances.bboxes) for instances in batch_gt_instances]
    bboxes = pad_sequence(boxes_of_images, batch_first=True).float()
    labels_of_images = [instances.labels for instances in batch_gt_instances]
    labels = pad_sequence(labels_of_images, batch_first=True, padding_value=-1)
    if labels.size(1) == 0:  # Add one padded box, so that boxes can be gathered by index.
        bboxes, labels = bboxes.new_zeros(len(labels), 1, 4), labels.new_full((len(labels), 1), -1)
    return bboxes, labels, (labels >= 0) & valid_gt_mask(bboxes, _shapes(batch_img_metas, bboxes))


def pad_ignored(
    batch_instances: Sequence[InstanceData | None] | None, device: torch.device
) -> Tensor | None:
    """Pad the ignored boxes of B images with zeros to (B, I, 4) float32; None without any."""
    if batch_instances is None:
        return None
    bboxes = [None if i is None else get_box_tensor(i.bboxes) for i in batch_instances]
    empty = torch.zeros(0, 4, device=next((b.device for b in bboxes if b is not None), device))
    padded = pad_sequence([empty if b is None else b for b in bboxes], batch_first=True)
    return send(padded.float(), device)


def _shapes(batch_img_metas: Sequence[dict], like: Tensor) -> Sequence[int | Tensor]:
    """(h, w) of all images if they are equal, which copies nothing to a GPU; else two (B, 1)."""
    shapes = [tuple(meta['img_shape'][:2]) for meta in batch_img_metas]
    return shapes[0] if len(set(shapes)) == 1 else like.new_tensor(shapes).unsqueeze(1).unbind(-1)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting; a tensor that is there already is returned."""
    if tensor.device == device:
        return tensor
    if device.type == 'cuda' and tensor.device.type == 'cpu' and not is_compiling():
        tensor = tensor.pin_memory()  # A copy from pageable memory would block the host.
    return tensor.to(device, non_blocking=True)
