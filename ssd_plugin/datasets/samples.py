"""Images of a config's data sets with their boxes, as on disk and as training sees them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope

from ssd_plugin.datasets import faults
from ssd_plugin.errors import InputError

MAX_CANDIDATES = 1000  # images of a large data set among which a typical one is chosen


class Sample(NamedTuple):
    """An image and its ground-truth boxes."""

    image: np.ndarray  # (h, w, 3) uint8, RGB
    bboxes: np.ndarray  # (G, 4) xyxy in pixels
    labels: np.ndarray  # (G,) int64
    ignored: np.ndarray  # (I, 4) xyxy, boxes that are left out
    name: str  # of the file


def build_dataset(cfg: Config, split: str) -> BaseDataset:
    """The data set of a split: train, val or test."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    return DATASETS.build(cfg[f'{split}_dataloader'].dataset)


def read_image(path: str) -> np.ndarray:
    """An image (h, w, 3) uint8 RGB, from a file or from where MMEngine finds it.

    Raises:
        InputError: It cannot be read as an image.
    """
    image = faults.read_image(path)
    if isinstance(image, faults.DataFault):
        raise InputError(f'{path} is no image: {image.detail or "there is no such file"}')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def original(dataset: BaseDataset, index: int) -> Sample:
    """An image of a data set as it is on disk, with all of its boxes."""
    info = dataset.get_data_info(index)
    kept = [i for i in info['instances'] if not i['ignore_flag']]
    ignored = [i for i in info['instances'] if i['ignore_flag']]
    return Sample(
        read_image(info['img_path']),
        _boxes([i['bbox'] for i in kept]),
        np.array([i['bbox_label'] for i in kept], dtype=np.int64),
        _boxes([i['bbox'] for i in ignored]),
        Path(info['img_path']).name,
    )


def packed(item: dict) -> Sample:
    """What a pipeline that ends with ``PackDetInputs`` has made of an image."""
    image = item['inputs'].permute(1, 2, 0).numpy()  # BGR, as LoadImageFromFile reads
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    sample: DetDataSample = item['data_samples']
    truth, ignored = sample.gt_instances, sample.get('ignored_instances')
    return Sample(
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
        get_box_tensor(truth.bboxes).numpy(),
        truth.labels.numpy(),
        _boxes([]) if ignored is None else get_box_tensor(ignored.bboxes).numpy(),
        Path(sample.get('img_path', '')).name,
    )


def typical(dataset: BaseDataset, wanted: int = 5) -> int:
    """Index of an image with about as many boxes as wanted: a number that is easy to look at."""
    counts = [num_boxes(dataset, i) for i in range(min(len(dataset), MAX_CANDIDATES))]
    return int(np.argmin(np.abs(np.array(counts) - wanted)))


def spread(dataset: BaseDataset, number: int) -> list[int]:
    """Indices of images evenly spaced through a data set, or of the next ones with boxes."""
    places = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int)
    chosen = [
        next((i for i in range(place, len(dataset)) if num_boxes(dataset, i)), place)
        for place in places.tolist()
    ]
    return list(dict.fromkeys(chosen))


def num_boxes(dataset: BaseDataset, index: int) -> int:
    """How many boxes an image of a data set has, ignored ones included."""
    return len(dataset.get_data_info(index)['instances'])


def _boxes(bboxes: list) -> np.ndarray:
    return np.array(bboxes, dtype=np.float64).reshape(-1, 4)
