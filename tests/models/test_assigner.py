"""Matching: against the naive greedy loop, and against MMDetection where the rules coincide."""

import math

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import AssignResult, MaxIoUAssigner
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from ssd_plugin.models.assigner import BatchMaxIoUAssigner, match_greedily
from ssd_plugin.models.boxes import pairwise_iou
from tests.support.helpers import (
    instances,
    iou,
    model_priors,
    naive_match,
)

NAN, INF = math.nan, math.inf

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

box = st.builds(
    lambda x, y, w, h: [x, y, x + w, y + h],
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(1, 9),
    st.integers(1, 9),
)


@st.composite
def crowds(draw, max_size=7):
    """Boxes that fight: repeats of one another, and neighbours one step away."""
    boxes = draw(st.lists(box, max_size=max_size))
    for i in range(1, len(boxes)):
        kind = draw(st.sampled_from(['own', 'repeat', 'neighbour']))
        if kind != 'own':
            shift = 1 if kind == 'neighbour' else 0
            boxes[i] = [v + shift for v in boxes[draw(st.integers(0, i - 1))]]
    return boxes


anything = st.one_of(box, st.sampled_from(DEGENERATE))
examples = settings(deadline=None, max_examples=80)


def tensor(boxes):
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def padded(crowd, filler=(0.0, 0.0, 0.0, 0.0), extra=0):
    """A batch of lists of boxes as (B, G, 4), and the mask of the real ones."""
    size = max([len(boxes) for boxes in crowd], default=0) + extra
    batch = [boxes + [list(filler)] * (size - len(boxes)) for boxes in crowd]
    mask = [[g < len(boxes) for g in range(size)] for boxes in crowd]
    shape = (len(crowd), size)
    return (
        torch.tensor(batch, dtype=torch.float32).reshape(*shape, 4),
        torch.tensor(mask, dtype=torch.bool).reshape(shape),
    )


def match(boxes, priors=GRID, mask=None, labels=None, **options):
    """Match one image through the batch interface: plain lists in, plain lists out."""
    ignored = options.pop('ignored', None)
    mask = [True] * len(boxes) if mask is None else mask
    labels = list(range(len(boxes))) if labels is None else labels
    result = BatchMaxIoUAssigner(**options).assign_batch(
        tensor(priors),
        tensor(boxes)[None],
        torch.tensor(labels, dtype=torch.int64)[None],
        torch.tensor(mask, dtype=torch.bool)[None],
        None if ignored is None else tensor(ignored)[None],
    )
    return result.gt_inds[0].tolist()


# ------------------------------------------------------------------- the bipartite step, by hand

TEN = [[0, 0, 10, 10], [5, 0, 15, 10], [40, 0, 50, 10], [80, 0, 90, 10]]


def test_a_box_gets_its_best_prior_whatever_the_overlap():
    assert match([[47, 7, 57, 17]], TEN) == [0, 0, 1, 0]  # IoU 9 / 191


def test_every_other_prior_is_matched_from_half_overlap_on():
    priors = [[0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 21], [0, 0, 5, 10], [0, 0, 4, 10]]
    assert match([[0, 0, 10, 10]], priors) == [1, 1, 0, 1, 0]


def test_a_box_that_no_prior_touches_gets_none():
    assert match([[200, 200, 210, 210]], TEN) == [0, 0, 0, 0]


def test_of_two_boxes_that_want_one_prior_the_closer_one_gets_it_and_the_other_its_next_best():
    far, near = [1, 0, 11, 10], [0, 0, 10, 10]
    assert match([far, near], TEN) == [2, 1, 0, 0]
    assert match([near, far], TEN) == [1, 2, 0, 0]


def test_of_three_boxes_that_want_one_prior_each_gets_one():
    boxes = [[0, 0, 10, 12], [0, 0, 10, 10], [0, 0, 10, 11]]
    priors = [[0, 0, 10, 10], [0, 0, 10, 30], [0, 0, 10, 60], [50, 0, 60, 10]]
    assert match(boxes, priors) == [2, 1, 3, 0]


def test_identical_boxes_share_out_the_priors_lower_box_to_better_prior():
    same = [0, 0, 10, 10]
    assert match([same, same, same], [[5, 0, 15, 10], [0, 0, 10, 10], [7, 0, 17, 10]]) == [2, 1, 3]


