"""The best IoU of boxes with priors, in closed form, and what matching makes of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import TASK_UTILS

from ssd_plugin.analysis.fit_priors.fitting import groups, measure_coverage
from ssd_plugin.analysis.fit_priors.reach import PriorArgs, Problem, score
from ssd_plugin.analysis.prior_grid import PriorGrid
from tests.support.helpers import iou, naive_match
from tests.support.training_boxes import make_boxes, tiny_grid

ASSIGNER = dict(type='BatchMaxIoUAssigner')

side = st.floats(2, 90)
place = st.floats(-0.2, 1.2)


def test_logarithms_and_back():
    args = PriorArgs([10.0, 22.0], [22.0, 40.0], [[2.0], [3.0, 0.5]])
    back = PriorArgs.from_logs(args.to_logs())
    assert back.min_sizes == pytest.approx(args.min_sizes)
    assert back.max_sizes == pytest.approx(args.max_sizes)
    assert back.ratios[1] == pytest.approx([3, 2])  # 1/2 stands for the same two priors
    assert back.rounded() == PriorArgs([10, 22], [22, 40], [[2], [2, 3]])


def test_a_generator_with_other_arguments_keeps_the_rest():
    generator = tiny_grid(clip=True, center_offset=[0.5, 0.4, 0.5]).generator
    args = PriorArgs([8.0, 20.0, 30.0], [20.0, 30.0, 40.0], [[3], [1.5, 2], [2]])
    other = args.put_into(generator)
    assert PriorArgs.of(other) == args
    for name in ('strides', 'input_size', 'center_offset', 'clip', 'clip_sides'):
        assert getattr(other, name) == getattr(generator, name)


def test_sizes_may_be_given_by_the_papers_linear_rule():
    config = dict(type='SSDPriorGenerator', strides=[8, 16], ratios=[[2], [2, 3]])
    config.update(basesize_ratio_range=(0.2, 0.4), input_size=100)
    args = PriorArgs.of(TASK_UTILS.build(config))
    assert args.min_sizes == pytest.approx([20, 40])
    assert args.max_sizes == pytest.approx([40, 60])


def test_the_score_is_the_stated_sum():
    ious = np.array([0.2, 0.5, 0.69, 0.7, 0.9])
    assert score(ious) == pytest.approx(10 * 4 / 5 + 2 / 5 + ious.mean())


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(place, place, side, side), min_size=1, max_size=12),
    stride=st.tuples(st.floats(5, 40), st.floats(5, 40)),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    offset=st.sampled_from([0.5, 0.0, 0.37]),
    sizes=st.tuples(side, side),
    ratios=st.lists(st.floats(1.01, 6), max_size=2),
)
def test_the_nearest_cell_is_the_best_wherever_the_box_lies(
    boxes, stride, cells, offset, sizes, ratios
):
    config = dict(type='SSDPriorGenerator', strides=[stride], center_offset=offset)
    config.update(min_sizes=[sizes[0]], max_sizes=[sizes[1]], ratios=[ratios])
    generator = TASK_UTILS.build(config)
    priors = torch.cat(generator.grid_priors([cells[::-1]], torch.float64, 'cpu'))
    shares = np.array(boxes)
    centres = shares[:, :2] * stride * cells
    bboxes = np.concatenate([centres - shares[:, 2:] / 2, centres + shares[:, 2:] / 2], axis=1)
    brute = [max(iou(box, prior) for prior in priors.tolist()) for box in bboxes.tolist()]

    problem = Problem(make_boxes(bboxes), PriorGrid(generator, [cells[::-1]], (1, 1)))
    found = problem.iou(PriorArgs.of(generator).to_logs())
    assert found == pytest.approx(brute, abs=2e-5)  # the generator's shapes are float32


@pytest.mark.parametrize('changes', [{}, dict(clip_sides=True, input_size=40)], ids=str)
def test_all_levels_together_and_sides_that_are_clipped(changes):
    grid = tiny_grid(**changes)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (30, 2))
    boxes = make_boxes(np.concatenate([low, low + rng.uniform(3, 50, (30, 2))], axis=1))
    found = Problem(boxes, grid).iou(PriorArgs.of(grid.generator).to_logs())
    measured = measure_coverage(grid.priors(), boxes, TASK_UTILS.build(ASSIGNER))
    assert found == pytest.approx(measured.iou, abs=1e-5)


def test_coverage_counts_the_priors_that_matching_gives_each_box():
    grid = tiny_grid()
    boxes = [[4, 4, 26, 24], [6, 5, 24, 26], [30, 30, 60, 44], [1, 1, 5, 3]]
    gts = make_boxes(boxes, labels=[0, 1, 1, 0], images=[0, 0, 2, 2])
    coverage = measure_coverage(grid.priors(), gts, TASK_UTILS.build(ASSIGNER))
    priors = torch.cat(grid.priors()).tolist()
    for image in (0, 2):
        members = [i for i in range(4) if gts.images[i] == image]
        gt_inds, _ = naive_match(priors, [boxes[i] for i in members])
        for g, i in enumerate(members):
            assert coverage.matched[i] == gt_inds.count(g + 1)
            assert coverage.iou[i] == pytest.approx(max(iou(boxes[i], p) for p in priors), abs=1e-5)
    assert coverage.matched[3] == 1  # its own prior, far too large

    share50, share70, mean, matched = coverage.figures(np.array([True, False, False, True]))
    assert share50 == 0.5 and share70 in (0, 0.5)
    assert mean == pytest.approx((coverage.iou[0] + coverage.iou[3]) / 2)
    assert matched == (coverage.matched[0] + 1) / 2


def test_boxes_are_grouped_by_size_and_class():
    boxes = [[0, 0, 31, 31], [0, 0, 32, 32], [0, 0, 20, 60], [0, 0, 96, 96]]
    gts = make_boxes(boxes, [0, 2, 2, 0], classes=('a', 'b', 'c'))
    found = {name: members.nonzero()[0].tolist() for name, members in groups(gts)}
    by_size = dict(small=[0], medium=[1, 2], large=[3])
    assert found == dict(all=[0, 1, 2, 3], **by_size, a=[0, 3], c=[1, 2])
