"""The mining loss: against a naive loop over images, and against torchvision's SSD."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers import (
    cross_entropy,
    focal_loss,
    instances,
    naive_mining_loss,
    sigmoid_cross_entropy,
    tiny_head,
    to_levels,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD

from ssd_plugin.losses import HardNegativeMiningLoss

SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)
FOCAL = dict(type='FocalLoss')
examples = settings(deadline=None, max_examples=50)


def batch(seed, shape, classes=3, positives=0.15, sigmoid=False, scale=2.0):
    """Random scores (..., K) in float64 and labels, of which about `positives` are objects."""
    generator = torch.Generator().manual_seed(seed)
    channels = classes if sigmoid else classes + 1
    scores = torch.randn(*shape, channels, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) >= positives] = classes
    return scores.requires_grad_(), labels


def background_scores(hardness):
    """Two-score priors (one class and background) whose loss against background grows."""
    hardness = torch.tensor(hardness, dtype=torch.float64)
    return torch.stack([hardness, torch.zeros_like(hardness)], -1).requires_grad_()


def mined(scores, labels, **options):
    """Which priors the loss looks at: those whose scores get a gradient."""
    scores.grad = None
    HardNegativeMiningLoss(**options)(scores, labels).backward()
    return (scores.grad != 0).any(-1).tolist()


def assert_same_loss_and_gradient(ours, theirs, inputs, **tolerance):
    torch.testing.assert_close(ours, theirs.to(ours.dtype), **tolerance)
    gradient = torch.autograd.grad(ours, inputs, retain_graph=True)
    expected = torch.autograd.grad(theirs, inputs, retain_graph=True)
    torch.testing.assert_close(gradient, expected, **tolerance)


# --------------------------------------------------------------------------- the rule, by hand


def test_mining_takes_three_negatives_per_positive_of_each_image():
    one, two = [0.0, 5, 1, 4, 2, 3, 0.5, 0.1, 0.2], [0.0, 0.0, 8, 9, 1, 7, 6, 5, 4]
    scores = background_scores([one, two])
    labels = torch.ones(2, 9, dtype=torch.int64)
    labels[0, 0] = labels[1, 0] = labels[1, 1] = 0
    assert mined(scores, labels) == [
        [True, True, False, True, False, True, False, False, False],
        [True, True, True, True, False, True, True, True, True],
    ]


def test_no_image_lends_its_negatives_to_another():
    # The second image is empty, and its negatives are by far the hardest: none is taken.
    scores = background_scores([[0.0, 1, 2, 3, 4, 5], [90.0, 91, 92, 93, 94, 95]])
    labels = torch.ones(2, 6, dtype=torch.int64)
    labels[0, 0] = 0
    assert mined(scores, labels) == [[True, False, False, True, True, True], [False] * 6]


def test_there_are_never_more_negatives_than_priors_without_an_object():
    scores = background_scores([[1.0, 1, 1, 5, 6], [1.0, 1, 1, 1, 5]])
    labels = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    assert mined(scores, labels) == [[True] * 5] * 2
    # All of them, not all but one: "P - 1, which looks strange" would drop the easiest here.
    loss = HardNegativeMiningLoss()(scores, labels)
    expected, num_pos = naive_mining_loss(scores, labels, background=1)
    torch.testing.assert_close(loss, expected / num_pos)


def test_equal_losses_are_no_excuse_for_more_or_fewer_negatives():
    scores = torch.zeros(2, 20, 4, dtype=torch.float64)
    labels = torch.full((2, 20), 3)
    labels[0, 4] = labels[1, 5] = labels[1, 6] = 0
    losses = HardNegativeMiningLoss()(scores, labels, reduction_override='none')
    assert (losses > 0).sum(1).tolist() == [4, 8]
    torch.testing.assert_close(losses[losses > 0], torch.full((12,), math.log(4)).double())


def test_a_batch_without_objects_costs_nothing():
    scores, labels = batch(0, (2, 12), positives=0)
    loss = HardNegativeMiningLoss()(scores, labels)
    loss.backward()
    assert loss == 0
    assert not scores.grad.any()  # and the gradient is there, and finite


def test_a_batch_of_nothing_but_objects_has_no_negatives():
    scores, labels = batch(0, (2, 12), positives=1.1)
    expected = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten())
    assert_same_loss_and_gradient(HardNegativeMiningLoss()(scores, labels), expected, [scores])


def test_certain_scores_give_no_nan():
    scores, labels = batch(0, (1, 12), positives=0)
    labels[0, 0] = 1
    with torch.no_grad():
        scores[0, 1:, :3] = -math.inf  # background beyond all doubt: a loss of 0
    loss = HardNegativeMiningLoss()(scores, labels)
    torch.testing.assert_close(loss, cross_entropy(scores[0, 0], 1))
    loss.backward()
    assert scores.grad.isfinite().all()


# --------------------------------------------------------------------------------- the naive loop


@examples
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 4),
    priors=st.integers(1, 30),
    positives=st.sampled_from([0, 0.05, 0.15, 0.4, 1.1]),
    ratio=st.integers(0, 5),
    min_negatives=st.sampled_from([0, 0, 2, 7]),
)
@example(seed=1, images=2, priors=30, positives=0.15, ratio=3, min_negatives=0)
@example(seed=1, images=3, priors=9, positives=0, ratio=3, min_negatives=2)
def test_the_loss_and_its_gradient_are_the_naive_loop_s(
    seed, images, priors, positives, ratio, min_negatives
):
    scores, labels = batch(seed, (images, priors), positives=positives)
    loss = HardNegativeMiningLoss(neg_pos_ratio=ratio, min_negatives=min_negatives)
    expected, num_pos = naive_mining_loss(
        scores, labels, background=3, ratio=ratio, min_negatives=min_negatives
    )
    assert_same_loss_and_gradient(loss(scores, labels), expected / max(num_pos, 1), [scores])


@examples
@given(seed=st.integers(0, 10**6), used=st.sampled_from([0, 0.3, 0.7]))
def test_priors_of_weight_zero_are_neither_positive_nor_mined(seed, used):
    scores, labels = batch(seed, (3, 20), positives=0.3)
    weights = (torch.rand(3, 20, generator=torch.Generator().manual_seed(seed)) < used).double()
    expected, num_pos = naive_mining_loss(scores, labels, background=3, weights=weights)
    loss = HardNegativeMiningLoss()(scores, labels, weights)
    assert_same_loss_and_gradient(loss, expected / max(num_pos, 1), [scores])


def test_weights_of_positives_scale_their_loss():
    scores, labels = batch(5, (2, 20), positives=0.3)
    weights = torch.ones(2, 20).double()
    weights[labels < 3] = 0.25
    expected, num_pos = naive_mining_loss(scores, labels, background=3, weights=weights)
    loss = HardNegativeMiningLoss()(scores, labels, weights, avg_factor=num_pos)
    assert_same_loss_and_gradient(loss, expected / num_pos, [scores])


@examples
@given(seed=st.integers(0, 10**6), positives=st.sampled_from([0, 0.15, 1.1]))
def test_scores_of_no_image_are_mined_as_one_set(seed, positives):
    scores, labels = batch(seed, (25,), positives=positives)
    expected, num_pos = naive_mining_loss(scores[None], labels[None], background=3)
    loss = HardNegativeMiningLoss()(scores, labels)
    assert_same_loss_and_gradient(loss, expected / max(num_pos, 1), [scores])


@pytest.mark.parametrize(
    ('inner', 'naive'), [(SIGMOID, sigmoid_cross_entropy), (FOCAL, focal_loss)]
)
@pytest.mark.parametrize('positives', [0, 0.2, 1.1])
def test_losses_of_one_score_per_class_are_mined_by_their_sum(inner, naive, positives):
    scores, labels = batch(11, (2, 15), positives=positives, sigmoid=True)
    expected, num_pos = naive_mining_loss(scores, labels, background=3, loss=naive)
    loss = HardNegativeMiningLoss(loss=inner)(scores, labels)
    assert_same_loss_and_gradient(loss, expected / max(num_pos, 1), [scores])


def test_selection_carries_no_gradient():
    """The gradient of a selected prior is cross entropy's own, (softmax - one hot) / N."""
    scores, labels = batch(2, (1, 30), positives=0.1)
    HardNegativeMiningLoss()(scores, labels).backward()
    num_pos = int((labels < 3).sum())
    plain = scores.detach().softmax(-1) - torch.nn.functional.one_hot(labels, 4)
    chosen = (scores.grad != 0).any(-1)
    assert chosen.sum() == 4 * num_pos > 0
    torch.testing.assert_close(scores.grad[chosen], plain[chosen] / num_pos)


