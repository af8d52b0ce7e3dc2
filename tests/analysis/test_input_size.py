"""Another network input: what follows from it in a config, and what does not fit is refused."""

import re
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from ssd_plugin.analysis.input_size import check_input, resize_config
from ssd_plugin.analysis.prior_fit import misfits
from ssd_plugin.analysis.prior_grid import prior_grid
from ssd_plugin.datasets.config import input_size
from ssd_plugin.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
SIZES = [(320, 320), (512, 512), (480, 270), (640, 384)]
TOO_SMALL = {('ssd320_convnextt_voc', (480, 270)): 'level 5 vanishes .* at least 288'}
every_config = pytest.mark.parametrize('name', NAMES)


@cache
def loaded(name):
    return Config.fromfile(CONFIGS / f'{name}.py', import_custom_modules=False)


def read(name='demo_shapes', **priors):
    cfg = deepcopy(loaded(name))
    cfg.model.bbox_head.anchor_generator.update(priors)
    return cfg


def resized(name, size):
    cfg = read(name)
    resize_config(cfg, size)
    return cfg


def set_scale(cfg, size, splits=('train', 'val', 'test')):
    """Resize images to another size, as a person would who forgets the priors."""
    for split in splits:
        for transform in cfg[f'{split}_dataloader'].dataset.pipeline:
            if 'scale' in transform:
                transform.scale = size
    return cfg


def transforms(node):
    """All transforms with a scale that are anywhere in a config."""
    if isinstance(node, dict):
        if 'type' in node and 'scale' in node:
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from transforms(item)


@every_config
def test_a_config_fits_its_own_input_and_stays_as_it_is_at_that_size(name):
    cfg = read(name)
    check_input(cfg)
    own = cfg.to_dict()
    resize_config(cfg, input_size(cfg))
    assert cfg.to_dict() == own


@every_config
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_priors_cover_every_input_and_all_pipelines_resize_to_it(name, size):
    if (name, size) in TOO_SMALL:
        with pytest.raises(ConfigError, match=TOO_SMALL[name, size]):
            resized(name, size)
        return
    cfg = resized(name, size)
    found = list(transforms(cfg.to_dict()))
    assert len(found) >= 3 and all(tuple(t['scale']) == size for t in found)
    stated = cfg.get('input_size')
    assert stated == size or (stated, stated) == size
    if cfg.model.type == 'RetinaNet':
        return
    grid = prior_grid(cfg)
    assert not misfits(grid)
    assert grid.generator.input_size == size
    levels = zip(grid.priors(), grid.featmap_sizes, grid.generator.num_base_priors, strict=True)
    limits = torch.tensor(size)
    for priors, (high, wide), per_cell in levels:
        assert len(priors) == high * wide * per_cell
        centres = (priors[:, :2] + priors[:, 2:]) / 2
        assert (centres > 0).all() and (centres <= 1.001 * limits).all()
        # The cells are spread over the whole input.
        steps = (centres.amax(0) - centres.amin(0)) / (torch.tensor([wide, high]) - 1).clamp(min=1)
        assert (limits - centres.amax(0) <= 1.01 * torch.maximum(steps, limits / 2)).all()


def test_strides_of_the_network_stay_and_others_follow_the_cells():
    def strides(name, size):
        return resized(name, size).model.bbox_head.anchor_generator.strides

    assert strides('ssd300_voc', (320, 320)) == [8, 16, 32, 64, 106.67, 320]
    assert strides('ssd300_voc', (512, 512)) == [8, 16, 32, 64, 85.33, 128]
    assert strides('ssd512_voc', (320, 320)) == [8, 16, 32, 64, 128, 160, 320]
    wide = [8, 16, (32, 30), (64, 54), (80, 90), (120, 270)]
    assert strides('ssd300_voc', (480, 270)) == wide


def test_sizes_grow_with_the_shorter_side():
    priors = resized('ssd300_voc', (640, 360)).model.bbox_head.anchor_generator
    assert priors.min_sizes == [36, 72, 133.2, 194.4, 255.6, 316.8]
    assert priors.max_sizes == [72, 133.2, 194.4, 255.6, 316.8, 378]
    several = read('ssd300_voc', min_sizes=[[30, 45], 60, 111, 162, 213, 264])
    several.model.bbox_head.anchor_generator.max_sizes[0] = []
    resize_config(several, (600, 600))
    priors = several.model.bbox_head.anchor_generator
    assert (priors.min_sizes[:2], priors.max_sizes[:2]) == ([[60, 90], 120], [[], 222])
    generator = prior_grid(resized('demo_shapes', (320, 240))).generator
    assert generator.min_sizes[0] == pytest.approx(0.16 * 240)
    assert generator.max_sizes[2] == pytest.approx(0.6 * 240)


def test_sizes_are_found_in_wrappers_lists_and_other_pipelines():
    cfg = read()
    inner = cfg.train_dataloader.dataset
    several = [
        dict(type='RandomChoiceResize', scales=[(160, 160), (320, 160)]),
        dict(type='Resize', scale=80, keep_ratio=True),
        dict(type='Resize', scale_factor=2),
        dict(type='Pad', size=(160, 160), pad_val=dict(img=(1, 2, 3))),
    ]
    mixed = dict(type='MultiImageMixDataset', dataset=inner, pipeline=several)
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=mixed)
    cfg.tta_pipeline = [
        dict(type='TestTimeAug', transforms=[[dict(type='Resize', scale=(80, 160))]])
    ]
    resize_config(cfg, (320, 240))
    mixed = cfg.train_dataloader.dataset.dataset
    assert mixed.pipeline[0].scales == [(320, 240), (640, 240)]
    assert mixed.pipeline[1].scale == (160, 120)
    assert mixed.pipeline[2].scale_factor == 2
    assert mixed.pipeline[3] == dict(type='Pad', size=(320, 240), pad_val=dict(img=(1, 2, 3)))
    assert cfg.tta_pipeline[0].transforms[0][0].scale == (160, 240)
    assert [t.scale for t in mixed.dataset.pipeline if 'scale' in t] == [(320, 240)]


