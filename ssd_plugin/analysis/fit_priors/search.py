"""Search for the sizes and ratios of ``SSDPriorGenerator`` that suit given objects.

How good a setting is, is a sum over figures from 0 to 1: ten times the share of objects whose best
IoU with any prior is at least 0.5, the share whose is at least 0.7, and the mean of the best IoU.
The first weighs most since an object below 0.5 is learnt from one prior, and a poor one. The
number of priors of each cell stays what it is, and so does everything else.

1. Starts. The setting as it is, and with all sizes times 0.35, 0.5, 0.7 and 1.4. One by k-means
   with IoU as the measure, a cluster a level, over the objects' longer and shorter sides (a ratio
   stands for both orientations): a cluster gives its level's min size, first ratio, and the max
   size of the level before. One with sizes in equal steps of the logarithm from the smallest
   objects to the largest (2 % aside at both ends) and the objects' median ratio.
2. Local search from each. One number at a time - a level's min size, max size, a ratio, or the
   first two together - is made greater or smaller by a step, and kept so while that is better.
   When no such step helps, steps are made smaller; from 30 % to 2 %.
3. Kicks. All numbers of the best setting are changed at random, and 2 is done again, a few times.
4. Numbers that can be what they were at no loss are put back.

Every candidate is judged by the true places of its priors. Larger objects stay with deeper
levels: min sizes do not fall from a level to the next, and keep to what a level's cells can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ssd_plugin.analysis.fit_priors.arguments import PriorArgs
from ssd_plugin.analysis.fit_priors.objects import Objects
from ssd_plugin.analysis.fit_priors.reach import Grid, best_iou, distance_to_grid, shapes_of

WEIGHT = 10  # of the share at IoU 0.5
STEPS = (0.26, 0.13, 0.065, 0.03, 0.02)  # of logarithms: 0.26 is 30 %
MIN_GAIN = 1e-4  # a change that gains less is not made
SCALES = (1, 0.35, 0.5, 0.7, 1.4)
KICKS, KICK = 5, 0.2  # how often, and the standard deviation, of logarithms
# A cell's priors are as large as what it can see: in the paper's models 0.9 to 7.5 strides.
STRIDES_RANGE = (1, 8)
RATIO_RANGE = (1.1, 10)
MAX_STEP = 9  # of a level's max size over its min size: the second square is up to 3 times as wide

Limits = tuple[np.ndarray, np.ndarray]  # least and greatest logarithms of a level


class Problem:
    """What a setting of the priors is judged by.

    Args:
        objects: The objects.
        grids: Where the priors of each level lie.
        largest: (w, h) that no prior exceeds: the input with ``clip_sides``, else infinite.
    """

    def __init__(
        self, objects: Objects, grids: Sequence[Grid], largest: tuple[float, float]
    ) -> None:
        self.sides = objects.sides
        self.grids = grids
        self.largest = np.array(largest, dtype=float)[:, None]
        self.distances = [distance_to_grid(objects.centres, grid) for grid in grids]

    def level_iou(self, level: int, logs: np.ndarray) -> np.ndarray:
        """Best IoU of each object with the priors of one level, (N,)."""
        m, step, *ratios = np.exp(logs)
        shapes = np.minimum(shapes_of(m, m * step, ratios), self.largest)
        return best_iou(self.sides, self.distances[level], shapes)

    def iou(self, logs: Sequence[np.ndarray]) -> np.ndarray:
        """Best IoU of each object with any prior, (N,)."""
        return np.max([self.level_iou(k, level) for k, level in enumerate(logs)], 0)


def score(iou: np.ndarray) -> float:
    """What is made as great as possible: a number from 0 to 12, of best IoUs (N,)."""
    counts = WEIGHT * np.count_nonzero(iou >= 0.5) + np.count_nonzero(iou >= 0.7)
    return (counts + float(iou.sum())) / len(iou)


def search(problem: Problem, given: PriorArgs, input_size: tuple[int, int], seed: int) -> PriorArgs:
    """The best setting found, which may be the given one.

    Args:
        problem: What settings are judged by.
        given: The setting as it is.
        input_size: (w, h) of the network input, in pixels.
        seed: Of the kicks.
    """
    start = given.to_logs()
    limits = [_limits(logs, grid, max(input_size)) for logs, grid in zip(start, problem.grids)]
    climbed = (climb(problem, logs, limits) for logs in _starts(problem, given, limits))
    best, best_score = max(climbed, key=lambda found: found[1])
    rng = np.random.default_rng(seed)
    for _ in range(KICKS):
        kicked = [level + rng.normal(0, KICK, len(level)) for level in best]
        found, found_score = climb(problem, _allowed(kicked, limits), limits)
        if found_score > best_score + MIN_GAIN:
            best, best_score = found, found_score
    if best_score <= score(problem.iou(start)) + MIN_GAIN:
        return given
    return PriorArgs.from_logs(_put_back(problem, best, start))


def climb(
    problem: Problem, logs: Sequence[np.ndarray], limits: Sequence[Limits]
) -> tuple[list[np.ndarray], float]:
    """Local search: the setting that no single step betters, and its score."""
    logs = list(logs)
    ious = np.stack([problem.level_iou(k, level) for k, level in enumerate(logs)])  # (L, N)
    best = score(ious.max(0))
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for k in range(len(logs)):
                others = np.delete(ious, k, 0).max(0, initial=0)
                for move in _moves(len(logs[k]), step):
                    while True:  # in one direction as long as it helps
                        candidate = (logs[k] + move).clip(*_in_order(logs, k, limits[k]))
                        iou = problem.level_iou(k, candidate)
                        found = score(np.maximum(others, iou))
                        if found <= best + MIN_GAIN:
                            break
                        logs[k], ious[k], best, improved = candidate, iou, found, True
    return logs, best


def _starts(
    problem: Problem, given: PriorArgs, limits: Sequence[Limits]
) -> Iterator[list[np.ndarray]]:
    """Where the local search begins; the given setting comes first, so that it wins a tie."""
    for scale in SCALES:
        scaled = [size * scale for size in given.min_sizes], [M * scale for M in given.max_sizes]
        yield _allowed(PriorArgs(*scaled, given.ratios).to_logs(), limits)
    for start in (kmeans_start, spread_start):
        yield _allowed(start(problem.sides, given).to_logs(), limits)


def kmeans_start(sides: np.ndarray, given: PriorArgs) -> PriorArgs:
    """A setting from k-means over sides (2, N), of as many priors a cell as the given one has."""
    short, long = kmeans(np.sort(sides, axis=0), len(given.min_sizes))  # (L,)
    sizes = np.sqrt(short * long)
    ratios = [_powers(b / a, len(level)) for a, b, level in zip(short, long, given.ratios)]
    return PriorArgs(list(sizes), [*sizes[1:], max(sizes[-1], given.max_sizes[-1])], ratios)


def spread_start(sides: np.ndarray, given: PriorArgs) -> PriorArgs:
    """A setting whose sizes are spread over those of the objects, with sides (2, N)."""
    ends = np.quantile(np.sqrt(sides.prod(0)), (0.02, 0.98))
    sizes = list(np.geomspace(*ends, len(given.min_sizes) + 1))
    ratio = float(np.median(sides.max(0) / sides.min(0)))
    return PriorArgs(sizes[:-1], sizes[1:], [_powers(ratio, len(r)) for r in given.ratios])


def _powers(ratio: float, number: int) -> list[float]:
    """So many ratios: the powers of one, as 3 nearly is of 2."""
    return list(ratio ** np.arange(1, number + 1))


def kmeans(sides: np.ndarray, k: int, rounds: int = 50) -> np.ndarray:
    """Cluster sides (2, N) by the IoU of boxes about one centre; (2, k), the smallest first.

    It begins with quantiles of the area, so that it needs no chance.
    """
    area = sides.prod(0)
    order = np.argsort(area, kind='stable')
    places = np.linspace(0, len(area) - 1, 2 * k + 1)[1::2].astype(int)
    centres = sides[:, order[places]]
    for _ in range(rounds):
        inter = np.minimum(sides[:, None], centres[:, :, None]).prod(0)  # (k, N)
        nearest = (inter / (area + centres.prod(0)[:, None] - inter)).argmax(0)
        members = [sides[:, nearest == i] for i in range(k)]
        # A cluster that has lost all its members stays where it is.
        moved = [np.median(m, 1) if m.size else centres[:, i] for i, m in enumerate(members)]
        moved = np.stack(moved, 1)
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres[:, np.argsort(centres.prod(0), kind='stable')]


def _limits(logs: np.ndarray, grid: Grid, side: int) -> Limits:
    """Between which a level's numbers may change; as they are, they are allowed."""
    stride = float(np.mean(grid.stride))
    low, high = STRIDES_RANGE
    num_ratios = len(logs) - 2
    least = np.log([low * stride, 1, *[RATIO_RANGE[0]] * num_ratios])
    most = np.log([min(high * stride, side), MAX_STEP, *[RATIO_RANGE[1]] * num_ratios])
    return np.minimum(least, logs), np.maximum(most, logs)


