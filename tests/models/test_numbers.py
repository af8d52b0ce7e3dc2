"""Whatever finite numbers a network answers, the loss and its gradient are finite; whatever numbers
at all, the detections are. And what is computed in few digits is what the formula says in many.
"""

import math
from functools import cache

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS, TASK_UTILS

from tests.support.helpers import (
    TINY,
    clear_cut_boxes,
    image_metas,
    instances,
    naive_head_loss,
    naive_mining_loss,
    naive_predict,
    naive_priors,
    tiny_head,
    to_flat,
    to_levels,
)

PRIORS = sum(naive_priors(TINY), [])  # 368 boxes
NAN, INF = math.nan, math.inf
LARGEST = 65504.0  # of float16
FAR = 1e30  # of numbers whose sums over all priors are numbers in float32

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
    return [level.to(dtype).detach().requires_grad_() for level in to_levels(flat)]


# ------------------------------------------------------------------------------------ matching

COORDINATES = (NAN, INF, -INF, 0.0, 1e-45, 1e-38, 1e-7, 3e38, -3e38, 1e30, 1e19, -1e10, 64.0, 300.0)


def any_boxes(count, seed, dtype=torch.float32):
    """Boxes (count, 4), sound ones and all sorts of others."""
    boxes = numbers(count, 4, seed=seed, special=COORDINATES, share=0.2) * 60
    sorted_ones = boxes.sort(dim=1).values[:, [0, 1, 3, 2]]  # many of them have an area
    return torch.where((torch.arange(count) % 3 > 0)[:, None], sorted_ones, boxes).to(dtype)


def assigner(**options):
    return TASK_UTILS.build(dict(type='BatchMaxIoUAssigner', **options))


@examples(40)
@given(
    seed=seeds,
    count=st.one_of(st.integers(0, 12), st.sampled_from([100, 367, 369])),
    dtype=dtypes,
    bipartite=st.booleans(),
    ignore_iof_thr=st.sampled_from([-1, 0.5]),
)
def test_only_boxes_with_an_area_are_matched(seed, count, dtype, bipartite, ignore_iof_thr):
    boxes, priors = (
        any_boxes(2 * count, seed, dtype).view(2, -1, 4),
        torch.tensor(PRIORS, dtype=dtype),
    )
    boxes = boxes[:, :count]
    labels = torch.arange(count).repeat(2, 1)
    assign = assigner(bipartite=bipartite, ignore_iof_thr=ignore_iof_thr).assign_batch
    result = assign(priors, boxes, labels, torch.ones(2, count, dtype=torch.bool), boxes)
    assert result.max_overlaps.min() >= 0
    assert result.max_overlaps.max() <= 1.001
    for image in range(2):
        matched = set(result.gt_inds[image][result.gt_inds[image] > 0].tolist())
        assert matched <= set(range(1, count + 1))
        for number in matched:
            x1, y1, x2, y2 = boxes[image, number - 1].tolist()
            assert x1 < x2 and y1 < y2 and all(map(math.isfinite, (x1, y1, x2, y2)))
        expected = torch.where(result.gt_inds[image] > 0, result.gt_inds[image] - 1, -1)
        assert torch.equal(result.labels[image], expected)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
@examples(15)
@given(seed=seeds, count=st.integers(1, 8), scale=st.sampled_from([0.1, 1, 20]))
def test_boxes_of_any_precision_match_as_the_same_numbers_in_float32(dtype, seed, count, scale):
    """Of priors 1000 pixels wide the area, a million, is no number in float16."""
    priors = (torch.tensor(PRIORS) * scale).to(dtype)
    corner = numbers(1, count, 2, seed=seed).abs() * 40
    boxes = torch.cat([corner, corner + 8 + numbers(1, count, 2, seed=seed + 1).abs() * 24], -1)
    boxes = (boxes * scale).to(dtype)
    rest = torch.zeros(1, count, dtype=torch.long), torch.ones(1, count, dtype=torch.bool)
    expected = assigner().assign_batch(priors.float(), boxes.float(), *rest)
    found = assigner().assign_batch(priors, boxes, *rest)
    assert expected.gt_inds.max() > 0
    assert torch.equal(found.gt_inds, expected.gt_inds)
    assert torch.equal(found.labels, expected.labels)


# --------------------------------------------------------------------------- loss and gradient


def mined(**loss):
    return dict(type='HardNegativeMiningLoss', loss=loss)


