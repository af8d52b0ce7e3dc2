"""Priors: every model's counts, cells computed by hand, and the rules between them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import TASK_UTILS
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from ssd_plugin.models.priors import SSDPriorGenerator, check_cover
from tests.support.helpers import MODEL_TABLE, TINY, model_priors, naive_priors, prior_config

models = pytest.mark.parametrize('name', MODEL_TABLE)


def square_map_sizes(model):
    return [(n, n) for n in model['feature_sizes']]


def widths_and_heights(boxes):
    return torch.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]], 1)


@models
def test_every_level_has_its_number_of_priors(name):
    model, priors = MODEL_TABLE[name], model_priors(name)
    assert [tuple(level.shape) for level in priors] == [(n, 4) for n in model['per_level']]
    assert sum(len(level) for level in priors) == model['total']


@models
def test_every_prior_is_where_the_formula_puts_it(name):
    for level, expected in zip(model_priors(name), naive_priors(MODEL_TABLE[name])):
        torch.testing.assert_close(level, torch.tensor(expected), rtol=0, atol=2e-4)


@models
def test_the_generator_tells_its_levels_as_mmdetection_s_generators_do(name):
    model = MODEL_TABLE[name]
    generator = TASK_UTILS.build(prior_config(model))
    assert isinstance(generator, SSDPriorGenerator)
    assert generator.num_levels == len(model['strides'])
    assert list(generator.num_base_priors) == model['per_cell']
    assert [tuple(stride) for stride in generator.strides] == [(s, s) for s in model['strides']]


# The cells below were worked out with a pocket calculator: model, level, row, column, and the
# cell's boxes in order: small square, large square, then wide and tall for each ratio.
CELLS = [
    (
        'SSD300 VOC', 0, 0, 0,  # centre (4, 4), m = 30, M = 60
        [
            [-11, -11, 19, 19],
            [-17.21320, -17.21320, 25.21320, 25.21320],
            [-17.21320, -6.60660, 25.21320, 14.60660],
            [-6.60660, -17.21320, 14.60660, 25.21320],
        ],
    ),
    (
        'SSD300 VOC', 1, 7, 3,  # centre (56, 120), m = 60, M = 111
        [
            [26, 90, 86, 150],
            [15.19559, 79.19559, 96.80441, 160.80441],
            [13.57359, 98.78680, 98.42641, 141.21320],
            [34.78680, 77.57359, 77.21320, 162.42641],
            [4.03848, 102.67949, 107.96152, 137.32051],
            [38.67949, 68.03848, 73.32051, 171.96152],
        ],
    ),
    (
        'SSD300 VOC', 5, 0, 0,  # centre (150, 150), m = 264, M = 315
        [
            [18, 18, 282, 282],
            [5.81262, 5.81262, 294.18738, 294.18738],
            [-36.67619, 56.66190, 336.67619, 243.33810],
            [56.66190, -36.67619, 243.33810, 336.67619],
        ],
    ),
    (
        'SSD300 COCO', 0, 0, 0,  # centre (4, 4), m = 21, M = 45
        [
            [-6.5, -6.5, 14.5, 14.5],
            [-11.37043, -11.37043, 19.37043, 19.37043],
            [-10.84924, -3.42462, 18.84924, 11.42462],
            [-3.42462, -10.84924, 11.42462, 18.84924],
        ],
    ),
    (
        'SSD300 COCO', 4, 1, 2,  # centre (250, 150), m = 207, M = 261
        [
            [146.5, 46.5, 353.5, 253.5],
            [133.78146, 33.78146, 366.21854, 266.21854],
            [103.62890, 76.81445, 396.37110, 223.18555],
            [176.81445, 3.62890, 323.18555, 296.37110],
        ],
    ),
    (
        'SSD512 VOC', 0, 0, 0,  # centre (4, 4), m = 35.84, M = 76.8
        [
            [-13.92, -13.92, 21.92, 21.92],
            [-22.23219, -22.23219, 30.23219, 30.23219],
            [-21.34271, -8.67135, 29.34271, 16.67135],
            [-8.67135, -21.34271, 16.67135, 29.34271],
        ],
    ),
    (
        'SSD512 VOC', 4, 1, 2,  # centre (320, 192), m = 307.2, M = 384
        [
            [166.4, 38.4, 473.6, 345.6],
            [148.26998, 20.26998, 491.73002, 363.73002],
            [102.77680, 83.38840, 537.22320, 300.61160],
            [211.38840, -25.22320, 428.61160, 409.22320],
            [53.95700, 103.31900, 586.04300, 280.68100],
            [231.31900, -74.04300, 408.68100, 458.04300],
        ],
    ),
    (
        'SSD512 COCO', 2, 9, 5,  # centre (176, 304), m = 133.12, M = 215.04
        [
            [109.44, 237.44, 242.56, 370.56],
            [91.40372, 219.40372, 260.59628, 388.59628],
            [81.86995, 256.93497, 270.13005, 351.06503],
            [128.93497, 209.86995, 223.06503, 398.13005],
            [60.71470, 265.57157, 291.28530, 342.42843],
            [137.57157, 188.71470, 214.42843, 419.28530],
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'level', 'row', 'column', 'expected'), CELLS)
def test_a_cell_computed_by_hand(name, level, row, column, expected):
    model = MODEL_TABLE[name]
    per_cell = model['per_cell'][level]
    start = (row * model['feature_sizes'][level] + column) * per_cell
    cell = model_priors(name)[level][start : start + per_cell]
    torch.testing.assert_close(cell, torch.tensor(expected), rtol=0, atol=2e-4)


@pytest.mark.parametrize('name', ['SSD512 VOC', 'SSD512 COCO'])
def test_fractional_sizes_are_kept(name):
    smallest = widths_and_heights(torch.stack([level[0] for level in model_priors(name)]))
    sizes = MODEL_TABLE[name]['sizes'][:-1]
    torch.testing.assert_close(
        smallest, torch.tensor([[m, m] for m in sizes], dtype=torch.float32), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize(('name', 'ratio_range'), [('SSD300 VOC', 0.2), ('SSD300 COCO', 0.15)])
def test_ssd300_has_mmdetection_s_anchors_in_mmdetection_s_order(name, ratio_range):
    model = MODEL_TABLE[name]
    theirs = TASK_UTILS.build(
        dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=300,
            basesize_ratio_range=(ratio_range, 0.9),
            strides=model['strides'],
            ratios=model['ratios'],
        )
    ).grid_priors(square_map_sizes(model), device='cpu')
    for ours, level in zip(model_priors(name), theirs):
        torch.testing.assert_close(ours, level, rtol=0, atol=1e-3)


@pytest.mark.parametrize('name', ['SSD512 VOC', 'SSD512 COCO'])
def test_ssd512_has_mmdetection_s_anchors_when_it_is_told_the_real_sizes(name):
    model = MODEL_TABLE[name]
    config = prior_config(model, type='SSDAnchorGenerator', scale_major=False)
    theirs = TASK_UTILS.build(config).grid_priors(square_map_sizes(model), device='cpu')
    for ours, level in zip(model_priors(name), theirs):
        torch.testing.assert_close(ours, level, rtol=0, atol=1e-3)


def test_priors_may_leave_the_image_unless_clipped():
    free = torch.cat(model_priors('SSD300 VOC'))
    assert free.min() < -1 and free.max() > 301

    clipped = TASK_UTILS.build(prior_config(MODEL_TABLE['SSD300 VOC'], clip=True))
    clipped = torch.cat(
        clipped.grid_priors(square_map_sizes(MODEL_TABLE['SSD300 VOC']), device='cpu')
    )
    torch.testing.assert_close(clipped, free.clamp(0, 300))


def test_clipping_knows_width_from_height():
    config = dict(strides=[16], ratios=[[2]], min_sizes=[90], max_sizes=[140], input_size=(128, 64))
    free = SSDPriorGenerator(**config).grid_priors([(4, 8)], device='cpu')[0]
    clipped = SSDPriorGenerator(**config, clip=True).grid_priors([(4, 8)], device='cpu')[0]
    assert free[:, 2].max() > 128 and free[:, 3].max() > 64
    torch.testing.assert_close(clipped[:, 0::2], free[:, 0::2].clamp(0, 128))
    torch.testing.assert_close(clipped[:, 1::2], free[:, 1::2].clamp(0, 64))


def test_cells_run_along_rows_of_a_map_that_is_not_square():
    generator = SSDPriorGenerator(strides=[10], ratios=[[]], min_sizes=[4], max_sizes=[4])
    priors = generator.grid_priors([(2, 3)], device='cpu')[0]
    centres = (priors[:, :2] + priors[:, 2:])[::2] / 2
    expected = [[5, 5], [15, 5], [25, 5], [5, 15], [15, 15], [25, 15]]
    torch.testing.assert_close(centres, torch.tensor(expected, dtype=torch.float32))


def test_a_stride_may_differ_between_the_axes():
    generator = SSDPriorGenerator(strides=[(16, 8)], ratios=[[]], min_sizes=[4], max_sizes=[4])
    assert [tuple(stride) for stride in generator.strides] == [(16, 8)]
    priors = generator.grid_priors([(2, 2)], device='cpu')[0]
    centres = (priors[:, :2] + priors[:, 2:])[::2] / 2
    torch.testing.assert_close(centres, torch.tensor([[8.0, 4], [24, 4], [8, 12], [24, 12]]))


def test_the_paper_s_linear_rule_at_300_pixels():
    generator = SSDPriorGenerator(
        strides=[8, 16, 32, 64, 100, 300],
        ratios=[[]] * 6,
        basesize_ratio_range=(0.2, 0.9),
        input_size=300,
    )
    levels = generator.grid_priors([(1, 1)] * 6, device='cpu')
    small = [60.0, 102, 144, 186, 228, 270]  # 0.2, 0.34, ... 0.9 of 300
    large = [102.0, 144, 186, 228, 270, 312]
    for level, m, big in zip(levels, small, large):
        expected = torch.tensor([[m, m], [(m * big) ** 0.5, (m * big) ** 0.5]])
        torch.testing.assert_close(widths_and_heights(level), expected, rtol=1e-5, atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(
    levels=st.integers(2, 8),
    low=st.floats(0.05, 0.4),
    high=st.floats(0.45, 0.95),
    width=st.integers(64, 1024),
    height=st.integers(64, 1024),
)
def test_the_linear_rule_spreads_scales_evenly_over_the_shorter_side(
    levels, low, high, width, height
):
    generator = SSDPriorGenerator(
        strides=[8] * levels,
        ratios=[[]] * levels,
        basesize_ratio_range=(low, high),
        input_size=(width, height),
    )
    boxes = torch.cat(generator.grid_priors([(1, 1)] * levels, torch.float64, device='cpu'))
    sides = widths_and_heights(boxes)[:, 0].reshape(levels, 2)
    for k in range(levels):
        m, big = (min(width, height) * (low + (high - low) * n / (levels - 1)) for n in (k, k + 1))
        expected = torch.tensor([m, (m * big) ** 0.5], dtype=torch.float64)
        torch.testing.assert_close(sides[k], expected, rtol=1e-4, atol=1e-3)


def test_priors_come_in_the_asked_dtype():
    generator = TASK_UTILS.build(prior_config(TINY))
    for dtype in (torch.float32, torch.float64, torch.float32):
        levels = generator.grid_priors([(8, 8), (4, 4), (2, 2)], dtype, device='cpu')
        assert all(level.dtype == dtype for level in levels)


def test_asking_for_other_map_sizes_does_not_disturb_the_answer():
    generator = TASK_UTILS.build(prior_config(TINY))
    expected = [torch.tensor(level) for level in naive_priors(TINY)]
    for _ in range(2):
        for level, reference in zip(
            generator.grid_priors([(8, 8), (4, 4), (2, 2)], device='cpu'), expected
        ):
            torch.testing.assert_close(level, reference, rtol=0, atol=1e-4)
        other = generator.grid_priors([(5, 7), (3, 4), (1, 2)], torch.float64, device='cpu')
        assert [len(level) for level in other] == [140, 72, 8]


@pytest.mark.parametrize(
    'changes',
    [
        pytest.param(dict(ratios=[[2]]), id='fewer ratios than strides'),
        pytest.param(dict(min_sizes=[10]), id='fewer min sizes than strides'),
        pytest.param(dict(max_sizes=[22, 40, 58]), id='more max sizes than strides'),
        pytest.param(dict(max_sizes=None), id='min sizes without max sizes'),
        pytest.param(dict(min_sizes=None), id='max sizes without min sizes'),
        pytest.param(dict(min_sizes=None, max_sizes=None), id='no sizes at all'),
        pytest.param(dict(basesize_ratio_range=(0.2, 0.9)), id='sizes given twice'),
        pytest.param(dict(min_sizes=[0, 22]), id='a size of nothing'),
        pytest.param(dict(ratios=[[2], [-3]]), id='a negative ratio'),
        pytest.param(dict(strides=[8, 0]), id='a stride of nothing'),
        pytest.param(
            dict(min_sizes=None, max_sizes=None, basesize_ratio_range=(0.9, 0.2)),
            id='a range that runs backwards',
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes):
    config = dict(strides=[8, 16], ratios=[[2], [3]], min_sizes=[10, 22], max_sizes=[22, 40])
    SSDPriorGenerator(**config)
    config.update(changes)
    with pytest.raises((ValueError, AssertionError)):
        SSDPriorGenerator(**config)


def test_the_wrong_number_of_maps_is_refused():
    generator = TASK_UTILS.build(prior_config(TINY))
    with pytest.raises((ValueError, AssertionError)):
        generator.grid_priors([(8, 8), (4, 4)], device='cpu')


def torchvision_boxes(generator, input_size, feature_sizes):
    """Priors of torchvision's generator, (P, 4), for a square input."""
    images = ImageList(torch.zeros(1, 3, input_size, input_size), [(input_size, input_size)])
    return generator(images, [torch.zeros(1, 1, n, n) for n in feature_sizes])[0]


