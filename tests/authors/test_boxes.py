"""Overlaps and deltas: the numbers of Caffe's `test_bbox_util.cpp`.

Left out is its second way to encode a box, by its corners: SSD's models use centre and size, and
so does this project.
"""

from math import log

import pytest
import torch
from mmdet.registry import TASK_UTILS

from ssd_plugin.models.boxes import iof, iou, is_valid_box, without_synchronisation

REFERENCE = [0.2, 0.3, 0.3, 0.5]


def assert_near(found, expected, atol=1e-6):
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=atol
    )


@pytest.mark.parametrize(
    ('box', 'overlap', 'inside'),
    [
        ([0.1, 0.1, 0.3, 0.4], 1 / 7, 0.1 * 0.1 / 0.02),  # they share a part
        ([0.1, 0.1, 0.4, 0.6], 2 / 15, 1),  # the reference lies inside
        ([0, 0, 0.1, 0.1], 0, 0),  # apart
    ],
)
def test_overlap_is_the_intersection_over_the_union(box, overlap, inside):
    """`TestJaccardOverlap`; and `TestIntersectBBox`, as the share of the reference inside."""
    box, reference = torch.tensor([box]), torch.tensor([REFERENCE])
    assert_near(iou(box, reference), [overlap])
    assert_near(iof(box, reference), [inside])


@pytest.mark.parametrize(
    ('box', 'area'),
    [
        (REFERENCE, 0.02),
        ([0.2, 0.3, 0.2, 0.5], 0),  # a line
        ([0.2, 0.3, 0.1, 0.5], 0),  # turned over
    ],
)
def test_a_box_has_the_area_of_its_sides_or_none(box, area):
    """`TestBBoxSize`: the area is the intersection with a square of area 1 around it."""
    box = torch.tensor([box])
    assert_near(iof(box, torch.tensor([[0.0, 0, 1, 1]])), [area])
    assert is_valid_box(box).item() is (area > 0)


PRIOR, BOX = [0.1, 0.1, 0.3, 0.3], [0.0, 0.2, 0.4, 0.5]
DELTAS = [
    ((1, 1, 1, 1), [0, 0.75, log(2), log(3 / 2)]),
    ((0.1, 0.1, 0.2, 0.2), [0 / 0.1, 0.75 / 0.1, log(2) / 0.2, log(3 / 2) / 0.2]),
]


def coder_of(stds):
    """What a head with these standard deviations encodes and decodes with."""
    return without_synchronisation(
        TASK_UTILS.build(dict(type='DeltaXYWHBBoxCoder', target_stds=stds))
    )


@pytest.mark.parametrize(('stds', 'deltas'), DELTAS, ids=['without variances', 'with variances'])
def test_a_box_is_encoded_by_centre_and_size(stds, deltas):
    """`TestEncodeBBoxCenterSize`."""
    found = coder_of(stds).encode(torch.tensor([PRIOR]), torch.tensor([BOX]))
    assert_near(found, [deltas], atol=1e-5)


@pytest.mark.parametrize(('stds', 'deltas'), DELTAS, ids=['without variances', 'with variances'])
def test_each_prior_s_deltas_are_decoded_around_that_prior(stds, deltas):
    """`TestDecodeBBoxCenterSize` and `TestDecodeBBoxesCenterSize`: four priors in a diagonal."""
    steps = 0.1 * torch.arange(4)[:, None]
    found = coder_of(stds).decode(torch.tensor(PRIOR) + steps, torch.tensor([deltas] * 4))
    assert_near(found, (torch.tensor(BOX) + steps).tolist(), atol=1e-5)