def test_of_equal_priors_the_first_is_taken():
    assert match([[0, 0, 4, 4]], [[2, 0, 6, 4], [0, 2, 4, 6], [2, 0, 6, 4]]) == [1, 0, 0]


def test_a_claimed_prior_stays_with_its_box_though_another_overlaps_it_more():
    # Box 2 has only the first prior, and box 1, which fits it better, has a better one still.
    boxes = [[0, 0, 10, 10], [0, 8, 10, 28]]
    priors = [[0, 0, 10, 12], [0, 0, 10, 10]]
    assert iou(boxes[0], priors[0]) > 0.8 and iou(boxes[1], priors[0]) < 0.2
    assert match(boxes, priors) == [2, 1]


def test_with_more_boxes_than_priors_the_closest_boxes_win():
    boxes = [[0, 0, 10, 30], [0, 0, 10, 10], [0, 0, 10, 20]]
    assert match(boxes, [[0, 0, 10, 10]]) == [2]


def test_with_argmax_a_later_box_overrides_an_earlier_one():
    near, far = [0, 0, 10, 10], [1, 0, 11, 10]
    assert match([near, far], TEN, bipartite=False) == [2, 0, 0, 0]
    assert match([far, near], TEN, bipartite=False) == [2, 0, 0, 0]


def test_overlaps_between_the_thresholds_are_ignored():
    priors = [[0, 0, 10, 10], [0, 0, 8, 10], [0, 0, 7, 10], [0, 0, 3, 10], [0, 0, 2, 10]]
    matched = match([[0, 0, 10, 10]], priors, pos_iou_thr=0.75, neg_iou_thr=0.25)
    assert matched == [1, 1, -1, -1, 0]


def test_priors_that_mostly_cover_an_ignored_box_are_left_out():
    priors = [[0, 0, 10, 10], [40, 0, 50, 10], [45, 0, 55, 10], [46, 0, 56, 10], [80, 0, 90, 10]]
    ignored = [[0, 0, 10, 10], [40, 0, 50, 10]]
    boxes = [[0, 0, 10, 10]]
    assert match(boxes, priors, ignored=ignored, ignore_iof_thr=0.5) == [1, -1, 0, 0, 0]
    assert match(boxes, priors, ignored=ignored, ignore_iof_thr=0.375) == [1, -1, -1, -1, 0]
    assert match(boxes, priors, ignored=ignored) == [1, 0, 0, 0, 0]
    assert match([], priors, ignored=ignored, ignore_iof_thr=0.5) == [-1, -1, 0, 0, 0]


# --------------------------------------------------------------------------- the naive greedy loop


@examples
@given(boxes=crowds(), bipartite=st.booleans())
@example(boxes=[[0, 0, 4, 4]] * 3, bipartite=True)
@example(boxes=[], bipartite=True)
@example(boxes=[], bipartite=False)
def test_matching_is_the_naive_loop(boxes, bipartite):
    result = BatchMaxIoUAssigner(bipartite=bipartite).assign_batch(
        tensor(GRID),
        tensor(boxes)[None],
        torch.arange(len(boxes))[None] + 5,
        torch.ones(1, len(boxes), dtype=torch.bool),
    )
    gt_inds, overlaps = naive_match(GRID, boxes, bipartite=bipartite)
    assert result.gt_inds.dtype == torch.int64
    assert result.gt_inds.tolist() == [gt_inds]
    assert result.labels.tolist() == [[g + 4 if g > 0 else -1 for g in gt_inds]]
    torch.testing.assert_close(result.max_overlaps, torch.tensor([overlaps]))


@examples
@given(boxes=crowds(), priors=st.lists(box, min_size=1, max_size=6))
def test_matching_is_the_naive_loop_when_priors_are_few(boxes, priors):
    assert match(boxes, priors) == naive_match(priors, boxes)[0]


@examples
@given(
    boxes=crowds(max_size=5),
    ignored=st.lists(anything, max_size=3),
    neg=st.sampled_from([0.125, 0.25, 0.5]),
    iof=st.sampled_from([-1, 0.25, 0.5, 0.75]),
)
def test_the_gap_and_the_ignored_boxes_are_the_naive_loop_s(boxes, ignored, neg, iof):
    options = dict(neg_iou_thr=neg, ignore_iof_thr=iof, ignored=ignored)
    assert match(boxes, **options) == naive_match(GRID, boxes, **options)[0]


