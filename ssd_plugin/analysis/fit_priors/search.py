"""Search for the sizes and ratios of ``SSDPriorGenerator`` that suit given ground-truth boxes.

The score of a setting (``reach.score``) is maximised. The number of priors of each cell stays what
it is, and so does everything else.

1. Starts. The setting as it is, and with all sizes times 0.35, 0.5, 0.7 and 1.4. One by k-means
   with IoU as the measure, a cluster for each level, over the boxes' longer and shorter sides (a
   ratio stands for both orientations): a cluster gives its level's min size, first ratio, and the
   max size of the level before. One with sizes in equal steps of the logarithm from the smallest
   boxes to the largest (without 2 % at both ends) and the boxes' median ratio.
2. Local search from each. One number at a time - a level's min size, max size, a ratio, or the
   first two together - is increased or decreased by a step, as long as that improves the score.
   When no such step helps, steps become smaller, from 30 % to 2 %.
3. Kicks. All numbers of the best setting are changed at random and step 2 is repeated, a few times.
4. Numbers that can be what they were at no loss are restored.

Every candidate is scored with the true places of its priors. Larger boxes stay with deeper levels:
min sizes do not fall from a level to the next, and stay within what a level's cells can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ssd_plugin.analysis.fit_priors.reach import PriorArgs, Problem, score

STEPS = (0.26, 0.13, 0.065, 0.03, 0.02)  # of logarithms: 0.26 is 30 %
MIN_GAIN = 1e-4  # of the score; a change that gains less is not made
SCALES = (1, 0.35, 0.5, 0.7, 1.4)
KICKS, KICK = 5, 0.2  # how many, and the standard deviation, of logarithms
# A cell's priors are as large as what it can see: in the paper's models 0.9 to 7.5 strides.
STRIDES_RANGE = (1, 8)
RATIO_RANGE = (1.1, 10)
MAX_STEP = 9  # of a level's max size over its min size: the second square is up to 3 times as wide

Limits = tuple[np.ndarray, np.ndarray]  # smallest and largest logarithms of a level


def search(problem: Problem, given: PriorArgs, seed: int) -> PriorArgs:
    """The best setting found, which may be the given one; ``seed`` is that of the kicks."""
    start = given.to_logs()
    side = max(problem.input_size)
    limits = [_limits(logs, stride, side) for logs, stride in zip(start, problem.strides)]
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
    return PriorArgs.from_logs(_restore(problem, best, start))


def climb(
    problem: Problem, logs: Sequence[np.ndarray], limits: Sequence[Limits]
) -> tuple[list[np.ndarray], float]:
    """Local search: a setting that no single step improves, and its score."""
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
    """Where local searches begin; the given setting comes first, so that it wins a tie."""
    for scale in SCALES:
        scaled = [size * scale for size in given.min_sizes], [M * scale for M in given.max_sizes]
        yield _allowed(PriorArgs(*scaled, given.ratios).to_logs(), limits)
    for start in (kmeans_start, spread_start):
        yield _allowed(start(problem.sides, given).to_logs(), limits)


def kmeans_start(sides: np.ndarray, given: PriorArgs) -> PriorArgs:
    """A setting from k-means over sides (2, N), with as many priors a cell as the given one."""
    short, long = kmeans(np.sort(sides, axis=0), len(given.min_sizes))  # (L,)
    sizes = np.sqrt(short * long)
    ratios = [_powers(b / a, level) for a, b, level in zip(short, long, given.ratios)]
    return PriorArgs(list(sizes), [*sizes[1:], max(sizes[-1], given.max_sizes[-1])], ratios)


def spread_start(sides: np.ndarray, given: PriorArgs) -> PriorArgs:
    """A setting whose sizes are spread over those of the boxes, with sides (2, N)."""
    low, high = np.quantile(np.sqrt(sides.prod(0)), (0.02, 0.98))
    sizes = list(np.geomspace(low, high, len(given.min_sizes) + 1))
    ratio = float(np.median(sides.max(0) / sides.min(0)))
    return PriorArgs(sizes[:-1], sizes[1:], [_powers(ratio, level) for level in given.ratios])


def _powers(ratio: float, given: Sequence[float]) -> list[float]:
    """As many ratios as a level has: the powers of one, as 2 and 3 nearly are."""
    return list(ratio ** np.arange(1, len(given) + 1))


def kmeans(sides: np.ndarray, k: int, rounds: int = 50) -> np.ndarray:
    """Cluster sides (2, N) by the IoU of boxes with a common centre; (2, k), the smallest first.

    It begins with quantiles of the area, so that nothing depends on chance.
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
        medians = [np.median(m, 1) if m.size else centres[:, i] for i, m in enumerate(members)]
        moved = np.stack(medians, 1)
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres[:, np.argsort(centres.prod(0), kind='stable')]


def _limits(logs: np.ndarray, stride: tuple[float, float], side: int) -> Limits:
    """The range of each number of a level, which always includes what is given."""
    mean = float(np.mean(stride))
    low, high = STRIDES_RANGE
    num_ratios = len(logs) - 2
    least = np.log([low * mean, 1, *[RATIO_RANGE[0]] * num_ratios])
    most = np.log([min(high * mean, side), MAX_STEP, *[RATIO_RANGE[1]] * num_ratios])
    return np.minimum(least, logs), np.maximum(most, logs)


def _in_order(logs: Sequence[np.ndarray], k: int, limits: Limits) -> Limits:
    """The limits of level k, narrowed so that its min size does not pass its neighbours'."""
    least, most = (bound.copy() for bound in limits)
    size = logs[k][0]  # may be past them already, as given
    if k > 0:
        least[0] = max(least[0], min(size, logs[k - 1][0]))
    if k + 1 < len(logs):
        most[0] = min(most[0], max(size, logs[k + 1][0]))
    return least, most


def _allowed(logs: Sequence[np.ndarray], limits: Sequence[Limits]) -> list[np.ndarray]:
    """A setting within the limits that is near to the given one, with min sizes in order."""
    logs = [level.clip(*limit) for level, limit in zip(logs, limits)]
    for size, level in zip(np.maximum.accumulate([level[0] for level in logs]), logs):
        level[0] = size
    return logs


def _moves(num: int, step: float) -> Iterator[np.ndarray]:
    """Changes of a level's logarithms (num,): each number by itself, and one pair."""
    # The pair changes the min size alone: the second square stays as it is.
    for move in (*np.eye(num), np.array([1, -2, *[0] * (num - 2)])):
        yield step * move
        yield -step * move


def _restore(
    problem: Problem, logs: Sequence[np.ndarray], given: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Restore whole levels, then single numbers, where that does not lower the score."""
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
