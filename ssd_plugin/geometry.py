"""What a config says about sizes: the network's input, its feature maps, and its priors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmcv.image import rescale_size
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor
from torch.nn.modules.utils import _pair

from .priors import SSDPriorGenerator


class PriorGrid(NamedTuple):
    """The priors of a detector, and what they lie on."""

    generator: SSDPriorGenerator
    featmap_sizes: list[tuple[int, int]]  # (h, w) of each level
    input_size: tuple[int, int]  # (w, h) of the network input, in pixels

    def priors(self) -> list[Tensor]:
        """(P_k, 4) xyxy in pixels, of each level."""
        return self.generator.grid_priors(self.featmap_sizes, device='cpu')


def plain_test_set(cfg: Config) -> ConfigDict:
    """The data set, inside of wrappers, whose pipeline says how pictures to detect on are read.

    It is that of the tests, or of the validation where there are none.

    Raises:
        ValueError: If there is neither.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise ValueError('no test_dataloader, whose pipeline says how pictures are read')
    dataset = loader.dataset
    while 'dataset' in dataset or 'datasets' in dataset:  # RepeatDataset, ConcatDataset
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    return dataset


def resize_of(cfg: Config) -> Mapping:
    """The ``Resize`` that pictures go through before they are detected on.

    Raises:
        ValueError: If there is none, or one without a fixed ``scale``.
    """
    for transform in plain_test_set(cfg).pipeline:
        if str(transform.type).endswith('Resize') and transform.get('scale') is not None:
            return transform
    raise ValueError('the test pipeline has no Resize with a scale, which is the input size')


def input_size(cfg: Config) -> tuple[int, int]:
    """(w, h) of the network input in pixels, or the most that it can be with ``keep_ratio``."""
    return tuple(_pair(resize_of(cfg).scale))


def resized(size: tuple[int, int], resize: Mapping) -> tuple[int, int]:
    """The (w, h) that a picture of (w, h) has after a ``Resize``."""
    scale = tuple(_pair(resize['scale']))
    return rescale_size(size, scale) if resize.get('keep_ratio', False) else scale


def prior_grid(cfg: Config) -> PriorGrid:
    """Priors of a config's detector, whose weights are neither loaded nor used.

    The feature maps' sizes are those of a pass on PyTorch's meta device, where tensors have
    shapes only.

    Raises:
        ValueError: If its priors are not those of an ``SSDPriorGenerator``.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    size = input_size(cfg)
    model = MODELS.build(cfg.model).eval()
    generator = getattr(getattr(model, 'bbox_head', None), 'prior_generator', None)
    if not isinstance(generator, SSDPriorGenerator):
        raise ValueError('its priors are not those of an SSDPriorGenerator')
    with torch.no_grad():
        picture = torch.empty(1, 3, *size[::-1], device='meta')
        maps = model.to('meta')(picture, mode='tensor')[0]
    return PriorGrid(generator, [tuple(level.shape[-2:]) for level in maps], size)
