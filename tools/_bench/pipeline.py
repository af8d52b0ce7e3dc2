"""Augmentation: from a JPEG file to a packed 300 x 300 sample, in one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms import v2

from .configs import build_dataset, mmdet_config, our_config, with_images
from .images import SIZES
from .timing import FLOOR, MMDET, OURS, TORCHVISION, Case, Stopwatch

INPUT_SIZE = 300


def run(stopwatch: Stopwatch, root: Path) -> list[Case]:
    """Time the images under ``root``, of each size by itself; a round is each image once."""
    cases = []
    with one_thread():
        contestants = make_contestants(root)
        for i, (width, height) in enumerate(SIZES):
            count = len(contestants[FLOOR]) // len(SIZES)
            images = range(i * count, (i + 1) * count)
            works = {name: over(samples, images) for name, samples in contestants.items()}
            cases.append(
                Case(
                    'pipeline',
                    f'JPEG {width}x{height} to sample',
                    'image',
                    stopwatch.alternate(works, per=count),
                    dict(images=count, threads=1),
                )
            )
    return cases


def over(samples: Sequence, indices: range) -> Callable[[], None]:
    """The work of loading these samples one after the other."""

    def work() -> None:
        for i in indices:
            samples[i]

    return work


def make_contestants(root: Path) -> dict:
    """Sequences of samples, each loaded and augmented when it is indexed."""
    ours = build_dataset(with_images(our_config(), root))
    theirs = build_dataset(with_images(mmdet_config(), root))
    infos = [ours.get_data_info(i) for i in range(len(ours))]
    return {
        OURS: ours,
        MMDET: theirs,
        TORCHVISION: TorchvisionSamples(infos),
        FLOOR: DecodedAndResized(infos),
    }


class TorchvisionSamples:
    """torchvision's reference recipe for SSD (``references/detection/presets.py``).

    Sizes and channels are known and boxes parsed before; pixels stay uint8, as in MMDetection.
    """

    def __init__(self, infos: list[dict]) -> None:
        self.infos = infos
        self.boxes = [np.array([o['bbox'] for o in i['instances']], np.float32) for i in infos]
        self.labels = [torch.tensor([o['bbox_label'] + 1 for o in i['instances']]) for i in infos]
        self.transforms = v2.Compose(
            [
                v2.RandomPhotometricDistort(),
                v2.RandomZoomOut(fill=[123, 117, 104]),
                v2.RandomIoUCrop(),
                # In the recipe the model resizes, without antialiasing.
                v2.Resize((INPUT_SIZE, INPUT_SIZE), antialias=False),
                v2.RandomHorizontalFlip(),
                v2.SanitizeBoundingBoxes(),
            ]
        )

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, i: int) -> tuple:
        info = self.infos[i]
        image = tv_tensors.Image(read_image(info['img_path'], ImageReadMode.RGB))
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(self.boxes[i].copy()),
            format='XYXY',
            canvas_size=(info['height'], info['width']),
        )
        return self.transforms(image, dict(boxes=boxes, labels=self.labels[i]))


class DecodedAndResized:
    """The floor: what no pipeline can do without."""

    def __init__(self, infos: list[dict]) -> None:
        self.paths = [info['img_path'] for info in infos]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return cv2.resize(cv2.imread(self.paths[i]), (INPUT_SIZE, INPUT_SIZE))


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for OpenCV and PyTorch, as a loader's worker has."""
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
