"""What a config says about its data: the set to detect on, and the size of the network input."""

from __future__ import annotations

from collections.abc import Mapping

from mmcv.image import rescale_size
from mmengine.config import Config, ConfigDict
from torch.nn.modules.utils import _pair

from ssd_plugin.errors import ConfigError


def plain_test_set(cfg: Config) -> ConfigDict:
    """The data set, inside of wrappers, whose pipeline says how images to detect on are read.

    It is that of the tests, or of the validation where there are none.

    Raises:
        ConfigError: If there is neither.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise ConfigError('no test_dataloader, whose pipeline says how images are read')
    return leaf_datasets(loader.dataset)[0]


def leaf_datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """The configs of data sets inside wrappers (RepeatDataset, ConcatDataset, ...)."""
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    if inner == [None]:
        return [dataset]
    return [leaf for one in inner for leaf in leaf_datasets(one)]


def resize_of(cfg: Config) -> Mapping:
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