def test_a_level_that_vanishes_is_named_with_the_least_input():
    with pytest.raises(ConfigError, match=r'level 4 vanishes at 100 x 100 .* at least 257'):
        resized('ssd300_voc', (100, 100))
    resized('ssd300_voc', (257, 300))
    with pytest.raises(ConfigError, match='level 5 vanishes at 300 x 256 .* at least 257'):
        resized('ssd300_voc', (300, 256))


FAULTS = {
    'the demo at 320': (set_scale(read(), (320, 320)), r'input_size is \(160, 160\)'),
    'an old input_size': (read(input_size=300), r'input_size is \(300, 300\)'),
    'a last level centred outside': (
        read(strides=[8, 16, 32, 330]),
        'level 3 is 3 cells of 330 pixels wide, the last centred at 825; .* high',
    ),
    'one cell centred outside': (
        read('ssd300_vgg16', strides=[8, 16, 32, 64, 100, 640]),
        'level 5 is 1 cell of 640 pixels wide, the last centred at 320',
    ),
    'several levels': (
        read('ssd300_vgg16', strides=[8, 8, 32, 64, 64, 300]),
        'level 1 is 19 cells of 8 pixels wide.* level 4 is 3 cells of 64 pixels',
    ),
    'one direction': (
        read(strides=[8, 16, (32, 40), 64]),
        'level 2 is 5 cells of 40 pixels high, .* at 180',
    ),
}


@pytest.mark.parametrize('cfg, message', FAULTS.values(), ids=FAULTS)
def test_priors_that_do_not_fit_are_refused(cfg, message):
    with pytest.raises(ConfigError, match=message):
        check_input(cfg)


def follow_advice(cfg):
    """Merge what the refusal says into the config; True if there was one."""
    try:
        check_input(cfg)
    except ConfigError as error:
        advice = re.search(r'or write (model=.*)$', str(error))[1]
        cfg.merge_from_dict(eval(f'dict({advice})'))
        return True
    return False


@settings(deadline=None, max_examples=20, phases=[Phase.generate])  # shrinking takes minutes
@given(
    name=st.sampled_from(
        ['demo_shapes', 'ssd300_vgg16', 'ssd300_r50_coco', 'ssdlite320_mobilenetv2_coco']
    ),
    width=st.integers(257, 900),
    height=st.integers(257, 900),
    offset=st.sampled_from([0.5, 0, 0.25, 1]),
)
def test_what_a_refusal_says_to_write_fits(name, width, height, offset):
    cfg = set_scale(read(name, center_offset=offset), (width, height))
    assert follow_advice(cfg)  # no config of these is made for such an input
    check_input(cfg)
    again = deepcopy(cfg)
    resize_config(again, (width, height))  # and --size, the other advice, is the same
    assert again.model == cfg.model


def test_size_mends_what_is_refused():
    for cfg, _ in FAULTS.values():
        cfg = deepcopy(cfg)
        resize_config(cfg, input_size(cfg))
        check_input(cfg)


def test_pipelines_that_disagree_are_refused():
    cfg = set_scale(read(), (320, 320), splits=['train'])
    with pytest.raises(
        ConfigError, match='320 x 320 in train, 160 x 160 in val, 160 x 160 in test'
    ):
        check_input(cfg)
    resize_config(cfg, (200, 200))
    check_input(cfg)


def test_varying_inputs_and_other_priors_are_not_judged():
    cfg = read()
    several = dict(type='RandomResize', scale=[(160, 160), (320, 320)])
    cfg.train_dataloader.dataset.pipeline[3] = several
    check_input(cfg)
    for split in ('val', 'test'):
        for transform in cfg[f'{split}_dataloader'].dataset.pipeline:
            if 'scale' in transform:
                transform.update(scale=(320, 320), keep_ratio=True)
    check_input(cfg)
    cfg = set_scale(read(), (320, 320))
    cfg.model.bbox_head.anchor_generator.type = 'SSDAnchorGenerator'
    check_input(cfg)


def test_sizes_in_pixels_need_no_input_size():
    sizes = dict(min_sizes=[26, 49, 73, 96], max_sizes=[49, 73, 96, 120])
    cfg = read(basesize_ratio_range=None, **sizes)
    del cfg.model.bbox_head.anchor_generator['input_size']
    check_input(cfg)
    cfg.model.bbox_head.anchor_generator.clip = True  # which uses it: 300 by default
    with pytest.raises(ConfigError, match=r'input_size is \(300, 300\)'):
        check_input(cfg)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'neck.out_channels': (32, 64, 128)}, '3 in neck, 4 in in_channels, 4 in anchor_gen'),
        ({'bbox_head.in_channels': (32, 64, 128)}, '4 in neck, 3 in in_channels, 4 in anchor'),
        ({'bbox_head.anchor_generator.strides': [8]}, '4 in in_channels, 1 in anchor_generator'),
    ],
)
def test_numbers_of_levels_that_differ_are_one_line(change, message):
    cfg = read()
    cfg.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    with pytest.raises(ConfigError, match=message):
        check_input(cfg)
