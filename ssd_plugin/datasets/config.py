"""Data sets inside of wrappers, and what a config says about the size of the network input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcv.image import rescale_size
from mmengine.config import Config, ConfigDict
from torch.nn.modules.utils import _pair

from ssd_plugin.errors import ConfigError


def leaf_datasets(dataset: Any) -> list:
    """The data sets inside wrappers (RepeatDataset, ConcatDataset, ClassBalancedDataset, ...).

    Args:
        dataset: A config, a list of configs (which MMEngine concatenates), or a built data set.

    Returns:
        Configs, or built data sets; the data set itself if it is no wrapper.
    """
    if isinstance(dataset, (list, tuple)):
        return [leaf for inner in dataset for leaf in leaf_datasets(inner)]
    fields = dataset if isinstance(dataset, Mapping) else vars(dataset)
    inner = fields.get('datasets', fields.get('dataset'))
    return [dataset] if inner is None else leaf_datasets(inner)


def plain_test_set(cfg: Config) -> ConfigDict:
    """The data set, inside of wrappers, whose pipeline says how images to detect on are read.

    It is that of the test, or of the validation where there is no test.

    Raises:
        ConfigError: If there is neither.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise ConfigError('no test_dataloader, whose pipeline says how images are read')
    return leaf_datasets(loader.dataset)[0]


def resize_of(cfg: Config) -> ConfigDict:
    """The ``Resize`` that images go through before they are detected on.

    Raises:
        ConfigError: If there is none, or one without a fixed ``scale``.
    """
    for transform in plain_test_set(cfg).pipeline:
        if str(transform.type).endswith('Resize') and transform.get('scale') is not None:
            return transform
    raise ConfigError('the test pipeline has no Resize with a scale, which is the input size')


def input_size(cfg: Config) -> tuple[int, int]:
    """(w, h) of the network input in pixels, or the most that it can be with ``keep_ratio``."""
    return tuple(_pair(resize_of(cfg).scale))


def resized(size: tuple[int, int], resize: Mapping) -> tuple[int, int]:
    """The (w, h) that an image of (w, h) has after a ``Resize``."""
    scale = tuple(_pair(resize['scale']))
    return rescale_size(size, scale) if resize.get('keep_ratio', False) else scale
