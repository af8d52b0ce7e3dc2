"""The size of a config's network input: changed in all that depends on it, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.registry import TASK_UTILS
from mmengine.config import Config, ConfigDict
from torch.nn.modules.utils import _pair

from ssd_plugin.analysis.prior_fit import fit_priors_to_input, misfits, size_of_priors
from ssd_plugin.analysis.prior_grid import PriorGrid, build_on_meta, existing_maps
from ssd_plugin.datasets.config import input_size, leaf_datasets
from ssd_plugin.errors import ConfigError
from ssd_plugin.models.priors import SSDPriorGenerator

# Of transforms, in pixels: a side, (w, h), or a list of these.
SIZES = ('scale', 'scales', 'img_scale', 'crop_size', 'size')
CHANGING = ('Expand', 'MinIoURandomCrop', 'RandomAffine', 'RandomCrop')  # the size of an image


def resize_config(cfg: Config, size: tuple[int, int]) -> None:
    """Give a config, in place, another network input of (w, h) pixels.

    1. Pipelines, wherever they stand: sizes grow with the input that their images are resized to.
    2. The variable ``input_size``, if there is one.
    3. Priors of an ``SSDPriorGenerator``: ``input_size``, strides and sizes, see
       :func:`~ssd_plugin.analysis.prior_fit.fit_priors_to_input`.

    Raises:
        ConfigError: If there is no size to start from, or a level's feature map vanishes.
    """
    old = input_size(cfg)
    priors = {}
    if has_ssd_priors(cfg):
        priors = fit_priors_to_input(cfg, build_on_meta(cfg)[0], size)
    rest = {key: value for key, value in cfg.items() if key != 'model'}
    for key, value in resized(rest, old, size).items():
        cfg[key] = value
    if 'input_size' in cfg:
        cfg.input_size = size if size[0] != size[1] else size[0]
    if priors:
        cfg.model.bbox_head.anchor_generator.update(priors)


def resized(node: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
    """A part of a config, with its transforms' sizes multiplied by new / old, or the pipeline's."""
    if isinstance(node, (list, tuple)):
        return type(node)(resized(item, old, new) for item in node)
    if not isinstance(node, Mapping):
        return node
    result = ConfigDict()
    for key, value in node.items():
        if key in SIZES and 'type' in node:
            result[key] = scaled(value, old, new)
        elif key.endswith('pipeline') and value:
            result[key] = resized(value, fixed_size(value) or old, new)
        else:
            result[key] = resized(value, old, new)
    return result


def scaled(value: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
    """A side, (w, h), or a list of these, multiplied by new / old; anything else as it is."""
    if is_side(value):
        width, height = scaled((value, value), old, new)
        return width if width == height else (width, height)
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) == 2 and all(map(is_side, value)):
        pair = (round(v * n / o) for v, n, o in zip(value, new, old))
        return list(pair) if isinstance(value, list) else tuple(pair)
    items = (scaled(item, old, new) for item in value)
    return list(items) if isinstance(value, list) else tuple(items)


def is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def fixed_size(pipeline: Sequence) -> tuple[int, int] | None:
    """The (w, h) to which a pipeline resizes every image; None if it varies or is not known."""
    size = None
    for transform in pipeline:
        if not isinstance(transform, Mapping):
            continue
        name = str(transform.get('type'))
        if any(key in transform for key in SIZES):
            scale = transform.get('scale')
            known = not name.startswith('Random') and not transform.get('keep_ratio')
            whole = all(map(is_side, _pair(scale))) and len(_pair(scale)) == 2
            size = tuple(_pair(scale)) if known and whole else None
        elif name in CHANGING:
            size = None
    return size


def check_input(cfg: Config) -> None:
    """Make sure that a config's priors fit the images of its pipelines, before anything is done.

    Pipelines that resize images to varying sizes are not checked, and nor are other priors than
    those of an ``SSDPriorGenerator``.

    Raises:
        ConfigError: If priors don't fit, pipelines differ, or levels differ in number. The message
            has all levels, and the settings that would fit.
    """
    if not has_ssd_priors(cfg):
        return
    check_levels(cfg)
    sizes = pipeline_sizes(cfg)
    if len(set(sizes.values())) > 1:
        found = ', '.join(f'{w} x {h} in {split}' for split, (w, h) in sizes.items())
        raise ConfigError(
            f'the pipelines resize images to different sizes, {found}, but priors fit one: give '
            'all of them the same scale'
        )
    for size in set(sizes.values()):
        check_priors(cfg, size)


def check_priors(cfg: Config, size: tuple[int, int]) -> None:
    """Raise a ConfigError unless the priors fit an input of (w, h) pixels."""
    model = build_on_meta(cfg)[0]
    generator = model.bbox_head.prior_generator
    found = misfits(PriorGrid(generator, existing_maps(model, size), size))
    own_size = size_of_priors(cfg, generator)
    if own_size != size:
        found.insert(0, f'input_size is {own_size}')
    if found:
        width, height = size
        values = fit_priors_to_input(cfg, model, size)
        arguments = ', '.join(f'{name}={value}' for name, value in values.items())
        raise ConfigError(
            f'the priors do not fit the network input of {width} x {height} pixels: '
            f'{"; ".join(found)}. Add --size {width}x{height}, or write '
            f'model=dict(bbox_head=dict(anchor_generator=dict({arguments})))'
        )


def check_levels(cfg: Config) -> None:
    """Raise a ConfigError if neck, head and priors of a config differ in the number of levels."""
    head = cfg.model.bbox_head
    of_neck = (cfg.model.get('neck') or {}).get('out_channels')
    counts = dict(neck=len(of_neck)) if isinstance(of_neck, (list, tuple)) else {}
    counts['in_channels'] = len(head.in_channels)
    counts['anchor_generator'] = len(head.anchor_generator.strides)
    if len(set(counts.values())) > 1:
        found = ', '.join(f'{count} in {name}' for name, count in counts.items())
        raise ConfigError(f'the numbers of levels differ: {found}')


def pipeline_sizes(cfg: Config) -> dict[str, tuple[int, int]]:
    """The (w, h) of the images of train, val and test, of those where it is fixed."""
    sizes = {}
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        for leaf in leaf_datasets(loader.dataset) if loader else ():
            size = fixed_size(leaf.get('pipeline') or ())
            if size:
                sizes[split] = size
    return sizes


def has_ssd_priors(cfg: Config) -> bool:
    """Whether a config's detector is one with an ``SSDPriorGenerator``."""
    head = cfg.get('model', {}).get('bbox_head')
    name = head.get('anchor_generator', {}).get('type') if isinstance(head, Mapping) else None
    kind = TASK_UTILS.get(name) if isinstance(name, str) else name
    return isinstance(kind, type) and issubclass(kind, SSDPriorGenerator)
