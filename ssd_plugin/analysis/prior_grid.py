"""The priors of a config's detector, on the feature maps that its network has."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from ssd_plugin.datasets.config import input_size
from ssd_plugin.models.priors import SSDPriorGenerator


class PriorGrid(NamedTuple):
    """The priors of a detector, and what they lie on."""

    generator: SSDPriorGenerator
    featmap_sizes: list[tuple[int, int]]  # (h, w) of each level
    input_size: tuple[int, int]  # (w, h) of the network input, in pixels

    def priors(self) -> list[Tensor]:
        """(P_k, 4) xyxy in pixels, of each level."""
        return self.generator.grid_priors(self.featmap_sizes, device='cpu')


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
        image = torch.empty(1, 3, *size[::-1], device='meta')
        maps = model.to('meta')(image, mode='tensor')[0]
    return PriorGrid(generator, [tuple(level.shape[-2:]) for level in maps], size)
