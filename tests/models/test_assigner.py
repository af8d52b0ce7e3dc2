"""Matching: against the naive greedy loop, and against MMDetection where the rules coincide."""

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import AssignResult, MaxIoUAssigner
from mmengine.structures import InstanceData
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from ssd_plugin.models.assigner import BatchMaxIoUAssigner, match_greedily
from tests.support.helpers import (
    INF,
    NAN,
    as_boxes,
    instances,
    iou,
    model_priors,
    naive_greedy,
    naive_match,
)

HALF = 0.5, 0.5
# Whole numbers make every overlap an exact fraction, so ties are ties for everyone.
GRID = [
    [4 * j + 2 - w, 4 * i + 2 - h, 4 * j + 2 + w, 4 * i + 2 + h]
    for i in range(4)
    for j in range(4)
    for w, h in [(2, 2), (4, 4), (4, 2)]
]
DEGENERATE = [
    [3, 3, 3, 9],  # no width
    [3, 3, 9, 3],  # no height
    [5, 5, 5, 5],  # a point
    [9, 2, 3, 8],  # right of its right edge
    [9, 9, 2, 2],  # turned over twice: width times height is positive
    [NAN, 2, 6, 6],
    [2, 2, 6, NAN],
    [2, 2, INF, 6],
    [-INF, 2, 6, 6],
    [-INF, -INF, INF, INF],
]
corner, side = st.integers(0, 12), st.integers(1, 9)
box = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corner, corner, side, side)
boxes_or_not = st.lists(st.one_of(box, st.sampled_from(DEGENERATE)), max_size=5)
examples = settings(deadline=None, max_examples=60)


@st.composite
def crowds(draw):
    """Boxes that compete: repeats of one another, and neighbours one step away."""
    boxes = draw(st.lists(box, max_size=7))
    for i in range(1, len(boxes)):
        kind = draw(st.sampled_from(['own', 'repeat', 'neighbour']))
        if kind != 'own':
            shift = 1 if kind == 'neighbour' else 0
            boxes[i] = [v + shift for v in boxes[draw(st.integers(0, i - 1))]]
    return boxes


def match(boxes, priors, ignored=(), **options):
    """`gt_inds` of one image as a list."""
    truth = instances(boxes, range(len(boxes))), instances(ignored)
    image = InstanceData(priors=as_boxes(priors)), *truth
    return BatchMaxIoUAssigner(**options).assign(*image).gt_inds.tolist()


def high(*sides):
    return [[0, 0, 10, side] for side in sides]


def at(*lefts):
    """Squares of 10 x 10 in a row."""
    return [[left, 0, left + 10, 10] for left in lefts]


