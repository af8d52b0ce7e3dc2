"""Hard negative mining: against naive loops over images, torchvision's SSD, and in other heads."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD

from ssd_plugin.models.losses import HardNegativeMiningLoss
from ssd_plugin.models.targets import get_targets
from tests.support import helpers as h
from tests.support import naive_losses as naive

INNER = {
    'softmax': (dict(type='CrossEntropyLoss'), naive.cross_entropy),
    'sigmoid': (dict(type='CrossEntropyLoss', use_sigmoid=True), naive.sigmoid_cross_entropy),
    'focal': (dict(type='FocalLoss'), naive.focal_loss),
    'quality focal': (dict(type='QualityFocalLoss'), naive.quality_focal_loss),
    'varifocal': (dict(type='VarifocalLoss'), naive.varifocal_loss),
}
FOCAL = INNER['focal'][0]


def batch(seed, shape, num_scores=4, positives=0.15):
    """Random scores (..., K) in float64, and labels: a share `positives` of them is matched."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(*shape, num_scores, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) >= positives] = 3
    return scores.requires_grad_(), labels


def test_equal_losses_do_not_change_the_number_of_negatives_and_the_first_are_taken():
    scores = torch.zeros(2, 20, 4, dtype=torch.float64)
    labels = torch.full((2, 20), 3)
    labels[0, 4] = labels[1, 5] = labels[1, 6] = 0
    losses = HardNegativeMiningLoss()(scores, labels, reduction_override='none')
    assert losses[0].nonzero()[:, 0].tolist() == [0, 1, 2, 4]
    assert losses[1].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    torch.testing.assert_close(losses[losses > 0], torch.full((12,), math.log(4)).double())


def test_certain_scores_give_no_nan():
    scores, labels = batch(0, (1, 12), positives=0)
    labels[0, 0] = 1
    with torch.no_grad():
        scores[0, 1:, :3] = -math.inf  # background beyond all doubt: a loss of 0
    loss = HardNegativeMiningLoss()(scores, labels)
    torch.testing.assert_close(loss, naive.cross_entropy(scores[0, 0], 1))
    loss.backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize('name', INNER)
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(1, 1), (1, 30), (2, 15), (4, 9), (25,)]),
    positives=st.sampled_from([0, 0.05, 0.15, 0.4, 1.1]),
    ratio=st.integers(0, 5),
    min_negatives=st.sampled_from([0, 0, 2, 7]),
    weights=st.sampled_from([None, 'zeros and ones', 'a quarter for positives']),
)
@example(1, (2, 30), 0.15, 3, 0, None)
@example(1, (3, 9), 0, 3, 2, None)
@example(1, (2, 12), 0, 3, 0, None)  # nothing to learn: a loss and a gradient of 0
@example(1, (2, 12), 1.1, 3, 0, None)  # no negatives
@example(5, (2, 20), 0.3, 3, 0, 'zeros and ones')
@example(5, (2, 20), 0.3, 3, 0, 'a quarter for positives')
def test_the_loss_and_its_gradient_are_those_of_the_naive_loop(
    name, seed, shape, positives, ratio, min_negatives, weights
):
    """Priors of weight 0 are neither positive nor mined. Selection carries no gradient.

    Scores of no image are mined as one set. The quality of negatives is not looked at.
    """
    inner, formula = INNER[name]
    scores, labels = batch(seed, shape, 4 if name == 'softmax' else 3, positives)
    chance = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double()
    quality = torch.where(labels == 3, h.NAN, chance)
    weights = {
        None: None,
        'zeros and ones': chance.round(),
        'a quarter for positives': torch.where(labels < 3, 0.25, 1.0).double(),
    }[weights]
    learns_quality = formula in naive.LEARN_QUALITY
    rows, row_labels = scores.reshape(-1, *scores.shape[-2:]), labels.reshape(-1, shape[-1])
    row_weights = None if weights is None else weights.reshape(row_labels.shape)
    row_quality = quality.reshape(row_labels.shape).tolist() if learns_quality else None
    options = ratio, min_negatives, formula, row_quality
    expected, num_pos = naive.naive_mining_loss(rows, row_labels, 3, row_weights, *options)
    uses_sigmoid = formula is not naive.cross_entropy
    loss = HardNegativeMiningLoss(inner, ratio, min_negatives, use_sigmoid=uses_sigmoid)
    target = (labels, quality) if learns_quality else labels
    *_, hardest = loss.select(scores, target, weights)
    minable = (labels == 3) & (True if weights is None else weights > 0)
    assert not (hardest & ~minable).any()
    close = dict(rtol=2e-6, atol=1e-7)  # MMDetection's sigmoid cross entropy is float32
    h.assert_same_loss(loss(scores, target, weights), expected / max(num_pos, 1), [scores], **close)
    for factor in (7.0, torch.tensor(7.0)):
        found = loss(scores, target, weights, avg_factor=factor)
        torch.testing.assert_close(found.double(), expected / 7, **close)


