"""Priors: the numbers of Caffe's `test_prior_box_layer.cpp` and of torchvision's generator.

Caffe's boxes are shares of an image of 100 x 100 pixels, over a map of 10 x 10 cells. Left out are
its variances, which the box coder has here (`test_boxes.py`), and a ratio of 1 in the list
(`TestSetupAspectRatio1`), which Caffe skips: its prior is the square that a level always has.
"""

from math import sqrt

import pytest
import torch

from ssd_plugin.models.priors import SSDPriorGenerator

PIXELS = 100
CONFIG = dict(strides=[10], ratios=[[]], min_sizes=[4], max_sizes=[9], input_size=PIXELS)


def priors_of(cells=(10, 10), **changes):
    """Shares of the image, (h, w, A, 4)."""
    (priors,) = SSDPriorGenerator(**CONFIG | changes).grid_priors([cells], device='cpu')
    return priors.reshape(*cells, -1, 4) / PIXELS


def assert_near(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


SEVERAL = dict(min_sizes=[[4, 14]], max_sizes=[[9, 19]])


@pytest.mark.parametrize(
    ('changes', 'count'),
    [
        ({}, 2),  # TestSetup
        (SEVERAL, 4),  # TestSetupMultiSize
        (dict(max_sizes=[[]]), 1),  # TestSetupNoMaxSize
        (dict(min_sizes=[[4, 14]], max_sizes=[[]]), 2),  # TestSetupMultiSizeNoMaxSize
        (dict(ratios=[[2, 3]], flip=False), 4),  # TestSetupAspectRatioNoFlip
        (dict(ratios=[[2, 3]]), 6),  # TestSetupAspectRatio
        (dict(SEVERAL, ratios=[[2, 3]]), 12),  # TestSetupAspectRatioMultiSize
    ],
)
def test_a_cell_has_a_prior_for_each_size_and_ratio(changes, count):
    """Caffe's `TestSetup...`."""
    assert priors_of(**changes).shape == (10, 10, count, 4)
    assert SSDPriorGenerator(**CONFIG | changes).num_base_priors == [count]


def wide(x, y):
    """The prior of ratio 2 of a size of 0.04."""
    return [x - 0.02 * sqrt(2), y - 0.01 * sqrt(2), x + 0.02 * sqrt(2), y + 0.01 * sqrt(2)]


def tall(x, y):
    """The prior of ratio 1/2 of a size of 0.04."""
    return [x - 0.01 * sqrt(2), y - 0.02 * sqrt(2), x + 0.01 * sqrt(2), y + 0.02 * sqrt(2)]


SMALL, LARGE = [0.03, 0.03, 0.07, 0.07], [0.02, 0.02, 0.08, 0.08]
WIDE, TALL = wide(0.05, 0.05), tall(0.05, 0.05)
FIFTH = [0.43, 0.43, 0.47, 0.47]  # in the fifth row and column
SECOND_SIZE = [  # of 8 and 18 pixels, clipped
    [0.01, 0.01, 0.09, 0.09],
    [0.00, 0.00, 0.11, 0.11],
    [0.00, 0.05 - 0.04 / sqrt(2), 0.05 + 0.04 * sqrt(2), 0.05 + 0.04 / sqrt(2)],
    [0.05 - 0.04 / sqrt(2), 0.00, 0.05 + 0.04 / sqrt(2), 0.05 + 0.04 * sqrt(2)],
]
SIZES_OF_TWO = dict(min_sizes=[[4, 8]], max_sizes=[[9, 18]], ratios=[[2]], clip=True)


@pytest.mark.parametrize(
    ('changes', 'first_cell', 'later'),
    [
        ({}, [SMALL, LARGE], {0: FIFTH}),
        (dict(max_sizes=[[]]), [SMALL], {0: FIFTH}),
        (dict(ratios=[[2]], flip=False), [SMALL, LARGE, WIDE], {0: FIFTH, 2: wide(0.45, 0.45)}),
        (
            dict(ratios=[[2]]),
            [SMALL, LARGE, WIDE, TALL],
            {0: FIFTH, 2: wide(0.45, 0.45), 3: tall(0.45, 0.45)},
        ),
        (
            SIZES_OF_TWO,
            [SMALL, LARGE, WIDE, TALL, *SECOND_SIZE],
            {0: FIFTH, 2: wide(0.45, 0.45), 3: tall(0.45, 0.45)},
        ),
    ],
    ids=['TestCPU', 'NoMaxSize', 'AspectRatioNoFlip', 'AspectRatio', 'AspectRatioMultiSize'],
)
def test_priors_of_a_cell_are_small_large_wide_and_tall_size_by_size(changes, first_cell, later):
    """Caffe's `TestCPU...`."""
    priors = priors_of(**changes)
    assert_near(priors[0, 0], first_cell)
    for number, expected in later.items():
        assert_near(priors[4, 4, number], expected)


def test_centres_follow_the_stride_beyond_the_stated_input():
    """Caffe's `TestCPUFixStep`: twice as many rows, by the step and the image size stated."""
    priors = priors_of((20, 10), ratios=[[2]])
    assert_near(priors[0, 0], [SMALL, LARGE, WIDE, TALL])
    expected = [[0.43, 1.43, 0.47, 1.47], wide(0.45, 1.45), tall(0.45, 1.45)]
    assert_near(priors[14, 4, [0, 2, 3]], expected)


@pytest.mark.parametrize(
    'sizes',
    [
        dict(min_sizes=[0.15 * 15], max_sizes=[0.9 * 15]),
        dict(basesize_ratio_range=(0.15, 0.9)),
    ],
)
def test_priors_of_one_level_are_torchvision_s(sizes):
    """`test_defaultbox_generator` of torchvision's `test_models_detection_anchor_utils.py`."""
    generator = SSDPriorGenerator([15], [[2]], input_size=15, **sizes)
    (priors,) = generator.grid_priors([(1, 1)], device='cpu')
    expected = [
        [6.3750, 6.3750, 8.6250, 8.6250],
        [4.7443, 4.7443, 10.2557, 10.2557],
        [5.9090, 6.7045, 9.0910, 8.2955],
        [6.7045, 5.9090, 8.2955, 9.0910],
    ]
    torch.testing.assert_close(priors, torch.tensor(expected), rtol=1e-5, atol=1e-8)
