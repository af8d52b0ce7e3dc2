"""What a config says about sizes."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from ssd_plugin.analysis.fit_priors.fitting import fit_priors
from ssd_plugin.analysis.prior_grid import prior_grid
from ssd_plugin.datasets.config import input_size, resize_of, resized
from ssd_plugin.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def read(name='demo_shapes.py'):
    return Config.fromfile(CONFIGS / name, import_custom_modules=False)


def test_the_grid_is_that_of_the_detector():
    grid = prior_grid(read('ssd300_voc.py'))
    assert grid.featmap_sizes == [(n, n) for n in (38, 19, 10, 5, 3, 1)]
    assert grid.input_size == (300, 300)
    assert sum(len(level) for level in grid.priors()) == 8732
    wide = prior_grid(read('ssd512x288_r18_voc.py'))
    assert wide.input_size == (512, 288)
    assert wide.featmap_sizes[0] == (36, 64)  # high, wide
    assert torch.empty(1).device.type == 'cpu'  # by default, as before


def test_a_resize_that_keeps_the_ratio_fits_the_image_into_its_scale():
    assert resized((640, 480), dict(scale=(300, 300), keep_ratio=False)) == (300, 300)
    assert resized((640, 480), dict(scale=(300, 300), keep_ratio=True)) == (300, 225)
    assert resized((640, 480), dict(scale=300)) == (300, 300)


def test_the_input_size_is_found_through_wrappers():
    cfg = read()
    inner = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    assert input_size(cfg) == (160, 160)


def test_what_has_no_fixed_size_is_refused_and_other_priors_are_not_fitted():
    cfg = read()
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile')]
    with pytest.raises(ConfigError, match='no Resize'):
        resize_of(cfg)
    cfg = read()
    other = dict(strides=[8, 16, 32, 64], ratios=[1.0], scales=[1.0])
    cfg.model.bbox_head.anchor_generator = dict(type='AnchorGenerator', **other)
    cfg.model.bbox_head.in_channels = (32, 64, 128, 128)
    sizes = [(20, 20), (10, 10), (5, 5), (3, 3)]
    assert list(map(len, prior_grid(cfg).priors())) == [h * w for h, w in sizes]
    with pytest.raises(ConfigError, match='only SSDPriorGenerator can be fitted'):
        fit_priors(cfg)
    for changes in (dict(flip=False), dict(max_sizes=[[], 60, 90, 120])):
        cfg = read()
        sizes = dict(min_sizes=[20, 40, 60, 90], max_sizes=[40, 60, 90, 120])
        cfg.model.bbox_head.anchor_generator.update(sizes | changes, basesize_ratio_range=None)
        with pytest.raises(ConfigError, match='one min and one max size a level and flip=True'):
            fit_priors(cfg)