@examples
@given(boxes=st.lists(anything, max_size=6), data=st.data(), bipartite=st.booleans())
def test_masked_and_degenerate_boxes_take_no_part(boxes, data, bipartite):
    mask = data.draw(st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes)))
    matched = match(boxes, mask=mask, bipartite=bipartite)
    assert matched == naive_match(GRID, boxes, mask=mask, bipartite=bipartite)[0]


@pytest.mark.parametrize('bipartite', [True, False])
@pytest.mark.parametrize('bad', DEGENERATE)
def test_a_degenerate_box_changes_nothing_for_the_others(bad, bipartite):
    good = [[0, 0, 4, 5], [6, 6, 13, 12]]
    alone = match(good, bipartite=bipartite)
    assert match([*good, bad], bipartite=bipartite) == alone
    assert match([bad], bipartite=bipartite) == [0] * len(GRID)
    shifted = match([bad, *good], bipartite=bipartite)
    assert shifted == [g + 1 if g > 0 else g for g in alone]


# --------------------------------------------------------------------------------------- the batch


@examples
@given(
    crowd=st.lists(crowds(max_size=4), min_size=1, max_size=4),
    filler=st.sampled_from([[0, 0, 0, 0], [0, 0, 4, 4], [NAN] * 4, [INF] * 4, [-1e9, 0, 1e9, 9]]),
    extra=st.integers(0, 2),
)
def test_a_batch_is_its_images_and_padding_does_not_matter(crowd, filler, extra):
    boxes, mask = padded(crowd, filler, extra)
    labels = torch.full(mask.shape, -7)
    labels[mask] = torch.arange(int(mask.sum()))
    result = BatchMaxIoUAssigner().assign_batch(tensor(GRID), boxes, labels, mask)
    for b, own in enumerate(crowd):
        gt_inds, overlaps = naive_match(GRID, own)
        assert result.gt_inds[b].tolist() == gt_inds
        torch.testing.assert_close(result.max_overlaps[b], torch.tensor(overlaps))
        expected = [int(labels[b, g - 1]) if g > 0 else -1 for g in gt_inds]
        assert result.labels[b].tolist() == expected


@examples
@given(
    crowd=st.lists(st.lists(box, max_size=3), min_size=1, max_size=3),
    filler=st.sampled_from(DEGENERATE),
)
def test_ignored_boxes_are_each_image_s_own_and_padded_with_boxes_of_no_area(crowd, filler):
    boxes, mask = padded([[]] * len(crowd), extra=1)
    ignored, _ = padded(crowd, filler, extra=1)
    result = BatchMaxIoUAssigner(ignore_iof_thr=0.5).assign_batch(
        tensor(GRID), boxes, torch.zeros(mask.shape, dtype=torch.int64), mask, ignored
    )
    for b, own in enumerate(crowd):
        expected, _ = naive_match(GRID, [], ignored=own, ignore_iof_thr=0.5)
        assert result.gt_inds[b].tolist() == expected


def test_a_batch_without_any_box_is_background():
    result = BatchMaxIoUAssigner().assign_batch(
        tensor(GRID),
        torch.zeros(2, 0, 4),
        torch.zeros(2, 0, dtype=torch.int64),
        torch.zeros(2, 0, dtype=torch.bool),
    )
    assert result.gt_inds.shape == (2, len(GRID)) and not result.gt_inds.any()
    assert not result.max_overlaps.any()
    assert (result.labels == -1).all()


# --------------------------------------------------------------------- many boxes on real priors


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), spread=st.sampled_from([4, 60, 250]))
def test_no_box_of_a_crowd_is_left_without_a_prior(seed, count, spread):
    priors = torch.cat(model_priors('SSD300 VOC'))
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * spread
    side = torch.rand(count, 2, generator=generator) * 40 + 1
    boxes = torch.cat([corner, corner + side], 1)
    result = BatchMaxIoUAssigner().assign_batch(
        priors, boxes[None], torch.zeros(1, count).long(), torch.ones(1, count).bool()
    )
    owners = result.gt_inds[0].bincount(minlength=count + 1)[1:]
    assert (owners >= 1).all()


