"""Finite outputs have a finite loss and gradient, and any outputs at all have finite detections.

And what is computed with few digits is what the formula says with many.
"""

import math
from functools import cache

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS, TASK_UTILS

from tests.support import helpers as h
from tests.support.helpers import INF, NAN, PRIORS
from tests.support.naive_losses import naive_head_loss, naive_mining_loss
from tests.support.tiny_detector import HEADS as STEP_HEADS
from tests.support.tiny_detector import losses_and_gradients

LARGEST = 65504.0  # of float16
FAR = 1e30  # sums of such numbers over all priors are finite in float32
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 10**6)
scales = st.sampled_from([0.0, 1e-30, 1.0, 100.0, 1e4, LARGEST])


def examples(count):
    # To shrink an example of hundreds of random numbers takes minutes and tells little.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    return settings(deadline=None, max_examples=count, phases=phases)


def numbers(*shape, seed=0, scale=1.0, special=(), share=0.05):
    """Random numbers up to `scale` either way, a share of them replaced by special ones."""
    generator = torch.Generator().manual_seed(seed)
    values = (2 * torch.rand(*shape, generator=generator) - 1) * scale
    if special:
        where = torch.rand(*shape, generator=generator) < share
        chosen = torch.randint(len(special), shape, generator=generator)
        values = torch.where(where, torch.tensor(special)[chosen], values)
    return values


def maps(flat, dtype=torch.float32):
    """What a network answers: levels in its precision, with a gradient."""
    return [level.to(dtype).detach().requires_grad_() for level in h.to_levels(flat)]


COORDINATES = (NAN, INF, -INF, 0.0, 1e-45, 1e-38, 1e-7, 3e38, -3e38, 1e30, 1e19, -1e10, 64.0, 300.0)


def any_boxes(count, seed, dtype=torch.float32):
    """Boxes (count, 4), of which two thirds have their coordinates in order.

    Some coordinates are special, some are any float32 that there is.
    """
    boxes = numbers(count, 4, seed=seed, special=COORDINATES, share=0.2) * 60
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31, (count, 4), generator=generator, dtype=torch.int32)
    boxes = torch.where(
        torch.rand(count, 4, generator=generator) < 0.1, bits.view(boxes.dtype), boxes
    )
    in_order = boxes.sort(dim=1).values[:, [0, 1, 3, 2]]
    return torch.where((torch.arange(count) % 3 > 0)[:, None], in_order, boxes).to(dtype)


def assign(*args, **options):
    return TASK_UTILS.build(dict(type='BatchMaxIoUAssigner', **options)).assign_batch(*args)


@examples(40)
@given(
    seed=seeds,
    count=st.one_of(st.integers(0, 12), st.sampled_from([100, 367, 369])),
    dtype=dtypes,
    bipartite=st.booleans(),
    ignore_iof_thr=st.sampled_from([-1, 0.5]),
)
def test_only_boxes_with_an_area_are_matched(seed, count, dtype, bipartite, ignore_iof_thr):
    boxes = any_boxes(2 * count, seed, dtype).view(2, -1, 4)
    labels, mask = torch.arange(count).repeat(2, 1), torch.ones(2, count, dtype=torch.bool)
    options = dict(bipartite=bipartite, ignore_iof_thr=ignore_iof_thr)
    result = assign(torch.tensor(PRIORS, dtype=dtype), boxes, labels, mask, boxes, **options)
    assert result.max_overlaps.min() >= 0
    assert result.max_overlaps.max() <= 1.001
    assert result.gt_inds.max() <= count
    assert torch.equal(result.labels, torch.where(result.gt_inds > 0, result.gt_inds - 1, -1))
    for own, gt_inds in zip(boxes, result.gt_inds):
        x1, y1, x2, y2 = own[gt_inds[gt_inds > 0] - 1].unbind(1)
        assert (x1 < x2).all() and (y1 < y2).all()
        assert torch.stack([x1, y1, x2, y2]).isfinite().all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