PAPER = 'as in the paper'
OFFSET_HEADS = {
    PAPER: {},
    'images without objects teach': dict(
        loss_cls=dict(type='HardNegativeMiningLoss', min_negatives=5)
    ),
    'nothing mined': dict(loss_cls=dict(type='CrossEntropyLoss')),
    'smooth labels': dict(loss_cls=mined(type='torch.nn.CrossEntropyLoss', label_smoothing=0.1)),
    'sigmoid': dict(loss_cls=mined(type='CrossEntropyLoss', use_sigmoid=True)),
    'focal': dict(loss_cls=dict(type='FocalLoss')),
    'focal, mined': dict(loss_cls=mined(type='FocalLoss')),
    'quality focal': dict(loss_cls=mined(type='QualityFocalLoss', beta=2.0)),
    'varifocal': dict(loss_cls=mined(type='VarifocalLoss')),
    'L1': dict(loss_bbox=dict(type='L1Loss')),
    'balanced L1': dict(loss_bbox=dict(type='BalancedL1Loss')),
}
# Balanced L1 takes the logarithm of a difference times 11: no number that far out.
FAR_HEADS = {name: options for name, options in OFFSET_HEADS.items() if 'balanced' not in name}
BOX_HEADS = {
    name: dict(reg_decoded_bbox=True, loss_bbox=dict(type=name))
    for name in ('IoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss', 'EIoULoss', 'SIoULoss')
}
HEADS = OFFSET_HEADS | BOX_HEADS


@cache
def head_of(name):
    return tiny_head(**HEADS[name])


def faulty_images(counts, seed):
    """Ground truth of a batch, of which every third box or so is sound."""
    return [
        instances(any_boxes(count, seed + 1000 * i), [g % 3 for g in range(count)])
        for i, count in enumerate(counts)
    ]


def losses_and_gradients(head, cls_scores, bbox_preds, gt):
    losses = head.loss_by_feat(cls_scores, bbox_preds, gt, image_metas(len(gt)))
    gradients = torch.autograd.grad(sum(losses.values()), [*cls_scores, *bbox_preds])
    return list(losses.values()), gradients


counts = st.lists(st.sampled_from([0, 0, 1, 2, 9]), min_size=1, max_size=3)


@pytest.mark.parametrize('name', HEADS)
@examples(8)
@given(
    seed=seeds,
    counts=counts,
    dtype=dtypes,
    score_scale=scales,
    delta_scale=scales,
)
@example(seed=0, counts=[3, 0], dtype=torch.float32, score_scale=1e4, delta_scale=1e4)
@example(seed=0, counts=[9], dtype=torch.float16, score_scale=LARGEST, delta_scale=LARGEST)
@example(seed=0, counts=[9], dtype=torch.bfloat16, score_scale=0.0, delta_scale=0.0)
def test_of_finite_outputs_loss_and_gradient_are_finite(
    name, seed, counts, dtype, score_scale, delta_scale
):
    head = head_of(name)
    width = head.cls_out_channels
    special = (score_scale, -score_scale)
    scores = maps(
        numbers(len(counts), 368, width, seed=seed, scale=score_scale, special=special), dtype
    )
    deltas = maps(numbers(len(counts), 368, 4, seed=seed + 1, scale=delta_scale), dtype)
    found = losses_and_gradients(head, scores, deltas, faulty_images(counts, seed))
    for value in (*found[0], *found[1]):
        assert value.isfinite().all()


@pytest.mark.parametrize('name', FAR_HEADS)
def test_losses_of_offsets_are_finite_far_beyond_any_network(name):
    head = head_of(name)
    scores = maps(numbers(2, 368, head.cls_out_channels, scale=FAR))
    deltas = maps(numbers(2, 368, 4, seed=1, scale=FAR))
    found = losses_and_gradients(head, scores, deltas, faulty_images((5, 0), 7))
    for value in (*found[0], *found[1]):
        assert value.isfinite().all()


@pytest.mark.parametrize('name', BOX_HEADS)
def test_a_box_that_is_its_object_has_a_finite_loss_and_gradient(name):
    """MMDetection's CIoULoss of one is 0 / 0."""
    head = head_of(name)
    sound = head.prior_generator.grid_priors([(8, 8), (4, 4), (2, 2)], device='cpu')
    objects = [sound[0][100].tolist(), sound[1][30].tolist()]
    deltas = maps(torch.zeros(1, 368, 4))
    found = losses_and_gradients(head, maps(numbers(1, 368, 4)), deltas, [instances(objects)])
    for value in (*found[0], *found[1]):
        assert value.isfinite().all()