def test_without_quality_that_of_every_positive_is_one():
    scores, labels = batch(1, (2, 12), 3)
    loss = HardNegativeMiningLoss(loss=dict(type='QualityFocalLoss'))
    ones = labels, torch.ones(2, 12).double()
    torch.testing.assert_close(loss(scores, labels), loss(scores, ones))


@pytest.mark.parametrize('shape', [(2, 20), (20,)])
def test_a_reduction_may_be_overridden_and_loss_weights_multiply(shape):
    scores, labels = batch(4, shape)
    loss = HardNegativeMiningLoss()
    plain, each = loss(scores, labels), loss(scores, labels, reduction_override='none')
    assert each.shape == labels.shape
    kept = (torch.autograd.grad(each.sum(), scores, retain_graph=True)[0] != 0).any(-1)
    rows = scores.flatten(0, -2), labels.flatten()
    every = torch.nn.functional.cross_entropy(*rows, reduction='none')
    torch.testing.assert_close(each, torch.where(kept, every.reshape(shape), 0))
    total = loss(scores, labels, reduction_override='sum')
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(total / (labels < 3).sum(), plain)
    with pytest.raises(ValueError, match="reduction_override must be one of .*, got 'max'"):
        loss(scores, labels, reduction_override='max')
    torch.testing.assert_close(HardNegativeMiningLoss(loss_weight=0.5)(scores, labels), plain / 2)
    inner = dict(type='CrossEntropyLoss', loss_weight=3.0)
    torch.testing.assert_close(HardNegativeMiningLoss(loss=inner)(scores, labels), plain * 3)


def test_the_inner_loss_says_whether_scores_are_sigmoids():
    assert HardNegativeMiningLoss(loss=FOCAL).use_sigmoid is True
    assert HardNegativeMiningLoss(loss=FOCAL, use_sigmoid=True).use_sigmoid is True
    assert HardNegativeMiningLoss(use_sigmoid=False).use_sigmoid is False
    smooth = dict(type='torch.nn.CrossEntropyLoss')
    assert HardNegativeMiningLoss(loss=smooth).use_sigmoid is False
    # PyTorch's losses do not say, so the argument alone decides.
    assert HardNegativeMiningLoss(loss=smooth, use_sigmoid=True).use_sigmoid is True
    for inner, said in ((FOCAL, False), (dict(type='CrossEntropyLoss'), True)):
        message = f'use_sigmoid is {said}, .* {inner["type"]} has use_sigmoid={not said}'
        with pytest.raises(ValueError, match=message):
            HardNegativeMiningLoss(loss=inner, use_sigmoid=said)


@pytest.mark.parametrize('name', ['neg_pos_ratio', 'min_negatives'])
def test_a_negative_number_of_negatives_is_refused(name):
    """In MMDetection's samplers it stands for all."""
    with pytest.raises(ValueError, match=f'{name} is -1, below 0; min_negatives=100_000 keeps all'):
        HardNegativeMiningLoss(**{name: -1})


def test_a_head_that_has_not_been_told_of_a_sigmoid_loss_is_an_error():
    """It gives a score more than there are classes, and background would be one of them."""
    assigner = dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)
    train_cfg = dict(assigner=assigner, sampler=dict(type='PseudoSampler'))
    head = MODELS.build(dict(
        type='RetinaHead', loss_cls=h.mined(**FOCAL), num_classes=3, in_channels=4,
        feat_channels=4, stacked_convs=0, anchor_generator=ANCHORS,
        train_cfg=dict(train_cfg, allowed_border=-1, pos_weight=-1),
    ))  # fmt: skip
    maps = head([torch.randn(1, 4, 8, 8)])
    with pytest.raises(ValueError, match='write use_sigmoid=True beside the inner FocalLoss'):
        head.loss_by_feat(*maps, [h.instances([[9, 9, 40, 44]], [1])], h.image_metas(1))


def test_an_inner_loss_that_learns_no_quality_takes_the_class_of_those_that_do():
    scores, labels = batch(3, (1, 30), num_scores=3)
    loss = HardNegativeMiningLoss(loss=FOCAL)
    torch.testing.assert_close(loss(scores, (labels, torch.rand(1, 30))), loss(scores, labels))


ANCHORS = dict(
    type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[0.5, 1.0, 2.0],
    strides=[8],
)  # fmt: skip
GFL = dict(
    anchor_generator=dict(ANCHORS, ratios=[1.0]),
    loss_cls=dict(h.mined(type='QualityFocalLoss'), use_sigmoid=True),
    loss_bbox=dict(type='GIoULoss'),
)


