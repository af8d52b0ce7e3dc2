"""Priors: those of every model, of MMDetection and of torchvision, and the rules between them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import TASK_UTILS
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from ssd_plugin.models.priors import SSDPriorGenerator, check_cover
from tests.support.helpers import MODEL_TABLE, TINY, model_priors, naive_priors, prior_config

examples = settings(deadline=None, max_examples=40)
CLOSE = dict(rtol=0, atol=1e-3)


def square_map_sizes(model):
    return [(n, n) for n in model['feature_sizes']]


def widths_and_heights(boxes):
    return boxes[:, 2:] - boxes[:, :2]


def centres(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def priors_of(*maps, dtype=torch.float32, **config):
    """Priors of maps (h, w); of two a cell where there are no ratios."""
    config = dict(ratios=[[]] * len(maps)) | config
    return SSDPriorGenerator(**config).grid_priors(maps, dtype, device='cpu')


@pytest.mark.parametrize('name', MODEL_TABLE)
def test_every_prior_of_a_model_is_where_the_formula_puts_it_and_they_cover_the_input(name):
    model, priors = MODEL_TABLE[name], model_priors(name)
    for level, side, per_cell in zip(priors, model['feature_sizes'], model['per_cell']):
        assert level.shape == (side * side * per_cell, 4)
    assert sum(map(len, priors)) == model['total']
    for level, expected in zip(priors, naive_priors(model), strict=True):
        torch.testing.assert_close(level, torch.tensor(expected), rtol=0, atol=2e-4)
    generator = TASK_UTILS.build(prior_config(model))
    assert isinstance(generator, SSDPriorGenerator)
    assert generator.num_levels == len(model['strides'])
    assert list(generator.num_base_priors) == model['per_cell']
    assert [tuple(stride) for stride in generator.strides] == [(s, s) for s in model['strides']]
    check_cover(square_map_sizes(model), generator.strides, (model['input_size'],) * 2)


@pytest.mark.parametrize(
    ('name', 'sizes'),
    [
        ('SSD300 VOC', dict(basesize_ratio_range=(0.2, 0.9), input_size=300)),
        ('SSD300 COCO', dict(basesize_ratio_range=(0.15, 0.9), input_size=300)),
        ('SSD512 VOC', 'told'),  # MMDetection rounds them, unless it is told
        ('SSD512 COCO', 'told'),
    ],
)
def test_mmdetection_s_anchors_are_the_same_in_the_same_order(name, sizes):
    model = MODEL_TABLE[name]
    config = prior_config(model, type='SSDAnchorGenerator', scale_major=False)
    if sizes != 'told':
        config.update(sizes, min_sizes=None, max_sizes=None)
    theirs = TASK_UTILS.build(config).grid_priors(square_map_sizes(model), device='cpu')
    for ours, level in zip(model_priors(name), theirs, strict=True):
        torch.testing.assert_close(ours, level, **CLOSE)


def torchvision_boxes(generator, input_size, feature_sizes):
    """Priors of torchvision's generator, (P, 4), for a square input."""
    images = ImageList(torch.zeros(1, 3, input_size, input_size), [(input_size, input_size)])
    return generator(images, [torch.zeros(1, 1, n, n) for n in feature_sizes])[0]


def test_ssd300_can_have_torchvision_s_priors():
    model = MODEL_TABLE['SSD300 COCO']
    scales = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    theirs = DefaultBoxGenerator(model['ratios'], scales=scales, steps=model['strides'])
    theirs = torchvision_boxes(theirs, 300, model['feature_sizes'])
    assert len(theirs) == 8732
    torch.testing.assert_close(torch.cat(model_priors(model, clip_sides=True)), theirs, **CLOSE)
    # The comparison would not hold for free: the last level's boxes exceed the input.
    assert (torch.cat(model_priors(model)) - theirs).abs().max() > 30


def test_ssdlite320_can_have_torchvision_s_priors():
    sides = [20, 10, 5, 3, 2, 1]
    min_sizes = [64, 112, 160, 208, 256, 304]
    sizes = dict(input_size=320, min_sizes=min_sizes, max_sizes=[*min_sizes[1:], 320])
    config = dict(sizes, strides=[320 / n for n in sides], ratios=[[2, 3]] * 6, clip_sides=True)
    ours = priors_of(*((n, n) for n in sides), **config)
    theirs = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    theirs = torchvision_boxes(theirs, 320, sides)
    assert len(theirs) == 3234
    torch.testing.assert_close(torch.cat(ours), theirs, **CLOSE)