def test_five_hundred_objects_have_a_finite_loss():
    head = head_of(PAPER)
    scores, deltas = maps(numbers(2, 368, 4)), maps(numbers(2, 368, 4, seed=1))
    gt = [instances(any_boxes(500, 3)), instances([])]
    found = losses_and_gradients(head, scores, deltas, gt)
    assert found[0][0] > 0 and found[0][1] > 0
    for value in (*found[0], *found[1]):
        assert value.isfinite().all()


@pytest.mark.parametrize('dtype', DTYPES)
@examples(6)
@given(
    seed=st.integers(0, 30),
    counts=st.lists(st.sampled_from([0, 1, 4]), min_size=1, max_size=2),
    scale=st.sampled_from([1.0, 30.0, 1e4]),
)
def test_the_loss_is_the_formula_s_in_float64(dtype, seed, counts, scale):
    """Of the same outputs; the gradient has the digits of the outputs.

    Large scores in few digits are often alike: which of the negatives with the same loss are
    mined is a matter of choice. So priors may differ in their gradients if their losses don't.
    """
    scores = maps(numbers(len(counts), 368, 4, seed=seed, scale=scale), dtype)
    deltas = maps(numbers(len(counts), 368, 4, seed=seed + 1, scale=min(scale, 100)), dtype)
    boxes = [clear_cut_boxes(count, seed, PRIORS) for count in counts]
    labels = [[g % 3 for g in range(count)] for count in counts]
    gt = [instances(*image) for image in zip(boxes, labels)]
    found, gradients = losses_and_gradients(head_of(PAPER), scores, deltas, gt)
    exact = [to_flat([m.detach().double() for m in levels], 4) for levels in (scores, deltas)]
    exact = [flat.requires_grad_() for flat in exact]
    expected = naive_head_loss(*exact, PRIORS, boxes, labels)
    for value, formula in zip(found, expected):
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(formula.item(), rel=1e-5, abs=1e-6)
    expected = torch.autograd.grad(sum(expected), exact)
    assert all(gradient.dtype == dtype for gradient in gradients)
    of_scores, of_deltas = (
        to_flat([level.double() for level in levels], 4)
        for levels in (gradients[:3], gradients[3:])
    )
    close = dict(rtol=1e-5 + torch.finfo(dtype).eps, atol=1e-6)
    torch.testing.assert_close(of_deltas, expected[1], **close)
    differ = ~torch.isclose(of_scores, expected[0], **close).all(2)  # (B, P)
    as_negatives = -exact[0].detach().log_softmax(2)[..., -1]
    for losses in (one[where] for one, where in zip(as_negatives, differ)):
        assert len(losses) % 2 == 0, 'one is mined in place of another'
        torch.testing.assert_close(losses, losses[:1].expand_as(losses), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_mining_sums_scores_of_few_digits_in_many(dtype, reduction):
    """As any head of MMDetection's calls it: 1200 losses of 100 each are no number in float16."""
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


# ---------------------------------------------------------------------------------- detections

SPECIAL = (NAN, INF, -INF, 1e4, -1e4, 3e38, -3e38)


def assert_sound(detections, num_classes=3, shape=(64, 64), score_thr=0.01):
    height, width = shape
    for found in detections:
        boxes, scores, labels = found.bboxes, found.scores, found.labels
        assert len(boxes) == len(scores) == len(labels) <= 200
        assert boxes.isfinite().all() and scores.isfinite().all()
        assert (boxes >= 0).all() and (boxes <= boxes.new_tensor([width, height] * 2)).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
        assert (scores > score_thr).all() and (scores <= 1).all()
        assert (scores[:-1] >= scores[1:]).all()
        assert ((labels >= 0) & (labels < num_classes)).all()


@pytest.mark.parametrize('name', [PAPER, 'sigmoid'])
@examples(60)
@given(
    seed=seeds,
    batch=st.integers(1, 3),
    dtype=dtypes,
    score_scale=scales,
    delta_scale=scales,
    special=st.lists(st.sampled_from(SPECIAL), max_size=3),
    share=st.sampled_from([0.001, 0.3, 1.0]),
)
def test_detections_are_finite_in_the_image_and_sorted(
    name, seed, batch, dtype, score_scale, delta_scale, special, share
):
    head = head_of(name)
    random = dict(special=tuple(special), share=share)
    width = head.cls_out_channels
    scores = maps(numbers(batch, 368, width, seed=seed, scale=score_scale, **random), dtype)
    deltas = maps(numbers(batch, 368, 4, seed=seed + 1, scale=delta_scale, **random), dtype)
    with torch.no_grad():
        found = head.predict_by_feat(scores, deltas, image_metas(batch))
    assert len(found) == batch
    assert_sound(found)


def predict(scores, deltas, name=PAPER, **options):
    maps = to_levels(scores), to_levels(deltas)
    head = tiny_head(**HEADS[name], **options)
    found = head.predict_by_feat(*maps, image_metas(1))[0]
    return list(zip(found.scores.tolist(), found.labels.tolist(), found.bboxes.tolist()))


@pytest.mark.parametrize(
    ('part', 'value'),
    [('scores', NAN), ('scores', INF), ('deltas', NAN)],
)
@examples(10)
@given(seed=seeds, share=st.sampled_from([0.003, 0.2, 0.9]))
def test_a_prior_whose_outputs_are_no_numbers_finds_nothing_and_hides_nothing(
    part, value, seed, share
):
    """The others find what they would without it."""
    scores = numbers(1, 368, 4, seed=seed, scale=3)
    deltas = numbers(1, 368, 4, seed=seed + 1)
    lost = torch.rand(1, 368, generator=torch.Generator().manual_seed(seed)) < share
    without = scores.clone()
    without[lost] = torch.tensor([0.0, 0, 0, 100])  # background
    expected = naive_predict(without[0], deltas[0], PRIORS, (64, 64))
    damaged = dict(scores=scores.clone(), deltas=deltas.clone())
    damaged[part][..., seed % 4][lost] = value
    found = predict(**damaged)
    assert len(found) == len(expected)
    for mine, other in zip(found, expected):
        assert mine[0] == pytest.approx(other[0], abs=1e-5)
        assert mine[1] == other[1]
        assert mine[2] == pytest.approx(other[2], abs=1e-3)


def test_a_score_of_minus_infinity_is_a_probability_of_nothing():
    scores = torch.full((1, 368, 4), -INF)
    scores[..., 3] = 0.0
    scores[0, 100] = torch.tensor([-INF, 2.0, -INF, 1.0])
    found = predict(scores, torch.zeros(1, 368, 4))
    assert [label for _, label, _ in found] == [1]
    assert found[0][0] == pytest.approx(1 / (1 + math.exp(-1)))


def test_a_sigmoid_score_of_infinity_is_a_probability_of_one():
    scores = torch.full((1, 368, 3), -100.0)
    scores[0, 100, 1] = INF
    ((score, label, _),) = predict(scores, torch.zeros(1, 368, 4), 'sigmoid')
    assert (score, label) == (1, 1)


def one_object(prior, *offsets):
    """Outputs with which one prior finds something."""
    scores, deltas = torch.zeros(1, 368, 4), torch.zeros(1, 368, 4)
    scores[..., 3] = 100.0
    scores[0, prior, 0] = 200.0
    deltas[0, prior] = torch.tensor(offsets)
    return scores, deltas


def test_an_offset_of_infinity_leads_to_the_image_s_edge():
    ((_, _, box),) = predict(*one_object(5, INF, -INF, INF, INF))
    assert box == [64, 0, 64, 0]


UNCLIPPED = dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2), clip_border=False)


def test_without_a_border_to_clip_to_it_gives_no_detection():
    assert predict(*one_object(5, INF, 0, 0, 0), bbox_coder=UNCLIPPED) == []
    assert len(predict(*one_object(5, 1e4, 0, 0, 0), bbox_coder=UNCLIPPED)) == 1


def test_a_box_is_at_most_62_and_a_half_times_its_prior():
    outputs = one_object(5, 0, 0, 1e30, INF)
    ((_, _, (x1, y1, x2, y2)),) = predict(*outputs, bbox_coder=UNCLIPPED)
    left, top, right, bottom = PRIORS[5]
    assert x2 - x1 == pytest.approx(62.5 * (right - left), rel=1e-5)
    assert y2 - y1 == pytest.approx(62.5 * (bottom - top), rel=1e-5)
