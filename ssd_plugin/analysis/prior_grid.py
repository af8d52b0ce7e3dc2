"""A config's detector before it is trained: its priors and feature maps, and what it costs.

Nothing is computed: the detector is on PyTorch's meta device, where tensors have shapes only.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssd_plugin.datasets.config import input_size
from ssd_plugin.errors import ConfigError, one_line

LARGEST = 4096  # pixels; a side at which every level has cells


_last_built: dict[str, BaseDetector] = {}  # by the settings of the model


class PriorGrid(NamedTuple):
    """The priors of a detector, and the feature maps and the input that they lie on."""

    generator: AnchorGenerator
    featmap_sizes: list[tuple[int, int]]  # (h, w) of each level
    input_size: tuple[int, int]  # (w, h) of the network input, in pixels

    def priors(self) -> list[Tensor]:
        """The priors of each level, (P_k, 4) xyxy in pixels."""
        return self.generator.grid_priors(self.featmap_sizes, device='cpu')


def prior_grid(cfg: Config) -> PriorGrid:
    """The priors of a config's detector, whose weights are neither loaded nor used.

    Raises:
        ConfigError: If its priors are not those of an ``AnchorGenerator``, such as
            ``SSDPriorGenerator`` is.
    """
    model, size = build_on_meta(cfg)
    generator = getattr(getattr(model, 'bbox_head', None), 'prior_generator', None)
    if not isinstance(generator, AnchorGenerator):
        raise ConfigError('its priors are not those of an AnchorGenerator')
    return PriorGrid(generator, existing_maps(model, size), size)


class Complexity(NamedTuple):
    """Size and cost of a detector, for one image of its input size."""

    input_size: tuple[int, int]  # (w, h) in pixels
    num_priors: int  # P
    num_parameters: int
    num_macs: int  # of convolutions and matrix products; without NMS and element-wise operations


def measure_complexity(cfg: Config) -> Complexity:
    """Count the priors, parameters and operations of a config's detector, untrained.

    Raises:
        ConfigError: It is no detector of one stage.
    """
    model, size = build_on_meta(cfg)
    if not hasattr(model, 'bbox_head'):
        raise ConfigError(f'a {type(model).__name__} has no bbox_head with priors to count')
    with FlopCounterMode(display=False) as counter:
        sizes = featmap_sizes(model, size)
    num_macs = counter.get_total_flops() // 2  # a multiplication and an addition count as two
    priors = model.bbox_head.prior_generator.grid_priors(sizes, device='cpu')
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(size, sum(map(len, priors)), num_parameters, num_macs)


def build_on_meta(cfg: Config) -> tuple[BaseDetector, tuple[int, int]]:
    """A config's detector on the meta device, and the (w, h) of its network input in pixels.

    The last one is kept: a command checks its priors, and then asks for them.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    size, settings = input_size(cfg), repr(cfg.model)
    if settings not in _last_built:
        _last_built.clear()
        _last_built[settings] = MODELS.build(cfg.model).eval().to('meta')
    return _last_built[settings], size


@torch.no_grad()
def featmap_sizes(model: BaseDetector, input_size: tuple[int, int]) -> list[tuple[int, int]]:
    """The (h, w) of each level, by a forward pass of one image on the meta device."""
    image = torch.empty(1, 3, *input_size[::-1], device='meta')
    return [tuple(scores.shape[-2:]) for scores in model(image, mode='tensor')[0]]


def existing_maps(model: BaseDetector, input_size: tuple[int, int]) -> list[tuple[int, int]]:
    """:func:`featmap_sizes` of an input (w, h) that is large enough for all levels.

    Raises:
        ConfigError: If it is too small; the message names the level and the least side. Or if the
            detector takes no input of any size; it names the part that fails.
    """
    try:
        maps = featmap_sizes(model, input_size)
        level = next((k for k, cells in enumerate(maps) if not all(cells)), None)
        if level is None:
            return maps
    except (RuntimeError, AssertionError) as error:  # PyTorch's, of a convolution without output
        if not _has_all_levels(model, (LARGEST, LARGEST)):
            raise ConfigError(where_it_fails(model, input_size)) from error
        level = _levels_before_error(model, input_size)
    width, height = input_size
    sides = range(1, LARGEST)
    least = sides[bisect_left(sides, True, key=lambda n: _has_all_levels(model, (n, n)))]
    raise ConfigError(
        f'the feature map of level {level} vanishes at {width} x {height} pixels: each side needs '
        f'at least {least}'
    )


@torch.no_grad()
def where_it_fails(model: BaseDetector, input_size: tuple[int, int]) -> str:
    """Which part of a model fails on an image of this size (w, h), and what it is given."""
    width, height = input_size
    maps: Any = torch.empty(1, 3, height, width, device='meta')
    given, remedy = f'images of {width} x {height} pixels', ''
    for name in ('backbone', 'neck', 'bbox_head'):
        try:
            if hasattr(model, name):
                maps = getattr(model, name)(maps)
        except (RuntimeError, AssertionError) as error:
            return f'model.{name} does not take {given} ({one_line(error)}){remedy}'
        if name != 'bbox_head':
            given = f'maps of {", ".join(str(level.size(1)) for level in maps)} channels'
            remedy = ': are its in_channels right?'
    return f'the detector fails on images of {width} x {height} pixels'


def _has_all_levels(model: BaseDetector, input_size: tuple[int, int]) -> bool:
    """Whether each level has a cell at an input size (w, h)."""
    try:
        return all(map(all, featmap_sizes(model, input_size)))
    except (RuntimeError, AssertionError):
        return False


def _levels_before_error(model: BaseDetector, input_size: tuple[int, int]) -> int:
    """How many levels there are when the forward pass fails: the backbone's and the neck's own."""
    levels: list = []
    hooks = [model.backbone.register_forward_hook(lambda *done: levels.extend(done[2]))]
    for layer in getattr(getattr(model, 'neck', None), 'extra_layers', ()):
        hooks.append(layer.register_forward_hook(lambda *done: levels.append(done[2])))
    with suppress(RuntimeError, AssertionError):
        featmap_sizes(model, input_size)
    for hook in hooks:
        hook.remove()
    return len(levels)