def test_ssd300_can_have_torchvision_s_priors():
    model = MODEL_TABLE['SSD300 COCO']
    ours = TASK_UTILS.build(prior_config(model, clip_sides=True))
    theirs = DefaultBoxGenerator(
        model['ratios'],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=model['strides'],
    )
    theirs = torchvision_boxes(theirs, 300, model['feature_sizes'])
    ours = torch.cat(ours.grid_priors(square_map_sizes(model), device='cpu'))
    assert len(theirs) == 8732
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    # The comparison would not hold for free: the last level's boxes exceed the input.
    free = torch.cat(model_priors('SSD300 COCO'))
    assert (free - theirs).abs().max() > 30


def test_ssdlite320_can_have_torchvision_s_priors():
    sides = [20, 10, 5, 3, 2, 1]
    ours = SSDPriorGenerator(
        input_size=320,
        strides=[320 / n for n in sides],
        ratios=[[2, 3]] * 6,
        min_sizes=[64, 112, 160, 208, 256, 304],
        max_sizes=[112, 160, 208, 256, 304, 320],
        clip_sides=True,
    )
    theirs = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    theirs = torchvision_boxes(theirs, 320, sides)
    ours = torch.cat(ours.grid_priors([(n, n) for n in sides], device='cpu'))
    assert len(theirs) == 3234
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(
    stride=st.tuples(st.floats(1, 200), st.floats(1, 200)),
    offset=st.floats(0, 1),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_centres_lie_at_their_offset_in_each_cell(stride, offset, cells):
    generator = SSDPriorGenerator(
        strides=[(4, 4), stride],
        ratios=[[], []],
        min_sizes=[8, 8],
        max_sizes=[8, 8],
        center_offset=[0.5, offset],
    )
    priors = generator.grid_priors([(1, 1), cells], device='cpu')
    torch.testing.assert_close(priors[0][0], torch.tensor([-2.0, -2, 6, 6]))
    centres = (priors[1][::2, :2] + priors[1][::2, 2:]) / 2
    expected = [
        [(j + offset) * stride[0], (i + offset) * stride[1]]
        for i in range(cells[0])
        for j in range(cells[1])
    ]
    torch.testing.assert_close(centres, torch.tensor(expected), rtol=1e-5, atol=1e-3)


def test_clipped_sides_keep_the_centre():
    config = dict(strides=[16], ratios=[[4]], min_sizes=[90], max_sizes=[140], input_size=(128, 64))
    free = SSDPriorGenerator(**config).grid_priors([(4, 8)], device='cpu')[0]
    clipped = SSDPriorGenerator(**config, clip_sides=True).grid_priors([(4, 8)], device='cpu')[0]
    torch.testing.assert_close(
        clipped[:, :2] + clipped[:, 2:], free[:, :2] + free[:, 2:], rtol=0, atol=1e-3
    )
    sides = widths_and_heights(free).minimum(torch.tensor([128.0, 64]))
    torch.testing.assert_close(widths_and_heights(clipped), sides)


@pytest.mark.parametrize('name', MODEL_TABLE)
def test_every_model_s_priors_cover_its_input(name):
    model = MODEL_TABLE[name]
    strides = TASK_UTILS.build(prior_config(model)).strides
    check_cover(square_map_sizes(model), strides, (model['input_size'],) * 2)


@pytest.mark.parametrize(
    ('maps', 'message'),
    [
        ([(18, 32), (8, 16)], r'level 1 is 8 cells high, 256 pixels .* 288 .*\.strides\[1\] to 36'),
        ([(18, 32), (9, 17)], r'level 1 is 17 cells wide, 544 pixels .* input is 512 pixels wide'),
        ([(36, 64), (9, 16)], r'level 0 is 36 cells high, 576 pixels .*\.strides\[0\] to 8 '),
    ],
)
def test_maps_that_the_strides_do_not_fit_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        check_cover(maps, [(16, 16), (32, 32)], (288, 512))
