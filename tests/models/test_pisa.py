"""Prime sample attention: the numbers of MMDetection's functions and of its head."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.losses import CrossEntropyLoss, SmoothL1Loss, carl_loss, isr_p
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from ssd_plugin.models.boxes import iou
from ssd_plugin.models.pisa import ClassificationAwareWeighting, ImportanceReweighting
from ssd_plugin.models.targets import Targets
from tests.support import helpers as h
from tests.support.tiny_detector import losses_and_gradients, step_inputs

CODER = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
CLASSES, PRIORS = 3, 30
PARTS = dict(isr=dict(k=2.0, bias=0.0), carl=dict(k=1.0, bias=0.2))
ASSIGNER = dict(type='BatchMaxIoUAssigner', bipartite=False)  # MMDetection's rule
examples = settings(deadline=None, max_examples=100)


def pisa_head(loss_cls=None, loss_bbox=None, **parts):
    """A tiny `PISASSDMultiBoxHead` with these parts of PISA."""
    return h.tiny_head(
        type='PISASSDMultiBoxHead',
        train_cfg=dict(assigner=ASSIGNER, **parts),
        loss_cls=loss_cls,
        loss_bbox=loss_bbox,
    )


def mmdetection_head(**parts):
    """MMDetection's head over the same priors, with the same parts."""
    theirs = dict(
        type='PISASSDHead',
        anchor_generator=h.prior_config(h.TINY, type='SSDAnchorGenerator', scale_major=False),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2)),
        train_cfg=ConfigDict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0),
            sampler=dict(type='PseudoSampler'),
            smoothl1_beta=1.0, allowed_border=-1, pos_weight=-1, neg_pos_ratio=3, **parts,
        ),
    )  # fmt: skip
    theirs['train_cfg'].assigner.gt_max_assign_all = False
    return MODELS.build(h.tiny_head_config() | theirs)


