"""Augmentation: from a JPEG file to a packed 300 x 300 sample, in one thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms import v2

from .contestants import build_dataset, mmdet_config, our_config, with_images
from .images import SIZES
from .timing import FLOOR, MMDET, OURS, TORCHVISION, Case, Stopwatch

INPUT_SIZE = (300, 300)


def run(stopwatch: Stopwatch, root: Path) -> list[Case]:
    """Time the images under ``root``, each size by itself; a round loads each image once."""
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)  # one thread, as a loader's worker has
    torch.set_num_threads(1)
    try:
        count, loaders = make_contestants(root)
        per_size, cases = count // len(SIZES), []
        for i, (width, height) in enumerate(SIZES):
            indices = range(i * per_size, (i + 1) * per_size)
            works = {who: partial(load_all, load, indices) for who, load in loaders.items()}
            samples = stopwatch.alternate(works, per=per_size)
            name, facts = f'JPEG {width}x{height} to sample', dict(images=per_size, threads=1)
            cases.append(Case('pipeline', name, 'image', samples, facts))
        return cases
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def load_all(load: Callable[[int], object], indices: range) -> None:
    """Load these samples one after the other."""
    for i in indices:
        load(i)


def make_contestants(root: Path) -> tuple[int, dict[str, Callable[[int], object]]]:
    """The number of images, and functions that load and augment the image of an index."""
    ours = build_dataset(with_images(our_config(), root))
    theirs = build_dataset(with_images(mmdet_config(), root))
    infos = [ours.get_data_info(i) for i in range(len(ours))]
    return len(ours), {
        OURS: ours.__getitem__,
        MMDET: theirs.__getitem__,
        TORCHVISION: TorchvisionSamples(infos).__getitem__,
        # The floor: what every pipeline has to do.
        FLOOR: lambda i: cv2.resize(np.asarray(cv2.imread(infos[i]['img_path'])), INPUT_SIZE),
    }


class TorchvisionSamples:
    """torchvision's reference recipe for SSD (``references/detection/presets.py``).

    The annotations have been read beforehand; pixels stay uint8, as in MMDetection.
    """

    def __init__(self, infos: list[dict]) -> None:
        self.infos = infos
        self.boxes = [np.array([o['bbox'] for o in i['instances']], np.float32) for i in infos]
        self.labels = [torch.tensor([o['bbox_label'] + 1 for o in i['instances']]) for i in infos]
        crops = v2.RandomZoomOut(fill=[123, 117, 104]), v2.RandomIoUCrop()
        resize = v2.Resize(INPUT_SIZE, antialias=False)  # as its model resizes
        last = resize, v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()
        self.transforms = v2.Compose([v2.RandomPhotometricDistort(), *crops, *last])

    def __getitem__(self, i: int) -> tuple:
        info = self.infos[i]
        image = tv_tensors.Image(read_image(info['img_path'], ImageReadMode.RGB))
        boxes, canvas = torch.from_numpy(self.boxes[i].copy()), (info['height'], info['width'])
        boxes = tv_tensors.BoundingBoxes(boxes, format='XYXY', canvas_size=canvas)
        return self.transforms(image, dict(boxes=boxes, labels=self.labels[i]))