ARGMAX, GAP = dict(bipartite=False), dict(pos_iou_thr=0.75, neg_iou_thr=0.25)
CASES = {  # boxes, priors, options, gt_inds
    'a box gets its best prior whatever the overlap, here 9 / 191':
        ([[47, 7, 57, 17]], at(0, 5, 40, 80), {}, [0, 0, 1, 0]),
    'of two boxes that want one prior, the closer one gets it':
        (at(1, 0), at(0, 5, 40), {}, [2, 1, 0]),
    'with argmax, the later box overrides the earlier one':
        (at(0, 1), at(0, 5, 40), ARGMAX, [2, 0, 0]),
    'of identical boxes the lower one gets the better prior':
        (at(0, 0, 0), at(5, 0, 7), {}, [2, 1, 3]),
    # Box 2 has only the first prior, and box 1, which fits it better (0.83, 0.14), the other.
    'a claimed prior stays with its box though another overlaps it more':
        ([[0, 0, 10, 10], [0, 8, 10, 28]], high(12, 10), {}, [2, 1]),
    'overlaps between the thresholds are ignored':
        (at(0), high(10, 7.5, 7, 3, 2.5, 2), GAP, [1, 1, -1, -1, -1, 0]),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_matching_by_hand(case):
    boxes, priors, options, gt_inds = case
    assert match(boxes, priors, **options) == gt_inds


def test_a_negative_threshold_above_the_positive_one_is_refused():
    with pytest.raises(ValueError, match='neg_iou_thr 0.6 exceeds pos_iou_thr 0.5'):
        BatchMaxIoUAssigner(neg_iou_thr=0.6)


def test_a_pair_of_thresholds_is_refused():
    with pytest.raises(ValueError, match=r'neg_iou_thr is \(0.1, 0.4\), and not a number'):
        BatchMaxIoUAssigner(neg_iou_thr=(0.1, 0.4))


@examples
@given(
    images=st.lists(st.one_of(crowds(), boxes_or_not), min_size=1, max_size=3),
    priors=st.one_of(st.just(GRID), st.lists(box, min_size=1, max_size=6)),
    bipartite=st.booleans(),
    thresholds=st.sampled_from([(0.5, 0.125), (0.5, 0.25), (0.5, 0.5), (0.75, 0.25)]),
    ignored=st.lists(boxes_or_not, min_size=3, max_size=3),
    iof=st.sampled_from([-1, 0.25, 0.5, 0.75]),
    filler=st.sampled_from([[0, 0, 0, 0], [0, 0, 4, 4], [NAN] * 4, [INF] * 4, [-1e9, 0, 1e9, 9]]),
    data=st.data(),
)
@example([[[0, 0, 4, 5], *DEGENERATE, [6, 6, 13, 12]]], GRID, True, HALF, [[]], -1, [0] * 4, None)
@example([[[0, 0, 4, 5], *DEGENERATE, [6, 6, 13, 12]]], GRID, False, HALF, [[]], -1, [0] * 4, None)
@example([[[0, 0, 4, 4]] * 3], GRID, True, HALF, [[]], -1, [0] * 4, None)
@example([[], []], GRID, True, HALF, [[], []], -1, [0] * 4, None)
@example([[], []], GRID, False, HALF, [[[0, 0, 9, 9]], []], 0.5, [0] * 4, None)
def test_a_batch_is_matched_as_its_images_by_the_naive_loop(
    images, priors, bipartite, thresholds, ignored, iof, filler, data
):
    """Ties, degenerate and masked boxes and padding included."""
    size = max(map(len, images)) + (data.draw(st.integers(0, 2)) if data else 0)
    dropped = data.draw(st.sets(st.integers(0, 9))) if data else ()
    mask = [[g < len(own) and g not in dropped for g in range(size)] for own in images]
    boxes = torch.stack([as_boxes(own + [filler] * (size - len(own))) for own in images])
    labels = torch.randint(100, boxes.shape[:2])
    options = *thresholds, bipartite, iof
    ignore_bboxes = pad_sequence([as_boxes(own) for own in ignored[: len(images)]], True)
    result = BatchMaxIoUAssigner(*options).assign_batch(
        as_boxes(priors), boxes, labels, torch.tensor(mask, dtype=torch.bool), ignore_bboxes
    )
    assert result.gt_inds.dtype == torch.int64
    for b, own in enumerate(images):
        gt_inds, overlaps = naive_match(priors, own, mask[b], *options[:3], ignored[b], iof)
        assert result.gt_inds[b].tolist() == gt_inds
        torch.testing.assert_close(result.max_overlaps[b], torch.tensor(overlaps))
        expected = [int(labels[b, g - 1]) if g > 0 else -1 for g in gt_inds]
        assert result.labels[b].tolist() == expected


def greedy_by_loops(table):
    """g + 1 for the prior of box g, from overlaps (G, P)."""
    pairs = [(v, g, p) for g, row in enumerate(table.tolist()) for p, v in enumerate(row)]
    claimed = naive_greedy(pairs)
    return [claimed.get(p, -1) + 1 for p in range(table.size(1))]


def test_a_chain_in_which_each_box_is_displaced_by_the_one_before_takes_every_round():
    """Box k prefers the prior of box k - 1, which takes it: the longest wait that there is."""
    size = 12
    table = torch.zeros(size, size)
    for g in range(size):
        table[g, g] = 0.9 - 0.05 * g
        table[g, g - 1] = table[g, g] + 0.02 if g else 0
    assert match_greedily(table[None])[0].tolist() == greedy_by_loops(table) == list(range(1, 13))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), spread=st.sampled_from([4, 60, 250]))
