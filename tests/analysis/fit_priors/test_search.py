"""The search for sizes and ratios."""

import numpy as np
import pytest
from mmdet.registry import TASK_UTILS

from ssd_plugin.analysis.fit_priors.arguments import PriorArgs
from ssd_plugin.analysis.fit_priors.reach import grids_of
from ssd_plugin.analysis.fit_priors.search import Problem, kmeans, kmeans_start, score, search
from tests.analysis.fit_priors.test_reach import make_objects, tiny_grid

INFINITE = (np.inf, np.inf)


def thin_objects(number=150, seed=0, long=40, short=8, size=64):
    """Objects five times as long as wide, some lying, some standing."""
    rng = np.random.default_rng(seed)
    sides = np.array([long, short]) * rng.uniform(0.85, 1.15, (number, 2))
    sides[::2] = sides[::2, ::-1]
    low = rng.uniform(0, size - sides)
    return make_objects(np.concatenate([low, low + sides], axis=1))


def tiny_problem(objects):
    grid = tiny_grid()
    return Problem(objects, grids_of(grid), INFINITE), PriorArgs.of(grid.generator)


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


def test_the_score_is_the_stated_sum():
    iou = np.array([0.2, 0.5, 0.69, 0.7, 0.9])
    assert score(iou) == pytest.approx(10 * 4 / 5 + 2 / 5 + iou.mean())


def test_kmeans_finds_clear_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[10, 10], [12, 60], [80, 90]])
    sides = np.concatenate([c * rng.uniform(0.95, 1.05, (40, 2)) for c in centres])
    rng.shuffle(sides)
    assert np.allclose(kmeans(sides.T, 3).T, centres, rtol=0.03)
    assert kmeans(np.full((2, 4), 5.0), 3).shape == (2, 3)  # fewer different sides than clusters


def test_the_start_by_kmeans_has_as_many_priors_a_cell():
    objects = thin_objects()
    _, args = tiny_problem(objects)
    start = kmeans_start(objects.sides, args)
    assert [len(level) for level in start.ratios] == [len(level) for level in args.ratios]
    assert start.ratios[0][0] == pytest.approx(5, rel=0.2)
    assert start.ratios[1][1] == pytest.approx(start.ratios[1][0] ** 2)
    assert start.min_sizes == sorted(start.min_sizes)
    assert start.max_sizes[:-1] == start.min_sizes[1:]


def test_long_thin_objects_are_reached_afterwards():
    problem, args = tiny_problem(thin_objects())
    before = problem.iou(args.to_logs())
    found = search(problem, args, (64, 64), seed=0)
    after = problem.iou(found.to_logs())
    assert (before >= 0.5).mean() < 0.3
    assert (after >= 0.5).mean() > 0.7
    assert [len(level) for level in found.ratios] == [len(level) for level in args.ratios]


def test_it_holds_for_other_objects_of_the_same_kind():
    problem, args = tiny_problem(thin_objects())
    found = search(problem, args, (64, 64), seed=0)
    others, _ = tiny_problem(thin_objects(seed=1))
    share = (others.iou(found.to_logs()) >= 0.5).mean()
    assert share > (others.iou(args.to_logs()) >= 0.5).mean() + 0.5


def test_a_few_small_objects_are_not_given_up_for_many_large_ones():
    rng = np.random.default_rng(0)
    sides = np.concatenate([rng.uniform(24, 30, (135, 2)), rng.uniform(7, 9, (15, 2))])
    low = rng.uniform(0, 64 - sides)
    problem, args = tiny_problem(make_objects(np.concatenate([low, low + sides], axis=1)))
    args = args._replace(min_sizes=[20, 22, 40])
    before = problem.iou(args.to_logs()) >= 0.5
    after = problem.iou(search(problem, args, (64, 64), 0).to_logs()) >= 0.5
    assert not before[135:].any()
    assert after[:135].mean() > 0.95 and after[135:].mean() > 0.25


def test_the_same_seed_gives_the_same_setting():
    problem, args = tiny_problem(thin_objects(40))
    assert search(problem, args, (64, 64), 3) == search(problem, args, (64, 64), 3)


def test_min_sizes_stay_in_order_and_within_what_a_cell_sees():
    problem, args = tiny_problem(thin_objects(80, long=30, short=20))
    found = search(problem, args, (64, 64), 0)
    assert found.min_sizes == sorted(found.min_sizes)
    for size, given, stride in zip(found.min_sizes, args.min_sizes, (8, 16, 32)):
        assert min(given, stride) * 0.999 <= size <= max(given, min(8 * stride, 64)) * 1.001
    assert all(m <= M * 1.0001 for m, M in zip(found.min_sizes, found.max_sizes))


def test_what_nothing_depends_on_stays_as_it_was():
    """Small squares exactly on the first level's cells: its square is all that counts."""
    centres = np.array([(x, y) for x in range(4, 64, 8) for y in range(4, 64, 8)])
    objects = make_objects(np.concatenate([centres - 4, centres + 4], axis=1))
    problem, args = tiny_problem(objects)
    found = search(problem, args, (64, 64), 0)
    assert problem.iou(found.to_logs()).min() > 0.9
    assert found.rounded().min_sizes[1:] == args.min_sizes[1:]
    assert found.rounded().max_sizes[1:] == args.max_sizes[1:]
    assert found.rounded().ratios == args.ratios


def test_priors_that_fit_already_are_kept():
    grid = tiny_grid()
    priors = np.concatenate([level.numpy() for level in grid.priors()])
    problem = Problem(make_objects(priors), grids_of(grid), INFINITE)
    args = PriorArgs.of(grid.generator)
    assert search(problem, args, (64, 64), 0) == args


def test_the_papers_priors_are_a_setting_like_others():
    generator = TASK_UTILS.build(
        dict(
            type='SSDPriorGenerator',
            strides=[8, 16],
            ratios=[[2], [2, 3]],
            basesize_ratio_range=(0.2, 0.4),
            input_size=100,
        )
    )
    args = PriorArgs.of(generator)
    assert args.min_sizes == pytest.approx([20, 40])
    assert args.max_sizes == pytest.approx([40, 60])
