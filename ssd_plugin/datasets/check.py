"""``--strict``: check every image and every box of a config's data sets, and refuse faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.data import Dataset

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.datasets.faults import (
    AnnotatedBox,
    AnnotatedImage,
    DataFault,
    box_faults,
    known_faults,
    read_image,
    require_no_faults,
    size_faults,
)

NUM_THREADS = 4  # OpenCV decodes without holding Python's lock


def require_sound_data(cfg: Config, splits: Iterable[str]) -> None:
    """Build a config's data sets of some splits, out of train, val and test, and check them.

    Raises:
        DataRefusedError: There is a fault; the message names the first and how many more.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    loaders = [cfg.get(f'{split}_dataloader') for split in splits]
    faults = [
        f for loader in loaders if loader for f in find_faults(DATASETS.build(loader.dataset))
    ]
    require_no_faults(list(dict.fromkeys(faults)))


def find_faults(dataset: Dataset) -> Iterator[DataFault]:
    """What reading a data set has found, then what is wrong with each image and its boxes."""
    yield from known_faults(dataset)
    for leaf in leaf_datasets(dataset):
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            for found in pool.map(partial(_faults_of_image, leaf), range(len(leaf))):
                yield from found


def _faults_of_image(dataset: BaseDetDataset, index: int) -> list[DataFault]:
    info = dataset.get_data_info(index)
    path, classes = info['img_path'], dataset.metainfo['classes']
    pixels = read_image(path, dataset.backend_args)
    if isinstance(pixels, DataFault):
        return [pixels]
    boxes = [
        AnnotatedBox(classes[i['bbox_label']], tuple(i['bbox']), bool(i['ignore_flag']))
        for i in info['instances']
    ]
    size = pixels.shape[1::-1]
    found = size_faults(path, (info['width'], info['height']), size)
    image = AnnotatedImage(path, size, boxes, found)
    return found + [fault for _, fault in box_faults(image) if fault]