def test_no_box_and_free_prior_would_rather_have_each_other():
    """Greedy by highest overlap is the stable matching; checked on 30 boxes in one corner."""
    priors = torch.cat(model_priors('SSD300 VOC'))
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(30, 2, generator=generator) * 12
    boxes = torch.cat([corner, corner + 6 + 3 * torch.rand(30, 2, generator=generator)], 1)
    overlaps = box_iou(boxes, priors)
    assert overlaps.max() < 0.5  # so that every match is a claim
    assert len(set(overlaps.argmax(1).tolist())) < 15  # and the conflicts are many
    gt_inds = BatchMaxIoUAssigner().assign_batch(
        priors, boxes[None], torch.zeros(1, 30).long(), torch.ones(1, 30).bool()
    ).gt_inds[0]  # fmt: skip
    held = {int(gt_inds[p]) - 1: int(p) for p in gt_inds.nonzero()}
    assert sorted(held) == list(range(30))
    holder = {p: g for g, p in held.items()}
    for g, p in held.items():
        for q in (overlaps[g] > overlaps[g, p] + 1e-6).nonzero()[:, 0].tolist():
            assert q in holder and overlaps[holder[q], q] >= overlaps[g, q] - 1e-6


# ------------------------------------------------------------------------------ greedy matching

# Few values, so that ties are everywhere; 0 is no overlap at all.
grades = st.sampled_from([0.0, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0])


@st.composite
def overlap_tables(draw):
    batch, num_gts, num_priors = (draw(st.integers(1, n)) for n in (3, 7, 9))
    size = batch * num_gts * num_priors
    values = draw(st.lists(grades, min_size=size, max_size=size))
    return torch.tensor(values).reshape(batch, num_gts, num_priors)


def naive_greedy(table):
    """The sentence of the paper's code: the best pair of all, then the best of the rest."""
    own_gt = [0] * table.shape[1]
    pairs = [(-v, g, p) for g, row in enumerate(table.tolist()) for p, v in enumerate(row) if v > 0]
    boxes_left = set(range(len(table)))
    for _, g, p in sorted(pairs):
        if g in boxes_left and own_gt[p] == 0:
            own_gt[p] = g + 1
            boxes_left.remove(g)
    return own_gt


@settings(deadline=None, max_examples=200)
@given(overlaps=overlap_tables())
def test_the_highest_pair_goes_first_and_ties_go_to_the_lower_box_and_prior(overlaps):
    assert match_greedily(overlaps).tolist() == [naive_greedy(table) for table in overlaps]


def test_a_chain_in_which_each_box_is_displaced_by_the_one_before_takes_every_round():
    """Box k prefers the prior of box k - 1, who takes it: the longest wait that there is."""
    size = 12
    table = torch.zeros(size, size)
    for g in range(size):
        table[g, g] = 0.9 - 0.05 * g
        table[g, g - 1] = table[g, g] + 0.02 if g else 0
    assert match_greedily(table[None])[0].tolist() == naive_greedy(table) == list(range(1, 13))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40))
def test_greedy_matching_of_real_priors_leaves_the_overlaps_as_they_are(seed, count):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, count, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + 40 * torch.rand(2, count, 2, generator=generator)], 2)
    overlaps = pairwise_iou(boxes, torch.cat(model_priors('SSD300 VOC')))
    before = overlaps.clone()
    assert match_greedily(overlaps).tolist() == [naive_greedy(table) for table in before]
    assert torch.equal(overlaps, before), 'the overlaps are still needed afterwards'


# --------------------------------------------------------------------- MMDetection and torchvision


def mmdet_assign(boxes, priors, **options):
    options = dict(pos_iou_thr=0.5, neg_iou_thr=0.5, gt_max_assign_all=False) | options
    return MaxIoUAssigner(min_pos_iou=0.0, **options).assign(
        InstanceData(priors=tensor(priors)), instances(boxes, range(len(boxes)))
    )


def assert_same_result(ours, theirs):
    assert isinstance(ours, AssignResult)
    assert ours.num_gts == theirs.num_gts
    assert ours.gt_inds.tolist() == theirs.gt_inds.tolist()
    assert ours.labels.tolist() == theirs.labels.tolist()
    torch.testing.assert_close(ours.max_overlaps, theirs.max_overlaps)


def assign(boxes, priors, **options):
    return BatchMaxIoUAssigner(**options).assign(
        InstanceData(priors=tensor(priors)), instances(boxes, range(len(boxes)))
    )


