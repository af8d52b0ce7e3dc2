"""The search for sizes and ratios."""

import numpy as np
import pytest

from ssd_plugin.analysis.fit_priors.reach import PriorArgs, Problem
from ssd_plugin.analysis.fit_priors.search import kmeans, kmeans_start, search
from tests.support.training_boxes import make_boxes, tiny_grid


def thin_boxes(number=150, seed=0, long=40, short=8, size=64):
    """Boxes five times as long as wide, half of them lying, half standing."""
    rng = np.random.default_rng(seed)
    sides = np.array([long, short]) * rng.uniform(0.85, 1.15, (number, 2))
    sides[::2] = sides[::2, ::-1]
    return anywhere(sides, rng, size)


def anywhere(sides, rng, size=64):
    """Boxes of these sides (N, 2), at random places inside the image."""
    low = rng.uniform(0, size - sides)
    return make_boxes(np.concatenate([low, low + sides], axis=1))


def tiny_problem(boxes):
    grid = tiny_grid()
    return Problem(boxes, grid), PriorArgs.of(grid.generator)


def share(problem, args):
    """The share of the boxes that a prior reaches at IoU 0.5."""
    return (problem.iou(args.to_logs()) >= 0.5).mean()


@pytest.fixture(scope='module')
def thin():
    """A problem of thin boxes, the priors as they are, and as the search finds them."""
    problem, args = tiny_problem(thin_boxes())
    return problem, args, search(problem, args, seed=0)


def test_kmeans_finds_clear_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[10, 10], [12, 60], [80, 90]])
    sides = np.concatenate([c * rng.uniform(0.95, 1.05, (40, 2)) for c in centres])
    rng.shuffle(sides)
    assert np.allclose(kmeans(sides.T, 3).T, centres, rtol=0.03)
    assert kmeans(np.full((2, 4), 5.0), 3).shape == (2, 3)  # fewer different sides than clusters


def test_the_start_by_kmeans_has_as_many_priors_a_cell():
    boxes = thin_boxes()
    _, args = tiny_problem(boxes)
    start = kmeans_start(boxes.sides, args)
    assert [len(level) for level in start.ratios] == [len(level) for level in args.ratios]
    assert start.ratios[0][0] == pytest.approx(5, rel=0.2)
    assert start.ratios[1][1] == pytest.approx(start.ratios[1][0] ** 2)
    assert start.min_sizes == sorted(start.min_sizes)
    assert start.max_sizes[:-1] == start.min_sizes[1:]


def test_long_thin_boxes_are_reached_afterwards(thin):
    problem, args, found = thin
    assert share(problem, args) < 0.3 and share(problem, found) > 0.7
    assert [len(level) for level in found.ratios] == [len(level) for level in args.ratios]
    others, _ = tiny_problem(thin_boxes(seed=1))  # of the same kind
    assert share(others, found) > share(others, args) + 0.5


def test_a_few_small_objects_are_not_given_up_for_many_large_ones():
    rng = np.random.default_rng(0)
    sides = np.concatenate([rng.uniform(24, 30, (135, 2)), rng.uniform(7, 9, (15, 2))])
    problem, args = tiny_problem(anywhere(sides, rng))
    args = args._replace(min_sizes=[20, 22, 40])
    before = problem.iou(args.to_logs()) >= 0.5
    after = problem.iou(search(problem, args, 0).to_logs()) >= 0.5
    assert not before[135:].any()
    assert after[:135].mean() > 0.95 and after[135:].mean() > 0.25


def test_min_sizes_stay_in_order_and_within_what_a_cell_sees():
    problem, args = tiny_problem(thin_boxes(80, long=30, short=20))
    found = search(problem, args, 0)
    assert found.min_sizes == sorted(found.min_sizes)
    for size, given, stride in zip(found.min_sizes, args.min_sizes, (8, 16, 32)):
        assert min(given, stride) * 0.999 <= size <= max(given, min(8 * stride, 64)) * 1.001
    assert all(m <= M * 1.0001 for m, M in zip(found.min_sizes, found.max_sizes))


def test_what_nothing_depends_on_stays_as_it_was():
    """Small squares exactly on the first level's cells: its square is all that counts."""
    centres = np.array([(x, y) for x in range(4, 64, 8) for y in range(4, 64, 8)])
    boxes = make_boxes(np.concatenate([centres - 4, centres + 4], axis=1))
    problem, args = tiny_problem(boxes)
    found = search(problem, args, 0)
    assert problem.iou(found.to_logs()).min() > 0.9
    min_sizes, max_sizes, ratios = found.rounded()
    assert (min_sizes[1:], max_sizes[1:]) == (args.min_sizes[1:], args.max_sizes[1:])
    assert ratios == args.ratios


def test_priors_that_fit_already_are_kept():
    grid = tiny_grid()
    priors = np.concatenate([level.numpy() for level in grid.priors()])
    problem = Problem(make_boxes(priors), grid)
    args = PriorArgs.of(grid.generator)
    assert search(problem, args, 0) == args
