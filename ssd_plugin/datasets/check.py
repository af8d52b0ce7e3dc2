"""--strict: the data of a config are gone through before anything else, and have to be sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.data import Dataset

from ssd_plugin.datasets.faults import (
    OTHER_SIZE,
    DataFault,
    box_faults,
    known_faults,
    leaf_datasets,
    read_image,
)
from ssd_plugin.errors import DataRefusedError

NUM_THREADS = 4  # decoding takes no part of Python


def require_sound_data(cfg: Config, splits: Iterable[str]) -> None:
    """Decode every image of some splits and look at every object.

    Args:
        cfg: A config whose modules have been imported.
        splits: Out of train, val, test.

    Raises:
        DataRefusedError: There is a fault; the message names the first and how many more.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    faults: dict[DataFault, None] = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            faults.update(dict.fromkeys(find_faults(DATASETS.build(loader.dataset))))
    refuse(list(faults))


def refuse(faults: list[DataFault]) -> None:
    """Raise a ``DataRefusedError`` of one line, unless there are no faults."""
    if not faults:
        return
    more = f', and {len(faults) - 1} more' if len(faults) > 1 else ''
    raise DataRefusedError(
        f'--strict: {faults[0]}{more}; without --strict, they are skipped and reported'
    )


def find_faults(dataset: Dataset) -> Iterator[DataFault]:
    """What reading a data set has found, then what is wrong with each image and its objects."""
    yield from known_faults(dataset)
    for leaf in leaf_datasets(dataset):
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            for found in pool.map(partial(_faults_of_image, leaf), range(len(leaf))):
                yield from found


def _faults_of_image(dataset: BaseDetDataset, index: int) -> list[DataFault]:
    info = dataset.get_data_info(index)
    path = info['img_path']
    image = read_image(path, dataset.backend_args)
    if isinstance(image, DataFault):
        return [image]
    height, width = image.shape[:2]
    found = list(box_faults(dict(info, width=width, height=height)))
    if (width, height) != (info['width'], info['height']):
        sizes = f'{info["width"]} x {info["height"]} instead of {width} x {height}'
        found.insert(0, DataFault(OTHER_SIZE, path, sizes))
    return found