# ------------------------------------------------------------------- as MMDetection calls a loss


def test_the_sum_is_divided_by_the_average_factor():
    scores, labels = batch(3, (2, 20))
    expected, _ = naive_mining_loss(scores, labels, background=3)
    for factor in (7, 7.0, torch.tensor(7.0)):
        loss = HardNegativeMiningLoss()(scores, labels, avg_factor=factor)
        torch.testing.assert_close(loss, expected / 7)


@pytest.mark.parametrize('shape', [(2, 20), (20,)])
def test_a_reduction_may_be_overridden(shape):
    scores, labels = batch(4, shape)
    loss = HardNegativeMiningLoss()
    each = loss(scores, labels, reduction_override='none')
    assert each.shape == labels.shape
    chosen = (torch.autograd.grad(each.sum(), scores, retain_graph=True)[0] != 0).any(-1)
    plain = torch.nn.functional.cross_entropy(
        scores.flatten(0, -2), labels.flatten(), reduction='none'
    )
    torch.testing.assert_close(each, torch.where(chosen, plain.reshape(shape), 0))
    total = loss(scores, labels, reduction_override='sum')
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(total / (labels < 3).sum(), loss(scores, labels))


def test_loss_weights_multiply():
    scores, labels = batch(6, (2, 20))
    plain = HardNegativeMiningLoss()(scores, labels)
    torch.testing.assert_close(HardNegativeMiningLoss(loss_weight=0.5)(scores, labels), plain / 2)
    inner = dict(type='CrossEntropyLoss', loss_weight=3.0)
    torch.testing.assert_close(HardNegativeMiningLoss(loss=inner)(scores, labels), plain * 3)


