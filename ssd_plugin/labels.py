"""Labels that a head has no class for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .data_faults import DataRefusedError


def check_labels(labels: Sequence[Tensor], num_classes: int, pictures: Sequence[str]) -> None:
    """Refuse labels that are not 0 to ``num_classes`` - 1.

    Args:
        labels: (n,) int64, on the CPU, of each picture.
        num_classes: C.
        pictures: Their names.

    Raises:
        DataRefusedError: If there are such; it names the first picture with one.
    """
    joined = torch.cat(list(labels))
    if not ((joined < 0) | (joined >= num_classes)).any():
        return
    for picture, image_labels in zip(pictures, labels, strict=True):
        for label in image_labels.tolist():
            if not 0 <= label < num_classes:
                background = f' ({label} is the background)' if label == num_classes else ''
                raise DataRefusedError(
                    f'{picture}: an object has the label {label}, but '
                    f'model.bbox_head.num_classes={num_classes} takes labels from 0 to '
                    f'{num_classes - 1}{background}: correct one of them'
                )
