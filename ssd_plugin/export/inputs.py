"""Images to check an exported detector on, as its config's test pipeline reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from ssd_plugin.datasets.config import plain_test_set, resize_of
from ssd_plugin.datasets.samples import build_dataset, read_image, spread
from ssd_plugin.errors import ConfigError


def paths_of(cfg: Config, split: str, number: int) -> list[str]:
    """Paths of some images of a split, evenly spaced through it."""
    dataset = build_dataset(cfg, split)
    return [dataset.get_data_info(i)['img_path'] for i in spread(dataset, number)]


def read_images(cfg: Config, paths: Sequence[str]) -> list[dict]:
    """Apply the config's test pipeline to images, without loading annotations.

    Returns:
        For each image ``inputs`` (3, h, w), all of one size, and ``data_samples``.

    Raises:
        ConfigError: If images keep their aspect ratio, so that their sizes differ.
        InputError: If a file is no image.
        OSError: If a file can't be read.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if resize_of(cfg).get('keep_ratio', False):
        raise ConfigError(
            "the test pipeline's Resize has keep_ratio=True, but the exported graph takes "
            'images of one size: set keep_ratio=False'
        )
    pipeline = Compose([t for t in plain_test_set(cfg).pipeline if 'Annotations' not in t.type])
    for path in paths:
        read_image(path)  # its errors name the file, the pipeline's do not
    return [pipeline(dict(img_path=str(path), img_id=i)) for i, path in enumerate(paths)]


def input_dtype(images: Sequence[dict]) -> torch.dtype:
    """uint8, or float32 if ``LoadImageFromFile`` has ``to_float32=True``."""
    return torch.uint8 if images[0]['inputs'].dtype == torch.uint8 else torch.float32