@examples(15)
@given(seed=seeds, count=st.integers(1, 8), scale=st.sampled_from([0.1, 1, 20]))
def test_boxes_of_any_precision_match_as_the_same_numbers_in_float32(dtype, seed, count, scale):
    """The area of priors 1000 pixels wide, a million, is infinite in float16."""
    priors = (torch.tensor(PRIORS) * scale).to(dtype)
    corner = numbers(1, count, 2, seed=seed).abs() * 40
    boxes = torch.cat([corner, corner + 8 + numbers(1, count, 2, seed=seed + 1).abs() * 24], -1)
    boxes = (boxes * scale).to(dtype)
    rest = torch.zeros(1, count, dtype=torch.long), torch.ones(1, count, dtype=torch.bool)
    expected, found = assign(priors.float(), boxes.float(), *rest), assign(priors, boxes, *rest)
    assert expected.gt_inds.max() > 0
    assert torch.equal(found.gt_inds, expected.gt_inds)
    assert torch.equal(found.labels, expected.labels)


PAPER = 'as in the paper'
DELTA_HEADS = {name: options for name, options in STEP_HEADS.items() if 'pixels' not in name} | {
    'nothing mined': dict(loss_cls=dict(type='CrossEntropyLoss')),
    'quality focal': dict(loss_cls=h.mined(type='QualityFocalLoss', beta=2.0)),
    'varifocal': dict(loss_cls=h.mined(type='VarifocalLoss')),
    'L1': dict(loss_bbox=dict(type='L1Loss')),
    'balanced L1': dict(loss_bbox=dict(type='BalancedL1Loss')),
}
IOU_LOSSES = ('IoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss', 'EIoULoss', 'SIoULoss')
BOX_HEADS = {name: dict(reg_decoded_bbox=True, loss_bbox=dict(type=name)) for name in IOU_LOSSES}
HEADS = DELTA_HEADS | STEP_HEADS | BOX_HEADS


@cache
def head_of(name):
    return h.tiny_head(**HEADS[name])


def outputs(name, batch, dtype, seed, scale, delta_scale, special=(), share=0.05):
    """Maps of scores and of deltas."""
    width, random = head_of(name).cls_out_channels, dict(special=special, share=share)
    scores = numbers(batch, 368, width, seed=seed, scale=scale, **random)
    deltas = numbers(batch, 368, 4, seed=seed + 1, scale=delta_scale, **random)
    return maps(scores, dtype), maps(deltas, dtype)


def assert_finite(name, scores, deltas, boxes):
    """The loss, which is not 0 if there is a sound box, and the gradient."""
    truth = [h.instances(own, [g % 3 for g in range(len(own))]) for own in boxes]
    inputs = scores, deltas, truth, h.image_metas(len(boxes))
    found = losses_and_gradients(head_of(name).loss_by_feat, inputs)
    assert all(value.isfinite().all() for value in found)
    return found[:2]


@pytest.mark.parametrize('name', HEADS)
@examples(8)
@given(
    seed=seeds,
    counts=st.lists(st.sampled_from([0, 0, 1, 2, 9]), min_size=1, max_size=3),
    dtype=dtypes,
    score_scale=scales,
    delta_scale=scales,
)
@example(seed=0, counts=[3, 0], dtype=torch.float32, score_scale=1e4, delta_scale=1e4)
@example(seed=0, counts=[9], dtype=torch.float16, score_scale=LARGEST, delta_scale=LARGEST)
@example(seed=0, counts=[9], dtype=torch.bfloat16, score_scale=0.0, delta_scale=0.0)
def test_finite_outputs_have_a_finite_loss_and_gradient(
    name, seed, counts, dtype, score_scale, delta_scale
):
    """Whatever the ground truth is."""
    special = (score_scale, -score_scale, delta_scale)
    found = outputs(name, len(counts), dtype, seed, score_scale, delta_scale, special)
    assert_finite(name, *found, [any_boxes(n, seed + 1000 * i) for i, n in enumerate(counts)])


# Balanced L1 takes the logarithm of a difference times 11, which is infinite that far out.
FAR_HEADS = [(name, FAR, [5, 0]) for name in DELTA_HEADS if 'balanced' not in name]