def test_clipping_of_corners_or_of_sides_knows_width_from_height():
    config = dict(strides=[16], min_sizes=[90], max_sizes=[140], input_size=(128, 64), ratios=[[4]])
    (free,), (corners,), (sides,) = (
        priors_of((4, 8), **config, **clip) for clip in ({}, dict(clip=True), dict(clip_sides=True))
    )
    assert free.min() < -1 and free[:, 2].max() > 128 and free[:, 3].max() > 64
    torch.testing.assert_close(corners[:, 0::2], free[:, 0::2].clamp(0, 128))
    torch.testing.assert_close(corners[:, 1::2], free[:, 1::2].clamp(0, 64))
    torch.testing.assert_close(centres(sides), centres(free), **CLOSE)
    expected = widths_and_heights(free).minimum(torch.tensor([128.0, 64]))
    torch.testing.assert_close(widths_and_heights(sides), expected)


@examples
@given(
    stride=st.tuples(st.floats(1, 200), st.floats(1, 200)),
    offset=st.floats(0, 1),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_centres_lie_at_their_offset_in_each_cell_row_by_row(stride, offset, cells):
    config = dict(strides=[(4, 4), stride], min_sizes=[8, 8], max_sizes=[8, 8])
    first, second = priors_of((1, 1), cells, **config, center_offset=[0.5, offset])
    torch.testing.assert_close(first[0], torch.tensor([-2.0, -2, 6, 6]))
    expected = [
        [(j + offset) * stride[0], (i + offset) * stride[1]]
        for i in range(cells[0])
        for j in range(cells[1])
        for _ in range(2)
    ]
    torch.testing.assert_close(centres(second), torch.tensor(expected), rtol=1e-5, atol=1e-3)


@examples
@given(
    levels=st.integers(1, 8),
    low=st.floats(0.05, 0.4),
    high=st.floats(0.45, 0.95),
    sides=st.tuples(st.integers(64, 1024), st.integers(64, 1024)),
)
def test_the_linear_rule_spreads_scales_evenly_over_the_shorter_side(levels, low, high, sides):
    config = dict(strides=[8] * levels, basesize_ratio_range=(low, high), input_size=sides)
    boxes = priors_of(*[(1, 1)] * levels, dtype=torch.float64, **config)
    found = widths_and_heights(torch.cat(boxes))[:, 0].reshape(levels, 2)
    step = (high - low) / max(levels - 1, 1)
    sizes = [min(sides) * (low + step * k) for k in range(levels + 1)]
    for level, m, big in zip(found.tolist(), sizes[:-1], sizes[1:], strict=True):
        assert level == pytest.approx([m, (m * big) ** 0.5], rel=1e-4, abs=1e-3)


def test_priors_come_in_the_dtype_and_for_the_maps_that_were_asked_for():
    """Though they are kept for the next call, of more shapes than are kept as well."""
    generator = TASK_UTILS.build(prior_config(TINY))
    sizes = square_map_sizes(TINY)
    kept = generator.grid_priors(sizes, device='cpu')
    assert generator.grid_priors(sizes, device='cpu') is kept
    for n in range(12):
        for dtype in (torch.float32, torch.float64):
            levels = generator.grid_priors(sizes, dtype, device='cpu')
            for level, expected in zip(levels, naive_priors(TINY), strict=True):
                torch.testing.assert_close(level, torch.tensor(expected, dtype=dtype), **CLOSE)
        other = generator.grid_priors([(5, 7), (3, 4), (1, n + 1)], torch.float64, device='cpu')
        assert [len(level) for level in other] == [140, 72, 4 * (n + 1)]


LINEAR = dict(min_sizes=None, max_sizes=None)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(ratios=[[2]]), 'ratios has 1 levels, strides has 2'),
        (dict(min_sizes=[10]), 'min_sizes has 1 levels'),
        (dict(max_sizes=[22, 40, 58]), 'max_sizes has 3 levels'),
        (dict(max_sizes=None), 'max_sizes has 0 levels'),
        (dict(min_sizes=None), 'min_sizes has 0 levels'),
        (LINEAR, 'takes either'),
        (dict(basesize_ratio_range=(0.2, 0.9)), 'takes either'),
        (dict(center_offset=[0.5]), 'center_offset has 1 levels'),
        (dict(center_offset=[0.5, 1.5]), 'center_offset .* is not from 0 to 1'),
        (dict(min_sizes=[0, 22]), 'min_sizes must be positive'),
        (dict(min_sizes=[10, [22, 0]]), 'min_sizes must be positive'),
        (dict(min_sizes=[[10, 14], 22]), r'min_sizes \(10, 14\), but max_sizes \(22,\)'),
        (dict(min_sizes=[10, []]), r'min_sizes \(\), but max_sizes \(40,\)'),
        (dict(ratios=[[2], [-3]]), 'ratios must be positive'),
        (dict(strides=[8, 0]), 'strides must be positive'),
        (dict(ratios=[[2], [1, 3]]), r'write ratios \[1, 3\] without 1'),
        (dict(ratios=[[0.5, 2], [3]]), r'write ratios \[0.5, 2\] .*without reciprocals'),
        (dict(LINEAR, basesize_ratio_range=(0.9, 0.2)), 'max_sizes must be positive'),
        (dict(LINEAR, basesize_ratio_range=(15, 90)), r'basesize_ratio_range=\(0.15, 0.9\)'),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    config = dict(strides=[8, 16], ratios=[[2], [3]], min_sizes=[10, 22], max_sizes=[22, 40])
    SSDPriorGenerator(**config)
    with pytest.raises(ValueError, match=message):
        SSDPriorGenerator(**config | changes)