def test_another_head_of_mmdetection_can_use_it():
    """RetinaHead hands each level's scores as one set, and divides by the batch's positives."""
    anchors = dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1,
                   ratios=[0.5, 1.0, 2.0], strides=[8])  # fmt: skip
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
    config = dict(
        type='RetinaHead', num_classes=3, in_channels=4, feat_channels=4, stacked_convs=0,
        anchor_generator=anchors,
        train_cfg=dict(assigner=assigner, sampler=dict(type='PseudoSampler'),
                       allowed_border=-1, pos_weight=-1),
        loss_cls=dict(type='HardNegativeMiningLoss'),
    )  # fmt: skip
    head = MODELS.build(config)
    scores, deltas = head([torch.randn(2, 4, 8, 8)])
    truth = [instances([[9, 9, 40, 44], [30, 2, 60, 50]], [1, 2]), instances([])]
    metas = [dict(img_shape=(64, 64), pad_shape=(64, 64))] * 2
    loss = head.loss_by_feat(scores, deltas, truth, metas)['loss_cls'][0]

    sizes = [scores[0].shape[-2:]]
    anchor_list, flags = head.get_anchors(sizes, metas, device='cpu')
    labels, weights, *_, num_pos = head.get_targets(anchor_list, flags, truth, metas)
    flat = scores[0].permute(0, 2, 3, 1).reshape(1, -1, 4)
    expected, _ = naive_mining_loss(flat, labels[0].reshape(1, -1), 3, weights[0].reshape(1, -1))
    assert num_pos > 0
    torch.testing.assert_close(loss, expected / num_pos)