@pytest.mark.parametrize('parts', [{}, dict(isr={}), dict(carl={}), PARTS], ids=list)
@pytest.mark.parametrize('counts', [(3, 6), (3, 0, 6), (0, 1), (1,), (0, 0)])
def test_losses_and_gradients_are_those_of_mmdetection_s_head(counts, parts):
    """Theirs count an image without matches as one matched prior."""
    batch = h.random_batch(counts)
    found = batch.head_loss(pisa_head(**parts))
    theirs = batch.head_loss(mmdetection_head(**parts))
    matched = [
        sum(g > 0 for g in h.naive_match(h.PRIORS, boxes, bipartite=False)[0])
        for boxes in batch.boxes
    ]
    factor = sum(max(count, 1) for count in matched) / max(sum(matched), 1)
    assert found.keys() == theirs.keys()
    assert ('loss_carl' in found) is ('carl' in parts)
    expected = {name: factor * sum(loss).sum() for name, loss in theirs.items()}
    inputs = [batch.scores, batch.deltas]
    torch.testing.assert_close(
        [*found.values(), *torch.autograd.grad(sum(found.values()), inputs)],
        [*expected.values(), *torch.autograd.grad(sum(expected.values()), inputs)],
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_without_its_parts_it_is_the_plain_head():
    batch = h.random_batch()
    plain = h.tiny_head(train_cfg=dict(assigner=ASSIGNER))
    assert batch.head_loss(pisa_head()) == batch.head_loss(plain)


@st.composite
def matches(draw):
    """Matches of a batch: for each image `gt_inds` (P,), and the classes of its boxes."""
    images = []
    for _ in range(draw(st.integers(1, 4))):
        classes = draw(st.lists(st.integers(0, CLASSES - 1), max_size=4))
        places = st.lists(st.integers(-1, len(classes)), min_size=PRIORS, max_size=PRIORS)
        images.append((draw(places), classes))
    return images


def made_up(images, seed):
    """Targets of these matches, and predictions whose IoUs are all different."""
    generator = torch.Generator().manual_seed(seed)
    gt_inds = torch.tensor([own for own, _ in images])
    labels = [[classes[g - 1] if g > 0 else CLASSES for g in own] for own, classes in images]
    priors = torch.rand(PRIORS, 4, generator=generator) * 30
    priors[:, 2:] += priors[:, :2] + 10
    shape = len(images), PRIORS
    deltas = 0.5 * torch.randn(*shape, 4, generator=generator)
    bboxes = priors + torch.randn(*shape, 4, generator=generator)
    targets = Targets(
        labels=torch.tensor(labels),
        weights=(gt_inds >= 0).float(),
        bboxes=torch.where((gt_inds > 0).unsqueeze(-1), bboxes, priors),
        gt_inds=gt_inds,
        avg_factor=(gt_inds > 0).sum().clamp(min=1),
    )
    scores = 2 * torch.randn(*shape, CLASSES + 1, generator=generator)
    return priors, targets, scores.requires_grad_(), deltas.requires_grad_()


def flattened(priors, targets, deltas):
    """All priors in one row, with their own regression targets, as MMDetection's functions want."""
    rows = priors.repeat(len(deltas), 1)
    return rows, CODER.encode(rows, targets.bboxes.flatten(0, 1))


def weights_of_isr_p(priors, targets, scores, deltas, apart=1000, **options):
    """The label weights of MMDetection's `isr_p`, (B, P).

    It would count on from the last image's boxes alone, so that those of the third image may have
    the numbers of the first one's. Here they are kept apart. It adds IoUs to ranks, which makes
    those that differ by 1e-6 the same in float32: here it computes in float64.
    """
    priors, scores, deltas = priors.double(), scores.double(), deltas.double()
    targets = targets._replace(bboxes=targets.bboxes.double(), weights=targets.weights.double())
    rows, encoded = flattened(priors, targets, deltas)
    matched = [own[own > 0] - 1 + apart * i for i, own in enumerate(targets.gt_inds)]
    return (
        isr_p(
            scores.flatten(0, 1),
            deltas.flatten(0, 1),
            (targets.labels.flatten(), targets.weights.flatten().clone(), encoded, None),
            rows,
            [InstanceData(pos_assigned_gt_inds=own) for own in matched],
            CrossEntropyLoss(),
            CODER,
            num_class=CLASSES,
            **options,
        )[1]
        .view_as(targets.weights)
        .float()
    )


def weights_of_ours(priors, targets, scores, deltas, **options):
    rows = priors.repeat(len(deltas), 1)
    predicted = CODER.decode(rows, deltas.detach().flatten(0, 1)).view_as(deltas)
    losses = torch.nn.functional.cross_entropy(
        scores.detach().movedim(-1, 1), targets.labels, reduction='none'
    )
    return ImportanceReweighting(**options)(iou(predicted, targets.bboxes), losses, targets)


OPTIONS = st.sampled_from([{}, dict(k=1, bias=0.3), dict(k=0.5, bias=0.0)])


@examples
@given(images=matches(), seed=st.integers(0, 10_000), options=OPTIONS)
def test_isr_weights_are_those_of_mmdetection(images, seed, options):
    inputs = made_up(images, seed)
    expected = weights_of_isr_p(*inputs, **options)
    torch.testing.assert_close(weights_of_ours(*inputs, **options), expected, rtol=1e-4, atol=1e-6)


def test_boxes_of_different_images_stay_apart_where_mmdetection_mistakes_them():
    """Three images: with MMDetection's numbers, the third's box is the first's second one."""
    images = [
        ([1] * 5 + [2] * 5 + [0] * 20, [0, 0]),
        ([1] + [0] * 29, [1]),
        ([1] * 5 + [0] * 25, [0]),
    ]
    inputs = made_up(images, seed=0)
    found = weights_of_ours(*inputs)
    torch.testing.assert_close(found, weights_of_isr_p(*inputs))
    assert not torch.allclose(found, weights_of_isr_p(*inputs, apart=0))


def test_the_best_prior_of_every_box_comes_before_the_second_one_of_any():
    """Two boxes of a class: IoUs 0.9, 0.8, 0.7 of one and 0.4, 0.3 of the other."""
    gt_inds = torch.tensor([[1, 2, 1, 0, 2, 1]])
    ious = torch.tensor([[0.8, 0.3, 0.9, 1.0, 0.4, 0.7]])
    matched = gt_inds > 0
    targets = Targets(torch.where(matched, 2, 3), torch.ones(1, 6), None, gt_inds, None)
    weights = ImportanceReweighting(k=1.0)(ious, torch.ones(1, 6), targets)
    # By rank 0.9, 0.4, 0.8, 0.3, 0.7; of equal losses the mean weight is 1.
    expected = torch.tensor([[3 / 5, 2 / 5, 1, 3 / 5, 4 / 5, 1 / 5]]) * 5 / 3
    torch.testing.assert_close(weights, expected)


@examples
@given(images=matches(), seed=st.integers(0, 10_000))
def test_isr_leaves_the_sum_of_the_positives_losses_and_all_other_weights(images, seed):
    priors, targets, scores, deltas = made_up(images, seed)
    weights = weights_of_ours(priors, targets, scores, deltas)
    losses = -scores.log_softmax(-1).gather(-1, targets.labels.unsqueeze(-1)).squeeze(-1)
    matched = targets.matched
    torch.testing.assert_close((weights * losses)[matched].sum(), losses[matched].sum())
    assert torch.equal(weights[~matched], targets.weights[~matched])


def test_isr_of_losses_that_are_0_keeps_all_positives():
    targets = made_up([([1, 2, 2] + [0] * 27, [0, 1])], seed=0)[1]
    weights = ImportanceReweighting()(torch.rand(1, PRIORS), torch.zeros(1, PRIORS), targets)
    assert weights.isfinite().all() and (weights > 0).all()


@examples
@given(
    images=matches(),
    seed=st.integers(0, 10_000),
    sigmoid=st.booleans(),
    options=st.sampled_from([{}, dict(k=2, bias=0.0)]),
)
def test_carl_and_its_gradients_are_those_of_mmdetection(images, seed, sigmoid, options):
    priors, targets, scores, deltas = made_up(images, seed)
    scores = scores[..., :-1] if sigmoid else scores
    _, encoded = flattened(priors, targets, deltas)
    expected = carl_loss(
        scores.flatten(0, 1), targets.labels.flatten(), deltas.flatten(0, 1), encoded,
        SmoothL1Loss(), sigmoid=sigmoid, avg_factor=targets.avg_factor, num_class=CLASSES,
        **options,
    )['loss_carl'].sum()  # fmt: skip
    head = pisa_head(h.mined(type='CrossEntropyLoss', use_sigmoid=sigmoid), carl=options)
    found = head.loss_by_targets(scores, deltas, priors, targets)['loss_carl']
    h.assert_same_loss(found, expected + 0 * deltas.sum(), [scores])
    h.assert_same_loss(found, expected + 0 * deltas.sum(), [deltas])


def test_carl_of_scores_that_vanish_is_finite():
    probabilities = torch.zeros(1, 4, requires_grad=True)
    matched = torch.tensor([[True, True, False, False]])
    weights = ClassificationAwareWeighting(k=0.5, bias=0.1)(probabilities, matched)
    torch.testing.assert_close(weights, matched.float())
    (gradient,) = torch.autograd.grad((weights * torch.arange(4)).sum(), probabilities)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    'losses',
    [
        dict(loss_cls=h.mined(type='VarifocalLoss')),
        dict(loss_cls=dict(type='FocalLoss')),
        dict(loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=dict(type='L1Loss')),
    ],
    ids=['quality', 'focal', 'unmined'],
)
def test_other_losses_learn_by_it_too(losses):
    head = pisa_head(**losses, **PARTS)
    plain = h.tiny_head(train_cfg=dict(assigner=ASSIGNER), **losses)
    inputs = step_inputs(head)
    found, expected = (of.loss_by_feat(*inputs) for of in (head, plain))
    # ISR leaves the sum of the losses as it was, and changes where they come from.
    torch.testing.assert_close(found['loss_cls'], expected['loss_cls'])
    assert found['loss_bbox'] == expected['loss_bbox']
    assert all(value.isfinite().all() for value in losses_and_gradients(head.loss_by_feat, inputs))


def test_a_name_that_its_parts_have_not_is_refused_when_the_head_is_built():
    with pytest.raises(TypeError, match='gamma'):
        pisa_head(isr=dict(gamma=2))