@pytest.mark.parametrize(('name', 'scale', 'counts'), [*FAR_HEADS, (PAPER, 1, [500, 0])])
def test_losses_are_finite_far_beyond_any_network_and_of_many_boxes(name, scale, counts):
    found = outputs(name, 2, torch.float32, 0, scale, scale)
    losses = assert_finite(name, *found, [any_boxes(n, 7 + n) for n in counts])
    assert all(loss > 0 for loss in losses)


@pytest.mark.parametrize('dtype', DTYPES)
@examples(6)
@given(
    seed=st.integers(0, 30),
    counts=st.lists(st.sampled_from([0, 1, 4]), min_size=1, max_size=2),
    scale=st.sampled_from([1.0, 30.0, 1e4]),
)
def test_the_loss_is_the_formula_s_in_float64(dtype, seed, counts, scale):
    """For the same outputs; the gradient has the digits of the outputs.

    Large scores with few digits are often alike, and which of the negatives with the same loss are
    mined is a matter of choice. So priors may differ in their gradients if their losses don't.
    """
    scores, deltas = outputs(PAPER, len(counts), dtype, seed, scale, min(scale, 100))
    boxes = [h.tiny_boxes(count, seed) for count in counts]
    labels = [[g % 3 for g in range(count)] for count in counts]
    inputs = scores, deltas, list(map(h.instances, boxes, labels)), h.image_metas(len(counts))
    found = losses_and_gradients(head_of(PAPER).loss_by_feat, inputs)
    found, gradients = found[:2], found[2:]
    exact = [h.to_flat([m.detach().double() for m in levels], 4) for levels in (scores, deltas)]
    exact = [flat.requires_grad_() for flat in exact]
    expected = list(naive_head_loss(h.Batch(*exact, boxes, labels)).values())
    for value, formula in zip(found, expected):
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(formula.item(), rel=1e-5, abs=1e-6)
    expected = torch.autograd.grad(sum(expected), exact)
    assert all(gradient.dtype == dtype for gradient in gradients)
    gradients = [level.double() for level in gradients]
    of_scores, of_deltas = h.to_flat(gradients[:3], 4), h.to_flat(gradients[3:], 4)
    close = dict(rtol=1e-5 + torch.finfo(dtype).eps, atol=1e-6)
    torch.testing.assert_close(of_deltas, expected[1], **close)
    differ = ~torch.isclose(of_scores, expected[0], **close).all(2)  # (B, P)
    as_negatives = -exact[0].detach().log_softmax(2)[..., -1]
    for losses in (one[where] for one, where in zip(as_negatives, differ)):
        assert len(losses) % 2 == 0, 'one is mined in place of another'
        torch.testing.assert_close(losses, losses[:1].expand_as(losses), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_mining_sums_scores_of_few_digits_with_many(dtype, reduction):
    """As any head of MMDetection's calls it: 1200 losses of 100 each are infinite in float16."""
    scores = numbers(4, 400, 4, scale=100).to(dtype).requires_grad_()
    labels = torch.arange(400).repeat(4, 1).where(torch.arange(400) < 3, torch.tensor(3))
    labels[:, 3:80] = 1
    loss = MODELS.build(dict(type='HardNegativeMiningLoss'))
    found = loss(scores, labels, reduction_override=reduction).sum()
    total, num_pos = naive_mining_loss(scores.detach().double(), labels, 3)
    expected = total / num_pos if reduction == 'mean' else total
    assert expected > (0 if reduction == 'mean' else LARGEST)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, scores)
    assert gradient.isfinite().all()


SPECIAL = (NAN, INF, -INF, 1e4, -1e4, 3e38, -3e38)