# -------------------------------------------------------------------------------------- torchvision

BOXES = [
    [[4.0, 5, 17, 15], [20, 22, 49, 53], [40, 3, 63, 20]],
    [[1.0, 2, 60, 62]],
    [[30.0, 30, 41, 44], [33, 31, 43, 45], [2, 40, 25, 60]],
]
LABELS = [[0, 2, 1], [1], [2, 0, 0]]


@pytest.mark.parametrize('seed', range(3))
def test_the_head_s_loss_is_torchvision_s(seed):
    """Same scores, deltas and matches: the same two losses and the same gradients."""
    head = tiny_head()
    generator = torch.Generator().manual_seed(seed)
    scores = (2 * torch.randn(3, 368, 4, generator=generator)).requires_grad_()
    deltas = torch.randn(3, 368, 4, generator=generator).requires_grad_()
    truth = [instances(boxes, labels) for boxes, labels in zip(BOXES, LABELS)]
    metas = [dict(img_shape=(64, 64))] * 3
    ours = head.loss_by_feat(to_levels(scores), to_levels(deltas), truth, metas)

    priors = torch.cat(head.prior_generator.grid_priors([(8, 8), (4, 4), (2, 2)], device='cpu'))
    matches = []
    for gt in truth:
        mask = torch.ones(1, len(gt.bboxes), dtype=torch.bool)
        result = head.assigner.assign_batch(priors, gt.bboxes[None], gt.labels[None], mask)
        matches.append(result.gt_inds[0] - 1)
    assert all((match >= 0).any() and 4 * (match >= 0).sum() < len(match) for match in matches)
    settings_of_ssd = SimpleNamespace(
        box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3.0
    )
    theirs = SSD.compute_loss(
        settings_of_ssd,
        [dict(boxes=gt.bboxes, labels=gt.labels + 1) for gt in truth],
        dict(
            bbox_regression=deltas,
            cls_logits=torch.cat([scores[..., -1:], scores[..., :-1]], -1),  # background first
        ),
        [priors] * 3,
        matches,
    )
    assert_same_loss_and_gradient(
        ours['loss_cls'], theirs['classification'], [scores], rtol=1e-5, atol=1e-6
    )
    assert_same_loss_and_gradient(
        ours['loss_bbox'], theirs['bbox_regression'], [deltas], rtol=1e-5, atol=1e-6
    )


@examples
@given(
    seed=st.integers(0, 10**6), images=st.integers(1, 4), positives=st.sampled_from([0, 0.1, 0.2])
)
def test_mining_is_torchvision_s_on_the_same_scores(seed, images, positives):
    scores, labels = batch(seed, (images, 40), positives=positives)
    if ((labels < 3).sum(1) > 10).any():  # there torchvision counts positives twice
        labels[:, 10:] = 3
    found = labels < 3
    head_outputs = dict(
        bbox_regression=torch.zeros(images, 40, 4),
        cls_logits=torch.cat([scores[..., -1:], scores[..., :-1]], -1),
    )
    targets = [dict(boxes=torch.ones(40, 4).cumsum(1), labels=row + 1) for row in labels]
    boxes = [torch.ones(40, 4).cumsum(1)] * images
    matches = [torch.where(row, torch.arange(40), -1) for row in found]
    config = SimpleNamespace(box_coder=BoxCoder(weights=(10.0,) * 4), neg_to_pos_ratio=3.0)
    theirs = SSD.compute_loss(config, targets, head_outputs, boxes, matches)['classification']
    assert_same_loss_and_gradient(HardNegativeMiningLoss()(scores, labels), theirs, [scores])
