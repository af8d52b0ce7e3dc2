"""The ground-truth boxes of a training set, as the network sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ssd_plugin.datasets.config import leaf_datasets, resized
from ssd_plugin.datasets.transforms.train_on_difficult import TrainOnDifficult
from ssd_plugin.models.boxes import LARGEST_SIDE, is_valid_box, valid_gt_mask


class TrainingBoxes(NamedTuple):
    """N ground-truth boxes, in pixels of the network input."""

    bboxes: np.ndarray  # (N, 4) float64 xyxy, clipped to their images, with area
    labels: np.ndarray  # (N,) int64
    images: np.ndarray  # (N,) int64, ascending: number of the image among those that were read
    classes: tuple[str, ...]
    num_images: int  # that were read
    left_out: Counter  # how many other boxes take no part, by reason

    @property
    def sides(self) -> np.ndarray:
        """(2, N): w, h."""
        return (self.bboxes[:, 2:] - self.bboxes[:, :2]).T

    @property
    def centres(self) -> np.ndarray:
        """(2, N): x, y."""
        return (self.bboxes[:, 2:] + self.bboxes[:, :2]).T / 2


def collect_boxes(
    dataset: Dataset, resize: Mapping, max_images: int | None = None, seed: int = 0
) -> TrainingBoxes:
    """Read the ground-truth boxes of a data set, or of those that it wraps, opening no image.

    ``resize`` is the config of the ``Resize`` to the network input. Boxes that training can't use
    (``valid_gt_mask``) are left out and counted, and so are ignored ones ("difficult", crowds),
    unless their data set trains on them (``TrainOnDifficult``). Of more than ``max_images``, so
    many are drawn at random.
    """
    leaves = leaf_datasets(dataset)
    for leaf in leaves:
        leaf.full_init()
    places = [(leaf, i) for leaf in leaves for i in range(len(leaf))]
    if max_images is not None and len(places) > max_images:
        chosen = np.random.default_rng(seed).choice(len(places), max_images, replace=False)
        places = [places[i] for i in np.sort(chosen)]
    bboxes, labels, images, sizes, ignored = [], [], [], [], []
    for number, (leaf, i) in enumerate(places):
        info = leaf.get_data_info(i)
        size = info['width'], info['height']
        new_size = resized(size, resize)
        scale = np.tile(np.divide(new_size, size), 2)
        trained = any(isinstance(step, TrainOnDifficult) for step in leaf.pipeline.transforms)
        for instance in info['instances']:
            bboxes.append(instance['bbox'] * scale)
            labels.append(instance['bbox_label'])
            images.append(number)
            sizes.append(new_size)
            ignored.append(bool(instance['ignore_flag']) and not trained)
    boxes = np.array(bboxes, dtype=np.float64).reshape(-1, 4)
    sides = np.array(sizes, dtype=np.float64).reshape(-1, 2)
    reasons = left_out_reasons(boxes, sides, np.array(ignored, dtype=bool))
    used = reasons == ''
    return TrainingBoxes(
        np.clip(boxes[used], 0, np.tile(sides[used], 2)),
        np.array(labels, dtype=np.int64)[used],
        np.array(images, dtype=np.int64)[used],
        tuple(leaves[0].metainfo['classes']),
        len(places),
        Counter(reasons[~used].tolist()),
    )


def left_out_reasons(bboxes: np.ndarray, sizes: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Why each of N boxes (N, 4) xyxy takes no part: (N,) str, '' for those that do.

    ``sizes`` (N, 2) are the w and h of the boxes' images; boxes and sizes are in pixels.
    """
    boxes = torch.from_numpy(bboxes)
    valid = valid_gt_mask(boxes, torch.from_numpy(sizes[:, ::-1].copy()).unbind(1)).numpy()
    finite = np.isfinite(bboxes).all(1)
    too_large = (bboxes[:, 2:] - bboxes[:, :2] > LARGEST_SIDE).any(1)
    conditions = [valid & ~ignored, valid, ~finite, too_large, is_valid_box(boxes).numpy()]
    reasons = ['', 'ignored', 'not finite', 'too large', 'outside the image']
    return np.select(conditions, reasons, 'without area')