@examples
@given(boxes=crowds(), pos=st.sampled_from([0.5, 0.75]), neg=st.sampled_from([0.25, 0.5]))
def test_argmax_matching_is_mmdetection_s_max_iou_assigner(boxes, pos, neg):
    # MMDetection hands a box that no prior touches the first prior of all; here it gets none.
    assume(all(any(iou(b, prior) for prior in GRID) for b in boxes))
    thresholds = dict(pos_iou_thr=pos, neg_iou_thr=neg)
    ours = assign(boxes, GRID, bipartite=False, **thresholds)
    assert_same_result(ours, mmdet_assign(boxes, GRID, **thresholds))


@examples
@given(boxes=crowds())
def test_bipartite_matching_is_mmdetection_s_where_no_two_boxes_want_one_prior(boxes):
    if boxes:
        wanted = [max(range(len(GRID)), key=lambda p: iou(b, GRID[p])) for b in boxes]
        assume(len(set(wanted)) == len(boxes))
        assume(all(iou(b, GRID[p]) for b, p in zip(boxes, wanted)))
    assert_same_result(assign(boxes, GRID), mmdet_assign(boxes, GRID))


@pytest.mark.parametrize(
    'boxes',
    [
        [[11.3, 20.9, 94.1, 77.7], [120.5, 31.1, 288.8, 170.4], [41.9, 152.2, 93.6, 297.3]],
        [[3.7, 2.1, 297.2, 281.9], [203.4, 100.8, 251.6, 149.3]],
        [[60.2, 60.9, 140.7, 131.5], [101.8, 80.3, 190.1, 187.6], [7.7, 230.4, 290.9, 299.1]],
    ],
)
def test_on_real_priors_all_agree_where_no_two_boxes_want_one_prior(boxes):
    priors = torch.cat(model_priors('SSD300 VOC')).tolist()
    overlaps = box_iou(tensor(boxes), tensor(priors))
    assert len(set(overlaps.argmax(1).tolist())) == len(boxes)
    theirs = mmdet_assign(boxes, priors)
    assert theirs.gt_inds.count_nonzero() > 3
    assert_same_result(assign(boxes, priors), theirs)
    assert_same_result(assign(boxes, priors, bipartite=False), theirs)
    assert (SSDMatcher(0.5)(overlaps) + 1).clamp(min=0).tolist() == theirs.gt_inds.tolist()


@examples
@given(boxes=st.lists(anything, max_size=5), ignored=st.lists(anything, max_size=2))
def test_assigning_one_image_is_a_batch_of_one(boxes, ignored):
    assigner = TASK_UTILS.build(dict(type='BatchMaxIoUAssigner', ignore_iof_thr=0.5))
    result = assigner.assign(
        InstanceData(priors=tensor(GRID)),
        instances(boxes, range(len(boxes))),
        InstanceData(bboxes=tensor(ignored)),
    )
    expected, overlaps = naive_match(GRID, boxes, ignored=ignored, ignore_iof_thr=0.5)
    assert result.num_gts == len(boxes)
    assert result.gt_inds.tolist() == expected
    assert result.labels.tolist() == [g - 1 if g > 0 else -1 for g in expected]
    torch.testing.assert_close(result.max_overlaps, torch.tensor(overlaps))


def test_another_head_of_mmdetection_can_use_it():
    head = MODELS.build(
        dict(
            type='RetinaHead',
            num_classes=2,
            in_channels=4,
            feat_channels=4,
            stacked_convs=0,
            anchor_generator=dict(
                type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1,
                ratios=[0.5, 1.0, 2.0], strides=[8],
            ),
            train_cfg=dict(
                assigner=dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4),
                sampler=dict(type='PseudoSampler'),
                allowed_border=-1,
                pos_weight=-1,
            ),
        )
    )  # fmt: skip
    outputs = head([torch.randn(2, 4, 8, 8)])
    metas = [dict(img_shape=(64, 64), pad_shape=(64, 64))] * 2
    losses = head.loss_by_feat(*outputs, [instances([[9, 9, 40, 44]], [1]), instances([])], metas)
    total = sum(losses['loss_cls']) + sum(losses['loss_bbox'])
    assert total.isfinite() and sum(losses['loss_bbox']) > 0
