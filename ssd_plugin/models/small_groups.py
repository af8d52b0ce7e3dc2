"""Non-maximum suppression in many groups of few boxes each, on the CPU."""

from __future__ import annotations

import numpy as np

# Overlaps that are computed at once, at least: enough to make light of the calls, few enough for
# their tables to lie in a cache.
AT_ONCE = 2**16


def nms_in_small_groups(
    bboxes: np.ndarray, scores: np.ndarray, group: np.ndarray, iou_threshold: float
) -> np.ndarray:
    """NMS in which only boxes of the same group compete, for all groups at once.

    The candidates of a batch are some 30 in each class of an image. A call of an NMS for each
    class takes longer than the overlaps themselves, and a call for several compares boxes that
    don't compete. In NumPy, which takes less time than PyTorch to begin an operation.

    Args:
        bboxes: (N, 4) float32 xyxy, N at least 1.
        scores: (N,); of equal ones the first counts as the highest.
        group: (N,) int64, not negative.
        iou_threshold: Of two boxes with a larger IoU the one with the lower score leaves.

    Returns:
        (N',) int64 indices of those that are left, in no order.
    """
    sizes = np.bincount(group)
    # The largest groups first.
    order = (group - sizes[group] * len(sizes)).argsort(kind='stable')
    one, other = overlapping_pairs(bboxes[order], group[order], sizes, iou_threshold)
    scores = scores[order]
    is_worse = scores[one] < scores[other]
    better, worse = np.where(is_worse, other, one), np.where(is_worse, one, other)
    left = np.ones(len(order), bool)
    while len(better):
        # Those that are the worse of no pair stay; all that are worse than one of them leave.
        is_beaten = np.zeros(len(order), bool)
        is_beaten[worse] = True
        left[worse[~is_beaten[better]]] = False
        undecided = left[better] & left[worse]
        better, worse = better[undecided], worse[undecided]
    return order[left]


def overlapping_pairs(
    bboxes: np.ndarray, group: np.ndarray, sizes: np.ndarray, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of boxes of the same group with an IoU above the threshold.

    Each box is compared with the next, then with the one after that, and so on: the farther, the
    fewer have one of their group there.

    Args:
        bboxes: (N, 4) xyxy, by group, the largest group first.
        group: (N,) of each box.
        sizes: (G,) boxes of each group.
        iou_threshold: The IoU, at least 0.

    Returns:
        Indices (n,) of the ones that come first, and (n,) of the others.
    """
    count, most = len(bboxes), int(sizes.max())
    table = np.full((6, count + most), -1, np.float32)  # x1, y1, x2, y2, area, group
    table[:4, :count] = bboxes.T
    table[4] = (table[2] - table[0]) * (table[3] - table[1])
    table[5, :count] = group
    firsts, others = [np.empty(0, int)], [np.empty(0, int)]
    distance = 1
    while distance < most:
        # All that may have one of their group at such a distance.
        count = int(sizes[sizes > distance].sum())
        steps = min(-(-AT_ONCE // count), most - distance)
        overlap = overlap_at(table, count, distance, steps, iou_threshold)
        # Much faster than nonzero() of two dimensions.
        step, first = np.divmod(overlap.ravel().nonzero()[0], count)
        firsts.append(first)
        others.append(first + step + distance)
        distance += steps
    return np.concatenate(firsts), np.concatenate(others)


def overlap_at(
    table: np.ndarray, count: int, distance: int, steps: int, iou_threshold: float
) -> np.ndarray:
    """Whether boxes have an IoU above the threshold with others of their group.

    Args:
        table: (6, N) x1, y1, x2, y2, area and group of each box.
        count: How many boxes to compare with others, n.
        distance: Of the nearest box to compare with.
        steps: How many to compare each with, m.
        iou_threshold: The IoU.

    Returns:
        (m, n) bool; at [i, j] for box j and the one that stands ``distance + i`` after it.
    """
    of_field, of_box = table.strides
    own = table[:, None, :count]
    # A view whose steps, as its columns, go from one box to the next.
    shape, strides = (6, steps, count), (of_field, of_box, of_box)
    later = np.ndarray(shape, table.dtype, table, distance * of_box, strides)
    sides = np.minimum(own[2:4], later[2:4])
    sides -= np.maximum(own[:2], later[:2])
    np.maximum(sides, 0, out=sides)
    overlap = sides[0] * sides[1]
    union = np.subtract(own[4] + later[4], overlap, out=sides[0])
    union *= iou_threshold
    return (overlap > union) & (own[5] == later[5])
