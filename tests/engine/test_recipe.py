"""The recipe for own data, in place of that of a config for VOC or COCO."""

import pytest
from mmengine.config import Config

from ssd_plugin.engine.recipe import RECIPE, ssd_augments, take_recipe
from tests.support.commands import ROOT

ALL_CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
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
    for key in ('train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr'):
        assert cfg[key] == OWN_DATA[key]
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
