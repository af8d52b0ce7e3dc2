"""NMS of many small groups at once: what NMS of each group by itself leaves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_plugin.models import small_groups
from ssd_plugin.models.small_groups import nms_in_small_groups, overlapping_pairs
from tests.support.helpers import naive_nms

examples = settings(deadline=None, max_examples=100)


def random_boxes(rng, count):
    """Boxes in whole pixels, so that overlaps are exact, and some are alike or just meet."""
    corner = rng.integers(-10, 40, (count, 2))
    size = rng.integers(1, 30, (count, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def naive_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    area = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    return overlap / (sum(area) - overlap)


@pytest.mark.parametrize('at_once', [1, 40, 2**16])
@examples
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 80),
    groups=st.integers(1, 12),
    levels=st.sampled_from([3, 10**6]),
    iou_threshold=st.sampled_from([0.25, 0.45, 0.8]),
)
def test_it_leaves_what_nms_of_each_group_leaves(
    at_once, seed, count, groups, levels, iou_threshold
):
    rng = np.random.default_rng(seed)
    boxes, group = random_boxes(rng, count), rng.integers(0, groups, count)
    scores = (rng.integers(1, levels, count) / levels).astype(np.float32)  # many alike, or none
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_groups, 'AT_ONCE', at_once)
        left = nms_in_small_groups(boxes, scores, group, iou_threshold)
    expected = []
    for number in range(groups):
        mine = np.flatnonzero(group == number)
        kept = naive_nms(boxes[mine].tolist(), scores[mine].tolist(), iou_threshold)
        expected += mine[kept].tolist()
    assert sorted(left.tolist()) == sorted(expected)


@examples
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), groups=st.integers(1, 6))
def test_pairs_are_those_that_two_loops_find(seed, count, groups):
    rng = np.random.default_rng(seed)
    boxes, group = random_boxes(rng, count), rng.integers(0, groups, count)
    sizes = np.bincount(group)
    order = sorted(range(count), key=lambda i: (-sizes[group[i]], group[i]))
    boxes, group = boxes[order], group[order]
    found = zip(*overlapping_pairs(boxes, group, sizes, 0.3), strict=True)
    expected = [
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if group[i] == group[j] and naive_iou(boxes[i].tolist(), boxes[j].tolist()) > 0.3
    ]
    assert sorted(found) == expected


def test_a_box_that_has_left_takes_no_other_with_it():
    """Each of five overlaps the next: the first, the third and the fifth stay."""
    boxes = np.array([[x, 0, x + 10, 10] for x in range(0, 20, 4)], np.float32)
    scores = np.linspace(0.9, 0.5, 5, dtype=np.float32)
    left = nms_in_small_groups(boxes, scores, np.zeros(5, np.int64), 0.4)
    assert sorted(left.tolist()) == [0, 2, 4]
