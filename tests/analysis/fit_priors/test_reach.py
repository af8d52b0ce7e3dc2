"""The best IoU of objects with priors, in closed form, and what matching makes of it."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import TASK_UTILS

from ssd_plugin.analysis.fit_priors.arguments import PriorArgs
from ssd_plugin.analysis.fit_priors.coverage import groups, measure_coverage
from ssd_plugin.analysis.fit_priors.objects import Objects
from ssd_plugin.analysis.fit_priors.reach import best_iou, distance_to_grid, grids_of, shapes_of
from ssd_plugin.analysis.fit_priors.search import Problem
from ssd_plugin.analysis.prior_grid import PriorGrid
from tests.support.helpers import MODEL_TABLE, TINY, iou, naive_match, prior_config

side = st.floats(2, 90)
place = st.floats(-0.2, 1.2)


def make_objects(bboxes, labels=None, images=None, classes=('thing',)):
    bboxes = np.array(bboxes, dtype=np.float64).reshape(-1, 4)
    zeros = np.zeros(len(bboxes), dtype=np.int64)
    labels = zeros if labels is None else np.array(labels)
    images = zeros if images is None else np.array(images)
    number = int(images.max(initial=0)) + 1
    return Objects(bboxes, labels, images, classes, number, Counter())


def tiny_grid(**changes):
    sizes = [(n, n) for n in TINY['feature_sizes']]
    generator = TASK_UTILS.build(prior_config(TINY, **changes))
    return PriorGrid(generator, sizes, (TINY['input_size'],) * 2)


@pytest.mark.parametrize('name', MODEL_TABLE)
def test_shapes_are_the_generators(name):
    generator = TASK_UTILS.build(prior_config(MODEL_TABLE[name]))
    for args, anchors in zip(zip(*PriorArgs.of(generator)), generator.base_anchors):
        expected = (anchors[:, 2:] - anchors[:, :2]).numpy()
        found = shapes_of(*args).T
        assert np.allclose(np.sort(found, axis=0), np.sort(expected, axis=0), rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(place, place, side, side), min_size=1, max_size=12),
    stride=st.tuples(st.floats(5, 40), st.floats(5, 40)),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    offset=st.sampled_from([0.5, 0.0, 0.37]),
    sizes=st.tuples(side, side),
    ratios=st.lists(st.floats(1, 6), max_size=2),
)
def test_the_nearest_cell_is_the_best_wherever_the_box_lies(
    boxes, stride, cells, offset, sizes, ratios
):
    generator = TASK_UTILS.build(
        dict(
            type='SSDPriorGenerator',
            strides=[stride],
            ratios=[ratios],
            min_sizes=[sizes[0]],
            max_sizes=[sizes[1]],
            center_offset=offset,
        )
    )
    priors = torch.cat(generator.grid_priors([cells[::-1]], torch.float64, 'cpu'))
    shares = np.array(boxes)
    centres = shares[:, :2] * stride * cells
    bboxes = np.concatenate([centres - shares[:, 2:] / 2, centres + shares[:, 2:] / 2], axis=1)
    brute = [max(iou(box, prior) for prior in priors.tolist()) for box in bboxes.tolist()]

    (grid,) = grids_of(PriorGrid(generator, [cells[::-1]], (1, 1)))
    distances = distance_to_grid(centres.T, grid)
    found = best_iou(shares[:, 2:].T, distances, shapes_of(*sizes, ratios))
    assert found == pytest.approx(brute, abs=2e-5)  # the generator's shapes are float32


@pytest.mark.parametrize('changes', [{}, dict(clip_sides=True, input_size=40)], ids=str)
def test_all_levels_together_and_sides_that_are_clipped(changes):
    grid = tiny_grid(**changes)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (30, 2))
    objects = make_objects(np.concatenate([low, low + rng.uniform(3, 50, (30, 2))], axis=1))
    largest = grid.generator.input_size if changes else (np.inf, np.inf)
    found = Problem(objects, grids_of(grid), largest).iou(PriorArgs.of(grid.generator).to_logs())
    measured = measure_coverage(grid.priors(), objects, TASK_UTILS.build(ASSIGNER))
    assert found == pytest.approx(measured.iou, abs=1e-5)


ASSIGNER = dict(type='BatchMaxIoUAssigner')


def test_coverage_counts_what_matching_gives_each_object():
    grid = tiny_grid()
    boxes = [[4, 4, 26, 24], [6, 5, 24, 26], [30, 30, 60, 44], [1, 1, 5, 3]]
    objects = make_objects(boxes, labels=[0, 1, 1, 0], images=[0, 0, 2, 2])
    coverage = measure_coverage(grid.priors(), objects, TASK_UTILS.build(ASSIGNER))
    priors = torch.cat(grid.priors()).tolist()
    for image in (0, 2):
        members = [i for i in range(4) if objects.images[i] == image]
        gt_inds, _ = naive_match(priors, [boxes[i] for i in members])
        for g, i in enumerate(members):
            assert coverage.matched[i] == gt_inds.count(g + 1)
            assert coverage.iou[i] == pytest.approx(max(iou(boxes[i], p) for p in priors), abs=1e-5)
    assert coverage.matched[3] == 1  # its own prior, far too large

    share50, share70, mean, matched = coverage.figures(np.array([True, False, False, True]))
    assert share50 == 0.5 and share70 in (0, 0.5)
    assert mean == pytest.approx((coverage.iou[0] + coverage.iou[3]) / 2)
    assert matched == (coverage.matched[0] + 1) / 2


def test_objects_are_grouped_by_size_and_class():
    boxes = [[0, 0, 31, 31], [0, 0, 32, 32], [0, 0, 20, 60], [0, 0, 96, 96]]
    objects = make_objects(boxes, [0, 2, 2, 0], classes=('a', 'b', 'c'))
    found = {name: members.nonzero()[0].tolist() for name, members in groups(objects)}
    assert found == {
        'all': [0, 1, 2, 3],
        'small': [0],
        'medium': [1, 2],
        'large': [3],
        'a': [0, 3],
        'c': [1, 2],
    }
