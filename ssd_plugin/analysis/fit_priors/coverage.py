"""How well priors cover objects, by the priors and the matching of training itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ssd_plugin.analysis.fit_priors.objects import Objects
from ssd_plugin.models.assigner import BatchMaxIoUAssigner
from ssd_plugin.models.boxes import pairwise_iou

# Roots of the area, in pixels of the network input; COCO's numbers.
SIZE_GROUPS = (('small', 0, 32), ('medium', 32, 96), ('large', 96, float('inf')))


class Coverage(NamedTuple):
    """What priors do for N objects."""

    iou: np.ndarray  # (N,): best IoU with any prior
    matched: np.ndarray  # (N,) int64: priors matched to the object

    def figures(self, chosen: np.ndarray) -> tuple[float, float, float, float]:
        """Of the objects (N,) bool: shares at 0.5 and 0.7, mean best IoU, matched an object."""
        iou = self.iou[chosen]
        return (
            float((iou >= 0.5).mean()),
            float((iou >= 0.7).mean()),
            float(iou.mean()),
            float(self.matched[chosen].mean()),
        )


def measure_coverage(
    levels: Sequence[Tensor], objects: Objects, assigner: BatchMaxIoUAssigner
) -> Coverage:
    """Match the priors to the objects of each image, as training does without augmentation.

    Args:
        levels: Priors (P_k, 4) xyxy of each level, in pixels of the network input.
        objects: The objects.
        assigner: One of MMDetection's.
    """
    priors = torch.cat(list(levels))  # (P, 4)
    bboxes = torch.from_numpy(objects.bboxes).float()
    labels = torch.from_numpy(objects.labels)
    counts = np.bincount(objects.images, minlength=objects.num_images)
    ious, matched = [], []
    candidates = InstanceData(priors=priors)
    for boxes, kinds in zip(bboxes.split(counts.tolist()), labels.split(counts.tolist())):
        if len(boxes) == 0:
            continue
        result = assigner.assign(candidates, InstanceData(bboxes=boxes, labels=kinds))
        matched.append(torch.bincount(result.gt_inds.clamp(min=0), minlength=len(boxes) + 1)[1:])
        ious.append(pairwise_iou(boxes[None], priors)[0].amax(1))
    return Coverage(torch.cat(ious).numpy(), torch.cat(matched).numpy())


def groups(objects: Objects) -> Iterator[tuple[str, np.ndarray]]:
    """Names and members (N,) bool of groups that have any: all, by size, by class."""
    yield 'all', np.ones(len(objects.labels), dtype=bool)
    side = np.sqrt(objects.sides.prod(0))
    for name, low, high in SIZE_GROUPS:
        members = (side >= low) & (side < high)
        if members.any():
            yield name, members
    for label, name in enumerate(objects.classes):
        members = objects.labels == label
        if members.any():
            yield name, members
