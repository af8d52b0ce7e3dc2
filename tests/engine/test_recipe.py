"""The recipe for own data, in place of that of a config for VOC or COCO."""

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from ssd_plugin.engine.recipe import RECIPE, ssd_augments, take_recipe
from tests.support.commands import ROOT

ALL_CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
FROM_SCRATCH = 'ssdlite320_mobilenetv2_coco', 'ssdlite320_mobilenetv3_coco'
OWN_DATA = Config.fromfile(ROOT / 'configs/_base_/own_data.py')


def read(path):
    return Config.fromfile(path, import_custom_modules=False)


@pytest.mark.parametrize('path', ALL_CONFIGS, ids=lambda path: path.stem)
def test_every_config_for_a_benchmark_trains_own_data_by_the_recipe(path):
    cfg, before = read(path), read(path)
    if RECIPE not in cfg:
        assert take_recipe(cfg) is None
        assert cfg.to_dict() == before.to_dict()
        return
    assert '_base_/own_data.py' in take_recipe(cfg)
    for key in ('train_cfg', 'param_scheduler', 'auto_scale_lr'):
        assert cfg[key] == OWN_DATA[key]
    expected = OWN_DATA.optim_wrapper.to_dict()
    if path.stem in FROM_SCRATCH:
        del expected['paramwise_cfg']['custom_keys']['backbone']
    assert cfg.optim_wrapper.to_dict() == expected
    assert cfg.train_dataloader.batch_size == OWN_DATA.train_dataloader.batch_size
    assert cfg.model == before.model
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert len(hooks) == len(set(hooks))
    assert {hook.type for hook in [*before.custom_hooks, *OWN_DATA.custom_hooks]} == set(hooks)
    for new, old in zip(ssd_augments(cfg), ssd_augments(before), strict=True):
        assert new.ratio_range == OWN_DATA.augment.ratio_range
        assert (new.scale, new.get('mean')) == (old.scale, old.get('mean'))
    assert take_recipe(cfg) is None  # it is taken once


@pytest.mark.parametrize('path', ALL_CONFIGS, ids=lambda path: path.stem)
def test_configs_for_voc_and_coco_name_the_recipe(path):
    assert (RECIPE in read(path)) is path.stem.endswith(('_voc', '_coco'))


@pytest.mark.parametrize('name', ['ssd300_voc', 'ssd300_vgg16'])
def test_layers_without_trained_weights_learn_as_fast_as_the_head(name):
    """VGG-16's fc6 and fc7, which the weights of its convolutions lack."""
    cfg = read(ROOT / f'configs/{name}.py')
    take_recipe(cfg)
    backbone = MODELS.build(cfg.model.backbone)
    wrapper = build_optim_wrapper(nn.ModuleDict(dict(backbone=backbone)), cfg.optim_wrapper)
    rates = {id(p): group['lr'] for group in wrapper.param_groups for p in group['params']}
    by_layer = {int(k.split('.')[1]): rates[id(p)] for k, p in backbone.named_parameters()}
    base = cfg.optim_wrapper.optimizer.lr
    slow = {layer for layer, rate in by_layer.items() if rate == pytest.approx(0.2 * base)}
    assert {layer for layer in by_layer if by_layer[layer] == base} == {31, 33}
    assert slow == set(by_layer) - {31, 33}