def test_of_real_priors_every_box_of_a_crowd_gets_its_own_greedily(seed, count, spread):
    priors = torch.cat(model_priors('SSD300 VOC'))
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * spread
    boxes = torch.cat([corner, corner + 1 + 40 * torch.rand(count, 2, generator=generator)], 1)
    overlaps = box_iou(boxes, priors)[None]
    before = overlaps.clone()
    own_gt = match_greedily(overlaps)[0].tolist()
    assert torch.equal(overlaps, before), 'the overlaps are still needed afterwards'
    assert own_gt == greedy_by_loops(overlaps[0])
    assert {*own_gt} == set(range(count + 1))
    matched = match(boxes, priors)
    assert all(found == own for found, own in zip(matched, own_gt) if own)


def assert_same_result(boxes, priors, assigner, pos=0.5, neg=0.5):
    """Ours and MMDetection's assigner give the same for one image; returns the matches."""
    theirs = MaxIoUAssigner(pos, neg, min_pos_iou=0.0, gt_max_assign_all=False)
    pred, truth = InstanceData(priors=as_boxes(priors)), instances(boxes, range(len(boxes)))
    found, expected = (one.assign(pred, truth) for one in (assigner, theirs))
    assert isinstance(found, AssignResult)
    for name in ('gt_inds', 'labels', 'max_overlaps'):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    assert found.num_gts == expected.num_gts
    return expected.gt_inds


@pytest.mark.parametrize('bipartite', [True, False])
@examples
@given(boxes=crowds(), pos=st.sampled_from([0.5, 0.75]), neg=st.sampled_from([0.25, 0.5]))
def test_matching_is_mmdetection_s_max_iou_assigner_where_the_rules_agree(
    bipartite, boxes, pos, neg
):
    """Bipartite matching where no two boxes want one prior, matching by argmax everywhere."""
    wanted = [max(range(len(GRID)), key=lambda p: iou(b, GRID[p])) for b in boxes]
    # MMDetection hands a box that no prior touches the first prior of all; here it gets none.
    assume(all(iou(b, GRID[p]) for b, p in zip(boxes, wanted)))
    assume(not bipartite or len(set(wanted)) == len(boxes))
    assert_same_result(boxes, GRID, BatchMaxIoUAssigner(pos, neg, bipartite), pos, neg)


def test_on_real_priors_all_agree_where_no_two_boxes_want_one_prior():
    boxes = [[11.3, 20.9, 94.1, 77.7], [120.5, 31.1, 288.8, 170.4], [41.9, 152.2, 93.6, 297.3]]
    boxes += [[3.7, 2.1, 297.2, 281.9], [203.4, 100.8, 251.6, 149.3], [60.2, 60.9, 140.7, 131.5]]
    priors = torch.cat(model_priors('SSD300 VOC'))
    overlaps = box_iou(as_boxes(boxes), priors)
    assert len(set(overlaps.argmax(1).tolist())) == len(boxes)
    for bipartite in (True, False):
        gt_inds = assert_same_result(boxes, priors, BatchMaxIoUAssigner(bipartite=bipartite))
        assert gt_inds.count_nonzero() > 10
        assert (SSDMatcher(0.5)(overlaps) + 1).clamp(min=0).tolist() == gt_inds.tolist()


@examples
@given(boxes=boxes_or_not, ignored=boxes_or_not)
def test_one_image_is_matched_as_in_a_batch(boxes, ignored):
    expected, _ = naive_match(GRID, boxes, ignored=ignored, ignore_iof_thr=0.5)
    assert match(boxes, GRID, ignored, ignore_iof_thr=0.5) == expected