SIGMOID_RETINA = dict(type='RetinaHead', loss_cls=dict(h.mined(**FOCAL), use_sigmoid=True))
HEADS = [  # configs, the loss of a prior, and the number of scores
    (dict(type='RetinaHead', loss_cls=h.mined()), naive.cross_entropy, 4),
    (SIGMOID_RETINA, naive.focal_loss, 3),
    (dict(type='GFLHead', **GFL), naive.quality_focal_loss, 3),
]


@pytest.mark.filterwarnings('ignore:DeprecationWarning. `num_anchors`')
@pytest.mark.parametrize(('config', 'formula', 'num_scores'), HEADS)
def test_other_heads_can_use_it_with_our_matching(config, formula, num_scores):
    """What a head gives its loss for a level, labels or labels and qualities, is mined as one set.

    The sum is divided as the head says: by the positives of the batch, at least 1 an image.
    """
    torch.manual_seed(0)
    assigner = dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)
    sampler = dict(type='PseudoSampler')
    train_cfg = dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1)
    rest = dict(num_classes=3, in_channels=4, feat_channels=4, stacked_convs=0, train_cfg=train_cfg)
    head = MODELS.build(dict(anchor_generator=ANCHORS) | config | rest)
    seen = []
    head.loss_cls.register_forward_pre_hook(lambda _, *args: seen.append(args), with_kwargs=True)
    maps = head([torch.randn(2, 4, 8, 8)])
    truth = [h.instances([[9, 9, 40, 44], [30, 2, 60, 50]], [1, 2]), h.instances([])]
    losses = head.loss_by_feat(*maps, truth, h.image_metas(2))
    (((scores, target, *weight), options),) = seen
    labels, quality = target if isinstance(target, tuple) else (target, None)
    assert scores.shape == (64 * 2 * head.num_base_priors, num_scores) and (labels < 3).any()
    assert quality is None or (quality[labels < 3] > 0).any()
    weight = weight[0] if weight else options['weight']
    quality = None if quality is None else quality[None].tolist()
    one_set = scores[None], labels[None], 3, weight[None]
    expected, num_pos = naive.naive_mining_loss(*one_set, loss=formula, quality=quality)
    assert num_pos > 0
    torch.testing.assert_close(losses['loss_cls'][0], expected / options['avg_factor'])
    total = sum(map(sum, losses.values()))
    assert total.isfinite() and sum(losses['loss_bbox']) > 0


def torchvision_losses(scores, deltas, boxes, labels, priors, matches):
    """Of torchvision's SSD, which has the background first; in `matches` -1 is background."""
    config = SimpleNamespace(box_coder=BoxCoder(weights=(10, 10, 5, 5)), neg_to_pos_ratio=3.0)
    cls_logits = torch.cat([scores[..., -1:], scores[..., :-1]], -1)
    targets = [dict(boxes=b, labels=own + 1) for b, own in zip(boxes, labels)]
    outputs = dict(bbox_regression=deltas, cls_logits=cls_logits)
    losses = SSD.compute_loss(config, targets, outputs, [priors] * len(boxes), list(matches))
    return dict(loss_cls=losses['classification'], loss_bbox=losses['bbox_regression'])


@pytest.mark.parametrize('seed', range(3))
def test_the_head_s_loss_is_torchvision_s(seed):
    """Same scores, deltas and matches: the same two losses and the same gradients."""
    boxes = [
        [[4.0, 5, 17, 15], [20, 22, 49, 53], [40, 3, 63, 20]],
        [[1.0, 2, 60, 62]],
        [],
        [[30.0, 30, 41, 44], [33, 31, 43, 45], [2, 40, 25, 60]],
    ]
    labels = [[0, 2, 1], [1], [], [2, 0, 0]]
    outputs = h.random_batch((3, 1, 0, 3), seed=seed, boxes=boxes, labels=labels)
    head, priors = h.tiny_head(), torch.tensor(h.PRIORS)
    truth = list(map(h.instances, boxes, labels))
    matches = get_targets(priors, head.assigner, 3, truth, h.image_metas(4)).gt_inds - 1
    num_positives = (matches >= 0).sum(1)
    assert ((num_positives > 0) == torch.tensor([True, True, False, True])).all()
    assert (4 * num_positives < len(priors)).all()  # else torchvision counts positives twice
    targets = [image.bboxes for image in truth], [image.labels for image in truth]
    expected = torchvision_losses(outputs.scores, outputs.deltas, *targets, priors, matches)
    naive.assert_head_loss(outputs.head_loss(head), expected, outputs, rtol=1e-5, atol=1e-6)