def test_a_generator_prints_its_arguments():
    generator = SSDPriorGenerator([8, 16], [[2], [3]], [10, 22], [22, 40], input_size=64, clip=True)
    text = 'SSDPriorGenerator(strides=[(8, 8), (16, 16)], ratios=[[2], [3]], min_sizes=[10, 22], '
    text += 'max_sizes=[22, 40], input_size=(64, 64), center_offset=(0.5, 0.5), clip=True, '
    assert repr(generator) == text + 'clip_sides=False, flip=True)'


def test_the_wrong_number_of_maps_is_refused():
    generator = TASK_UTILS.build(prior_config(TINY))
    with pytest.raises(ValueError, match='has 3 levels, .* but there are 2 feature maps'):
        generator.grid_priors([(8, 8), (4, 4)], device='cpu')


@pytest.mark.parametrize(
    ('maps', 'input_shape', 'message'),
    [
        ([(18, 32), (8, 16)], (288, 512), 'level 1 is 8 cells high, 256 pixels .* 288 pixels'),
        ([(18, 32), (9, 17)], (288, 512), 'level 1 is 17 cells wide, 544 pixels .* 512 pixels'),
        ([(36, 64), (9, 16)], (288, 512), 'level 0 is 36 cells high, 576 pixels'),
        ([(1, 1), (1, 1)], (16, 15), 'level 1 is 1 cells high, 32 pixels'),  # centred on the edge
    ],
)
def test_maps_that_the_strides_do_not_fit_are_refused(maps, input_shape, message):
    with pytest.raises(ValueError, match=message):
        check_cover(maps, [(16, 16), (32, 32)], input_shape)


def test_a_single_cell_is_centred_inside_of_the_input():
    check_cover([(1, 1)], [(32, 32)], (17, 60))


@pytest.mark.parametrize('clip', [dict(), dict(clip=True), dict(clip_sides=True)])
def test_a_few_of_a_level_s_priors_are_those_of_all(clip):
    generator = TASK_UTILS.build(prior_config(TINY, **clip))
    chosen = torch.tensor([0, 5, 7, 95, 41])
    expected = generator.grid_priors([(8, 8), (4, 4), (2, 2)], device='cpu')[1][chosen]
    found = generator.sparse_priors(chosen, (4, 4), 1, torch.float32, 'cpu')
    torch.testing.assert_close(found, expected)