@pytest.mark.parametrize('name', [PAPER, 'sigmoid'])
@examples(40)
@given(
    seed=seeds,
    batch=st.integers(1, 3),
    dtype=dtypes,
    score_scale=scales,
    delta_scale=scales,
    special=st.lists(st.sampled_from(SPECIAL), max_size=3).map(tuple),
    share=st.sampled_from([0.001, 0.3, 1.0]),
)
def test_detections_are_finite_in_the_image_and_sorted(
    name, seed, batch, dtype, score_scale, delta_scale, special, share
):
    scores, deltas = outputs(name, batch, dtype, seed, score_scale, delta_scale, special, share)
    with torch.no_grad():
        results = head_of(name).predict_by_feat(scores, deltas, h.image_metas(batch))
    assert len(results) == batch
    for found in results:
        boxes, scores, labels = found.bboxes, found.scores, found.labels
        assert len(boxes) == len(scores) == len(labels) <= 200
        assert boxes.isfinite().all() and scores.isfinite().all()
        assert (boxes >= 0).all() and (boxes <= 64).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
        assert (scores > 0.01).all() and (scores <= 1).all()
        assert (scores[:-1] >= scores[1:]).all()
        assert ((labels >= 0) & (labels < 3)).all()


def predict(scores, deltas, head=None, **options):
    head, maps = head or head_of(PAPER), map(h.to_levels, (scores, deltas))
    (found,) = head.predict_by_feat(*maps, h.image_metas(1), **options)
    return list(zip(found.scores.tolist(), found.labels.tolist(), found.bboxes.tolist()))


@pytest.mark.parametrize(('part', 'value'), [('scores', NAN), ('scores', INF), ('deltas', NAN)])
@examples(10)
@given(seed=seeds, share=st.sampled_from([0.003, 0.2, 0.9]), with_nms=st.booleans())
def test_a_prior_with_non_finite_outputs_finds_nothing_and_hides_nothing(
    part, value, seed, share, with_nms
):
    """The detections are those of the same outputs with such priors as sure background."""
    scores = numbers(1, 368, 4, seed=seed, scale=3)
    deltas = numbers(1, 368, 4, seed=seed + 1)
    lost = torch.rand(1, 368, generator=torch.Generator().manual_seed(seed)) < share
    without = scores.clone()
    without[lost] = torch.tensor([0.0, 0, 0, 100])  # background
    damaged = dict(scores=scores.clone(), deltas=deltas.clone())
    damaged[part][..., seed % 4][lost] = value
    expected = predict(without, deltas, with_nms=with_nms)
    assert predict(**damaged, with_nms=with_nms) == expected


@pytest.mark.parametrize(
    ('name', 'background', 'own', 'probability'),
    [
        (PAPER, [-INF, -INF, -INF, 0.0], [-INF, 2.0, -INF, 1.0], 1 / (1 + math.exp(-1))),
        ('sigmoid', [-100.0] * 3, [-100.0, INF, -100.0], 1),
    ],
)
def test_infinite_scores_are_probabilities_of_0_and_1(name, background, own, probability):
    scores = torch.tensor(background).repeat(1, 368, 1)
    scores[0, 100] = torch.tensor(own)
    ((score, label, _),) = predict(scores, torch.zeros(1, 368, 4), head_of(name))
    assert label == 1
    assert score == pytest.approx(probability)


L, T, R, B = PRIORS[5]
W, H = 30.75 * (R - L), 30.75 * (B - T)  # Sides 62.5 times as long reach that far beyond.


@pytest.mark.parametrize(
    ('deltas', 'clip_border', 'boxes'),
    [
        ((INF, -INF, INF, INF), True, [[64, 0, 64, 0]]),  # to the image's corner
        ((INF, 0, 0, 0), False, []),
        # At most 62.5 times the prior's sides.
        ((0, 0, 1e30, INF), False, [[L - W, T - H, R + W, B + H]]),
        ((1e4, 0, 0, 0), False, [[L + 1e3 * (R - L), T, R + 1e3 * (R - L), B]]),
    ],
)
def test_infinite_and_huge_deltas_decode_to_finite_boxes_or_to_none(deltas, clip_border, boxes):
    coder = dict(
        type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2), clip_border=clip_border
    )
    scores, flat = torch.zeros(1, 368, 4), torch.zeros(1, 368, 4)
    scores[..., 3] = 100.0
    scores[0, 5, 0] = 200.0
    flat[0, 5] = torch.tensor(deltas)
    found = predict(scores, flat, h.tiny_head(bbox_coder=coder))
    assert len(found) == len(boxes)
    for (_, _, box), expected in zip(found, boxes):
        assert box == pytest.approx(expected, rel=1e-5, abs=1e-3)