def _in_order(logs: Sequence[np.ndarray], k: int, limits: Limits) -> Limits:
    """The limits of level k, whose min size is not to pass its neighbours'."""
    least, most = (bound.copy() for bound in limits)
    size = logs[k][0]  # may be past them already, as given
    if k > 0:
        least[0] = max(least[0], min(size, logs[k - 1][0]))
    if k + 1 < len(logs):
        most[0] = min(most[0], max(size, logs[k + 1][0]))
    return least, most


def _allowed(logs: Sequence[np.ndarray], limits: Sequence[Limits]) -> list[np.ndarray]:
    """The nearest setting within the limits, or nearly, with min sizes in order."""
    logs = [level.clip(*limit) for level, limit in zip(logs, limits)]
    for size, level in zip(np.maximum.accumulate([level[0] for level in logs]), logs):
        level[0] = size
    return logs


def _moves(num: int, step: float) -> Iterator[np.ndarray]:
    """Changes of a level's logarithms (num,): each number by itself, and one pair."""
    for i in range(num):
        for sign in (1, -1):
            move = np.zeros(num)
            move[i] = sign * step
            yield move
    for sign in (1, -1):  # the min size alone: the second square stays as it is
        yield sign * step * np.array([1, -2, *[0] * (num - 2)])


def _put_back(
    problem: Problem, logs: Sequence[np.ndarray], given: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Put back whole levels, then single numbers, that a lower score does not come of."""
    logs = [level.copy() for level in logs]
    bar = score(problem.iou(logs)) - MIN_GAIN
    for part in ('levels', 'numbers'):
        for k, old in enumerate(given):
            for place in [slice(None)] if part == 'levels' else range(len(old)):
                trial = [level.copy() for level in logs]
                trial[k][place] = old[place]
                if score(problem.iou(trial)) >= bar:
                    logs = trial
    return logs
