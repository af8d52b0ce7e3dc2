"""Labels that a head has no class for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd_plugin.errors import DataRefusedError


def check_labels(labels: Sequence[Tensor], num_classes: int, images: Sequence[str]) -> None:
    """Refuse labels that are not 0 to ``num_classes`` - 1.

    Args:
        labels: (n,) int64, on the CPU, of each image.
        num_classes: C.
        images: Their names.

    Raises:
        DataRefusedError: If there are such; it names the first image with one.
    """
    joined = torch.cat(list(labels))
    if not ((joined < 0) | (joined >= num_classes)).any():
        return
    for image, image_labels in zip(images, labels, strict=True):
        for label in image_labels.tolist():
            if not 0 <= label < num_classes:
                background = f' ({label} is the background)' if label == num_classes else ''
                raise DataRefusedError(
                    f'{image}: an object has the label {label}, but '
                    f'model.bbox_head.num_classes={num_classes} takes labels from 0 to '
                    f'{num_classes - 1}{background}: correct one of them'
                )
