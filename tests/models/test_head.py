"""The head: MMDetection's parameters, the method's loss, the method's detections."""

import importlib
import math
import random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.optim import OptimWrapper
from torch import nn

from ssd_plugin.models.head import flatten_levels
from tests.support.helpers import (
    MODEL_TABLE,
    TINY,
    TINY_CHANNELS,
    TINY_TEST_CFG,
    box_loss,
    ciou_loss,
    clear_cut_boxes,
    diou_loss,
    giou_loss,
    image_metas,
    instances,
    iou,
    iou_loss,
    naive_head_loss,
    naive_match,
    naive_predict,
    naive_priors,
    predicted_box,
    prior_config,
    sigmoid_cross_entropy,
    tiny_features,
    tiny_head,
    to_flat,
    to_levels,
)

NAN, INF = math.nan, math.inf
PRIORS = sum(naive_priors(TINY), [])  # 368 boxes
CODER = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])

# ------------------------------------------------------------------- MMDetection's checkpoints fit

SSDLITE = dict(use_depthwise=True, norm_cfg=dict(type='BN', eps=0.001), act_cfg=dict(type='ReLU6'))
STACKED = dict(stacked_convs=2, feat_channels=16, act_cfg=dict(type='ReLU'))


def both_heads(model, in_channels, num_classes, **arguments):
    """Our head and MMDetection's `SSDHead`, built with the same arguments."""
    arguments = dict(arguments, in_channels=in_channels, num_classes=num_classes, bbox_coder=CODER)
    theirs = prior_config(model, type='SSDAnchorGenerator', scale_major=False)
    return (
        MODELS.build(
            dict(type='SSDMultiBoxHead', anchor_generator=prior_config(model), **arguments)
        ),
        MODELS.build(dict(type='SSDHead', anchor_generator=theirs, **arguments)),
    )


def shapes(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize('arguments', [{}, SSDLITE, STACKED, SSDLITE | STACKED])
def test_a_checkpoint_of_mmdetection_s_head_loads_and_means_the_same(arguments):
    ours, theirs = both_heads(TINY, TINY_CHANNELS, 3, **arguments)
    theirs.init_weights()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    features = tiny_features(2)
    for mine, other in zip(ours.eval()(features), theirs.eval()(features)):
        assert len(mine) == 3
        torch.testing.assert_close(list(mine), list(other))


@pytest.mark.parametrize(
    ('name', 'num_classes', 'in_channels'),
    [
        ('SSD300 VOC', 20, (512, 1024, 512, 256, 256, 256)),
        ('SSD300 COCO', 80, (512, 1024, 512, 256, 256, 256)),
        ('SSD512 VOC', 20, (512, 1024, 512, 256, 256, 256, 256)),
    ],
)
def test_the_published_models_parameters_have_mmdetection_s_names_and_shapes(
    name, num_classes, in_channels
):
    with torch.device('meta'):
        ours, theirs = both_heads(MODEL_TABLE[name], in_channels, num_classes)
    assert shapes(ours) == shapes(theirs)
    assert 'cls_convs.0.0.weight' in shapes(ours)


def test_the_forward_pass_gives_every_prior_its_scores_and_deltas():
    scores, deltas = tiny_head(num_classes=5)(tiny_features(2))
    assert [tuple(x.shape) for x in scores] == [(2, 24, 8, 8), (2, 36, 4, 4), (2, 24, 2, 2)]
    assert [tuple(x.shape) for x in deltas] == [(2, 16, 8, 8), (2, 24, 4, 4), (2, 16, 2, 2)]


def test_initial_weights_are_xavier_s_and_biases_nothing():
    head = tiny_head()
    for conv in (m for m in head.modules() if isinstance(m, nn.Conv2d)):
        bound = math.sqrt(6 / ((conv.in_channels + conv.out_channels) * 9))
        assert 0.9 * bound < conv.weight.abs().max() <= bound
        assert not conv.bias.any()


# ---------------------------------------------------------------------------------- the loss


def outputs(batch_size, seed=0, num_classes=3):
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(batch_size, 368, num_classes + 1, generator=generator)
    deltas = torch.randn(batch_size, 368, 4, generator=generator)
    return scores.requires_grad_(), deltas.requires_grad_()


def head_loss(head, scores, deltas, boxes, labels, ignored=None):
    """The two losses of plain lists of boxes and labels, one list per image."""
    return head.loss_by_feat(
        to_levels(scores),
        to_levels(deltas),
        [instances(b, label) for b, label in zip(boxes, labels)],
        image_metas(len(boxes)),
        None if ignored is None else [instances(b) for b in ignored],
    )


def assert_losses(losses, expected, scores, deltas):
    """Two scalars, and what they pass back, are the expected ones."""
    assert set(losses) == {'loss_cls', 'loss_bbox'}
    for loss, reference, inputs in zip(
        (losses['loss_cls'], losses['loss_bbox']), expected, (scores, deltas)
    ):
        assert loss.shape == ()
        torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
        ours = torch.autograd.grad(loss, inputs, retain_graph=True)
        theirs = torch.autograd.grad(reference, inputs, retain_graph=True)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('counts', [(1,), (3, 0, 6), (0, 1), (8, 4)])
def test_the_loss_is_the_naive_loop_over_images(counts):
    boxes = [clear_cut_boxes(n, seed, PRIORS) for seed, n in enumerate(counts)]
    labels = [[g % 3 for g in range(n)] for n in counts]
    scores, deltas = outputs(len(counts), seed=sum(counts))
    expected = naive_head_loss(scores, deltas, PRIORS, boxes, labels)
    assert_losses(head_loss(tiny_head(), scores, deltas, boxes, labels), expected, scores, deltas)


def test_one_matched_prior_divides_by_one():
    boxes, labels = [[], [[20.5, 21.0, 24.0, 23.0]]], [[], [1]]
    assert sum(g > 0 for g in naive_match(PRIORS, boxes[1])[0]) == 1
    scores, deltas = outputs(2)
    expected = naive_head_loss(scores, deltas, PRIORS, boxes, labels)
    assert_losses(head_loss(tiny_head(), scores, deltas, boxes, labels), expected, scores, deltas)


def test_the_method_s_coder_and_losses_are_the_default():
    head = tiny_head()
    config = dict(type='SSDMultiBoxHead', num_classes=3, in_channels=TINY_CHANNELS)
    default = MODELS.build(
        dict(config, anchor_generator=prior_config(TINY), train_cfg=head.train_cfg)
    )
    boxes, labels = [clear_cut_boxes(4, 1, PRIORS)], [[0, 1, 2, 0]]
    scores, deltas = outputs(1)
    expected = naive_head_loss(scores, deltas, PRIORS, boxes, labels)
    assert_losses(head_loss(default, scores, deltas, boxes, labels), expected, scores, deltas)


def test_negatives_on_ignored_objects_are_not_mined():
    boxes, labels = [clear_cut_boxes(2, 5, PRIORS), []], [[0, 1], []]
    ignored = [[[2.0, 2, 62, 30], [5, 5, 5, 9]], [[0.0, 0, 64, 64]]]
    scores, deltas = outputs(2)
    assigner = dict(type='BatchMaxIoUAssigner', ignore_iof_thr=0.5)
    head = tiny_head(train_cfg=dict(assigner=assigner))
    losses = head_loss(head, scores, deltas, boxes, labels, ignored)
    expected = naive_head_loss(scores, deltas, PRIORS, boxes, labels, ignored, 0.5)
    assert_losses(losses, expected, scores, deltas)
    assert losses['loss_cls'] < head_loss(tiny_head(), scores, deltas, boxes, labels)['loss_cls']


def test_an_assigner_that_does_not_say_what_it_ignores_gets_the_ignored_objects():
    head = tiny_head()
    matching, seen = head.assigner.assign_batch, []

    class Another:
        def assign_batch(self, *args):
            seen.append(args[-1])
            return matching(*args)

    head.assigner = Another()
    head_loss(head, *outputs(1), [[[5, 6, 30, 28]]], [[0]], ignored=[[[20, 20, 60, 60]]])
    assert seen[0].tolist() == [[[20, 20, 60, 60]]]


def test_images_may_come_without_ignored_objects():
    """MMDetection gives None for an image whose sample has none."""
    boxes = clear_cut_boxes(2, 5, PRIORS)
    scores, deltas = outputs(2)
    expected = head_loss(tiny_head(), scores, deltas, [boxes, boxes], [[0, 1], [2, 2]])
    truth = [instances(boxes, [0, 1]), instances(boxes, [2, 2])]
    for ignored in ([None, None], [instances([]), None]):
        losses = tiny_head().loss_by_feat(
            to_levels(scores), to_levels(deltas), truth, image_metas(2), ignored
        )
        assert losses == expected


def test_boxes_may_be_mmdetection_s_box_type():
    boxes, labels = clear_cut_boxes(2, 5, PRIORS), [0, 1]
    scores, deltas = outputs(1)
    expected = head_loss(tiny_head(), scores, deltas, [boxes], [labels], [[[2, 2, 62, 30]]])
    truth, ignored = instances(boxes, labels), instances([[2, 2, 62, 30]])
    truth.bboxes, ignored.bboxes = HorizontalBoxes(truth.bboxes), HorizontalBoxes(ignored.bboxes)
    losses = tiny_head().loss_by_feat(
        to_levels(scores), to_levels(deltas), [truth], image_metas(1), [ignored]
    )
    assert losses == expected


def test_weights_of_the_two_losses_multiply():
    boxes, labels = [clear_cut_boxes(3, 1, PRIORS)], [[0, 1, 2]]
    scores, deltas = outputs(1)
    plain = head_loss(tiny_head(), scores, deltas, boxes, labels)
    head = tiny_head(
        loss_cls=dict(type='HardNegativeMiningLoss', loss_weight=0.5),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=3.0),
    )
    weighted = head_loss(head, scores, deltas, boxes, labels)
    torch.testing.assert_close(weighted['loss_cls'], plain['loss_cls'] / 2)
    torch.testing.assert_close(weighted['loss_bbox'], plain['loss_bbox'] * 3)


def test_decoded_boxes_can_be_regressed():
    """With `reg_decoded_bbox` a prediction that decodes to the very box costs nothing."""
    boxes, labels = [clear_cut_boxes(2, 3, PRIORS)], [[0, 1]]
    matches, _ = naive_match(PRIORS, boxes[0])
    head = tiny_head(reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss'))
    coder = head.bbox_coder
    target = torch.tensor([boxes[0][max(g, 1) - 1] for g in matches])
    perfect = coder.encode(torch.tensor(PRIORS), target)[None]
    scores, random_deltas = outputs(1)
    at_best = head_loss(head, scores, perfect, boxes, labels)['loss_bbox']
    torch.testing.assert_close(at_best, torch.tensor(0.0), atol=1e-5, rtol=0)
    # Otherwise: the mean over the matched priors of 1 - GIoU of the decoded box.
    at_random = head_loss(head, scores, random_deltas, boxes, labels)['loss_bbox']
    positive = torch.tensor(matches) > 0
    decoded = coder.decode(torch.tensor(PRIORS)[positive], random_deltas[0, positive])
    giou = MODELS.build(dict(type='GIoULoss'))(decoded, target[positive])
    torch.testing.assert_close(at_random, giou)


def test_a_head_that_has_detected_in_inference_mode_can_be_trained():
    """What that mode makes can't be kept for a gradient, and priors are kept from call to call."""
    head = tiny_head(reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss'))
    scores, deltas = outputs(1)
    with torch.inference_mode():
        predict(scores, deltas, head=head)
    deltas.requires_grad_()
    losses = head_loss(head, scores, deltas, [clear_cut_boxes(2, 3, PRIORS)], [[0, 1]])
    losses['loss_bbox'].backward()
    assert deltas.grad.abs().sum() > 0


BOX_LOSSES = {
    name: (tiny_head(reg_decoded_bbox=True, loss_bbox=dict(type=name)), box_loss(naive))
    for name, naive in (
        ('IoULoss', iou_loss),
        ('GIoULoss', giou_loss),
        ('DIoULoss', diou_loss),
        ('CIoULoss', ciou_loss),
    )
}
corner, side = st.floats(-10, 60), st.floats(2, 50)
box = st.tuples(corner, corner, side, side).map(lambda v: [v[0], v[1], v[0] + v[2], v[1] + v[3]])
delta = st.lists(st.floats(-8, 8), min_size=4, max_size=4)


@settings(deadline=None, max_examples=100)
@given(prior=box, delta=delta, truth=box, name=st.sampled_from(sorted(BOX_LOSSES)))
def test_losses_of_decoded_boxes_are_their_formulas(prior, delta, truth, name):
    """Wherever the boxes lie, and whatever their shapes: values, and gradients to the offsets."""
    head, naive = BOX_LOSSES[name]
    offsets = torch.tensor([delta], dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        predicted = [float(v) for v in predicted_box(prior, offsets[0])]
    # Formulas have corners, where boxes have edges in common, and CIoU at an IoU of 0.5.
    edges = [(predicted[i], truth[j]) for i in range(4) for j in (i, (i + 2) % 4)]
    assume(all(abs(a - b) > 1e-3 for a, b in edges) and abs(iou(predicted, truth) - 0.5) > 1e-3)
    matched = torch.ones(1, 1, dtype=torch.bool)
    boxes = (torch.tensor([box], dtype=torch.float64) for box in (prior, truth))
    loss = head.box_loss(offsets[None], next(boxes), next(boxes)[None], matched)[0, 0]
    expected = naive(prior, offsets[0], truth)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    found, gradient = (
        torch.autograd.grad(value, offsets, allow_unused=True)[0] for value in (loss, expected)
    )
    torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-5)


def test_an_inner_loss_with_one_score_per_class_needs_no_background_score():
    """Sigmoid cross entropy: C scores a prior in the loss, and sigmoid scores in detections."""
    inner = dict(type='CrossEntropyLoss', use_sigmoid=True)
    head = tiny_head(loss_cls=dict(type='HardNegativeMiningLoss', loss=inner))
    scores, deltas = head(tiny_features(1))
    assert scores[0].shape[1] == 4 * 3
    boxes, labels = clear_cut_boxes(2, 3, PRIORS), [0, 2]
    loss = head.loss_by_feat(scores, deltas, [instances(boxes, labels)], image_metas(1))['loss_cls']

    flat = to_flat(scores, 3)[0]
    matches, _ = naive_match(PRIORS, boxes)
    target = [labels[g - 1] if g > 0 else 3 for g in matches]
    each = torch.stack([sigmoid_cross_entropy(s, t) for s, t in zip(flat, target)])
    positive = torch.tensor(target) < 3
    hardest = each[~positive].sort(descending=True).values[: 3 * positive.sum()]
    torch.testing.assert_close(loss, (each[positive].sum() + hardest.sum()) / positive.sum())

    best = head.predict_by_feat(scores, deltas, batch_img_metas=image_metas(1))[0]
    torch.testing.assert_close(best.scores[0], flat.sigmoid().max())


# ------------------------------------------------------------------------- real data has faults

FAULTS = {
    'no width': [[10, 10, 10, 30]],
    'no height': [[10, 10, 30, 10]],
    'a point': [[20, 20, 20, 20], [0, 0, 0, 0]],
    'inside out': [[30, 10, 10, 30], [30, 30, 10, 10]],
    'NaN': [[NAN, 10, 20, 30], [NAN] * 4],
    'infinite': [[10, 10, INF, 30], [-INF, -INF, INF, INF]],
    'left of the image': [[-20, 10, -2, 30]],
    'right of the image': [[66, 10, 90, 30]],
    'above the image': [[10, -30, 30, -3]],
    'below the image': [[10, 66, 30, 80]],
}


@pytest.mark.parametrize('bad', FAULTS.values(), ids=FAULTS)
def test_a_box_that_cannot_be_learned_leaves_the_loss_as_it_is_without_it(bad):
    good = clear_cut_boxes(3, 2, PRIORS)
    scores, deltas = outputs(3)
    expected = head_loss(tiny_head(), scores, deltas, [good, [], good[:1]], [[0, 1, 2], [], [2]])
    losses = head_loss(
        tiny_head(),
        scores,
        deltas,
        [bad + good, bad, good[:1] + bad],
        [[1] * len(bad) + [0, 1, 2], [0] * len(bad), [2] + [0] * len(bad)],
    )
    assert losses['loss_cls'] > 0 and losses['loss_bbox'] > 0
    assert_losses(losses, (expected['loss_cls'], expected['loss_bbox']), scores, deltas)


def test_the_image_is_the_image_and_not_its_padding():
    """An object beyond the image's own edge takes no part, though the batch is larger."""
    scores, deltas = outputs(1)
    boxes = instances([[4, 40, 20, 60]], [1])
    small = image_metas(1, shape=(32, 64))
    losses = tiny_head().loss_by_feat(to_levels(scores), to_levels(deltas), [boxes], small)
    assert losses['loss_cls'] == 0 and losses['loss_bbox'] == 0


number = st.one_of(
    st.floats(-100, 200, width=32),
    st.floats(width=32, allow_subnormal=True),
    st.sampled_from([NAN, INF, -INF, 0.0, 64.0, 1e-30, -1e-30, 3e38, -3e38]),
)


@settings(deadline=None, max_examples=60)
@given(boxes=st.lists(st.lists(number, min_size=4, max_size=4), max_size=4))
def test_no_box_whatever_turns_the_loss_or_its_gradient_to_nan(boxes):
    scores, deltas = outputs(1)
    losses = head_loss(tiny_head(), scores, deltas, [boxes], [[0] * len(boxes)])
    total = losses['loss_cls'] + losses['loss_bbox']
    assert total.isfinite()
    for gradient in torch.autograd.grad(total, [scores, deltas]):
        assert gradient.isfinite().all()


def test_a_batch_without_objects_has_no_loss_but_still_gradients():
    head = tiny_head()
    losses = head.loss_by_feat(*head(tiny_features(2)), [instances([])] * 2, image_metas(2))
    assert losses['loss_cls'] == 0 and losses['loss_bbox'] == 0
    sum(losses.values()).backward()
    for parameter in head.parameters():  # a distributed run waits for every one of them
        assert parameter.grad is not None and not parameter.grad.any()


def test_the_gradient_reaches_every_parameter():
    head = tiny_head()
    truth = [instances([[7, 7, 17, 17], [13, 13, 35, 35], [28, 28, 64, 64]], [0, 1, 2])] * 2
    losses = head.loss_by_feat(*head(tiny_features(2)), truth, image_metas(2))
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize(
    'dtype',
    [
        torch.bfloat16,
        pytest.param(
            torch.float16,
            marks=pytest.mark.skipif(
                torch.__version__ < (2, 3), reason='PyTorch autocasts to bfloat16 alone on a CPU'
            ),
        ),
    ],
)
def test_losses_under_autocast_are_those_of_the_rounded_scores(dtype):
    """Only the convolutions are rounded: the loss of their outputs is float32's."""
    head, features = tiny_head(), tiny_features(2)
    boxes = [clear_cut_boxes(3, 4, PRIORS), []]
    truth = [instances(boxes[0], [0, 1, 2]), instances([])]
    with torch.autocast('cpu', dtype=dtype):
        scores, deltas = head(features)
        assert scores[0].dtype == deltas[0].dtype == dtype
        losses = head.loss_by_feat(scores, deltas, truth, image_metas(2))
    flat = to_flat(scores, 4).detach().float(), to_flat(deltas, 4).detach().float()
    expected = naive_head_loss(*flat, PRIORS, boxes, [[0, 1, 2], []])
    torch.testing.assert_close(losses['loss_cls'].float(), expected[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(losses['loss_bbox'].float(), expected[1], rtol=1e-4, atol=0)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


# ---------------------------------------------------------------------------------- detections


def predict(scores, deltas, metas=None, head=None, **options):
    metas = image_metas(len(scores)) if metas is None else metas
    head = tiny_head(num_classes=scores.shape[-1] - 1) if head is None else head
    results = head.predict_by_feat(
        to_levels(scores.detach()), to_levels(deltas.detach()), batch_img_metas=metas, **options
    )
    assert len(results) == len(scores)
    return results


def assert_detections(result, expected, scale=(1.0, 1.0)):
    assert len(expected) == len(result.scores) == len(result.labels) == len(result.bboxes)
    assert result.labels.dtype == torch.int64
    factor = torch.tensor(scale * 2)
    boxes = torch.tensor([box for _, _, box in expected]).reshape(-1, 4)
    torch.testing.assert_close(result.scores, torch.tensor([s for s, _, _ in expected]))
    assert result.labels.tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(result.bboxes, boxes / factor, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('num_classes', [1, 3])
@pytest.mark.parametrize(('sharpness', 'background'), [(0.3, 0), (1, 0), (1, 5)])
def test_detections_are_those_of_the_naive_loop_over_classes(num_classes, sharpness, background):
    scores, deltas = outputs(2, seed=7, num_classes=num_classes)
    scores = scores.detach() * sharpness
    scores[..., -1] += background
    for image, result in enumerate(predict(scores, deltas)):
        expected = naive_predict(scores[image], deltas[image], PRIORS, (64, 64))
        assert 20 < len(expected) <= 200
        assert_detections(result, expected)


@pytest.mark.parametrize(
    'loss_cls',
    [
        dict(type='FocalLoss'),
        dict(type='HardNegativeMiningLoss', loss=dict(type='QualityFocalLoss')),
    ],
    ids=['alone', 'mined'],
)
def test_detections_of_sigmoid_scores_need_no_background(loss_cls):
    scores, deltas = outputs(2, seed=4, num_classes=2)  # three scores, of three classes
    scores = scores.detach() - 3
    head = tiny_head(num_classes=3, loss_cls=loss_cls)
    for image, result in enumerate(predict(scores, deltas, head=head)):
        expected = naive_predict(scores[image], deltas[image], PRIORS, (64, 64), sigmoid=True)
        assert 20 < len(expected) <= 200
        assert_detections(result, expected)


@pytest.mark.parametrize('loss_cls', [dict(type='HardNegativeMiningLoss'), dict(type='FocalLoss')])
def test_detection_leaves_the_maps_as_they_are_and_has_gradients_where_they_have(loss_cls):
    head = tiny_head(num_classes=3, loss_cls=loss_cls)
    scores, deltas = outputs(2, seed=4, num_classes=head.cls_out_channels - 1)
    maps = to_levels(scores.detach()), to_levels(deltas.detach())
    before = [level.clone() for part in maps for level in part]
    plain = head.predict_by_feat(*maps, batch_img_metas=image_metas(2))
    assert all(map(torch.equal, before, [level for part in maps for level in part]))
    differentiable = head.predict_by_feat(
        to_levels(scores), to_levels(deltas), batch_img_metas=image_metas(2)
    )
    for one, other in zip(plain, differentiable, strict=True):
        assert len(one) > 0
        for name in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(one[name], other[name].detach())
    sum(found.scores.sum() + found.bboxes.sum() for found in differentiable).backward()
    for flat in (scores, deltas):
        assert flat.grad.isfinite().all() and flat.grad.any()


@pytest.mark.parametrize(
    'changes',
    [
        dict(score_thr=0.9),
        dict(nms_pre=5),
        dict(iou_thr=0.1),
        dict(iou_thr=0.9, max_per_img=17),
        dict(nms_pre=1, max_per_img=2),
    ],
    ids=str,
)
def test_the_test_config_is_obeyed(changes):
    scores, deltas = outputs(1, seed=8)
    config = dict(TINY_TEST_CFG, **{k: v for k, v in changes.items() if k != 'iou_thr'})
    config['nms'] = dict(type='nms', iou_threshold=changes.get('iou_thr', 0.45))
    expected = naive_predict(scores[0], deltas[0], PRIORS, (64, 64), **changes)
    assert expected != naive_predict(scores[0], deltas[0], PRIORS, (64, 64))
    assert_detections(predict(scores, deltas, head=tiny_head(test_cfg=config))[0], expected)


def test_each_class_has_its_own_share_of_candidates():
    """A class of 368 confident priors does not push out one with a few doubtful ones."""
    scores, deltas = torch.zeros(1, 368, 3), torch.zeros(1, 368, 4)
    scores[..., 1] = -20
    scores[..., 0] = 1 + 4 * torch.rand(368, generator=torch.Generator().manual_seed(0))
    scores[0, 300, 1] = 6.0
    head = tiny_head(num_classes=2, test_cfg=dict(TINY_TEST_CFG, nms_pre=100))
    result = predict(scores, deltas, head=head)[0]
    assert (result.labels == 1).sum() == 1
    expected = naive_predict(scores[0], deltas[0], PRIORS, (64, 64), nms_pre=100)
    assert_detections(result, expected)


def test_half_precision_outputs_are_read_in_full_precision():
    """A model in bfloat16 rounds its outputs, but not the scores and boxes made of them."""
    scores, deltas = (x.detach().bfloat16() for x in outputs(1, seed=12))
    expected = naive_predict(scores[0].float(), deltas[0].float(), PRIORS, (64, 64))
    assert_detections(predict(scores, deltas)[0], expected)


def test_boxes_of_different_classes_do_not_suppress_each_other():
    scores, deltas = torch.zeros(1, 368, 3), torch.zeros(1, 368, 4)
    scores[..., 2] = 20  # background
    scores[0, 300] = torch.tensor([4.0, 3.9, 0.0])
    result = predict(scores, deltas)[0]
    assert result.labels.tolist() == [0, 1]
    assert torch.equal(result.bboxes[0], result.bboxes[1])


def test_a_score_has_to_exceed_the_threshold():
    scores, deltas = torch.zeros(1, 368, 2), torch.zeros(1, 368, 4)  # every score is 0.5
    kept = {}
    for threshold in (0.5, 0.4999):
        head = tiny_head(num_classes=1, test_cfg=dict(TINY_TEST_CFG, score_thr=threshold))
        kept[threshold] = len(predict(scores, deltas, head=head)[0])
    assert kept[0.5] == 0 and kept[0.4999] > 0


def test_an_image_without_detections_gives_empty_tensors():
    scores, deltas = outputs(2)
    scores = scores.detach().clone()
    scores[0, :, -1] = 50  # nothing but background
    empty, full = predict(scores, deltas)
    assert empty.bboxes.shape == (0, 4) and empty.scores.shape == empty.labels.shape == (0,)
    assert empty.labels.dtype == torch.int64
    assert len(full) > 0
    assert len(predict(scores[:1], deltas[:1], rescale=True)[0]) == 0


def test_images_of_a_batch_keep_to_their_own_size_and_scale():
    scores, deltas = outputs(3, seed=5)
    sizes = [((64, 64), (1.0, 1.0)), ((40, 64), (0.5, 0.25)), ((64, 33), (2.0, 1.5))]
    metas = [image_metas(1, shape, scale)[0] for shape, scale in sizes]
    for rescale in (False, True):
        results = predict(scores, deltas, metas, rescale=rescale)
        for image, (shape, scale) in enumerate(sizes):
            expected = naive_predict(scores[image], deltas[image], PRIORS, shape)
            assert_detections(results[image], expected, scale if rescale else (1.0, 1.0))


def test_an_overlap_near_the_threshold_is_the_same_anywhere_in_a_batch():
    """Sixteen pairs of boxes an image, half of them just under an IoU of 0.45, half just over."""
    head = tiny_head(num_classes=80)
    scores, deltas = torch.zeros(31, 368, 81), torch.zeros(31, 368, 4)
    scores[..., 80] = 20
    rng = random.Random(0)
    for pair in range(16):
        overlap = 0.4495 if pair % 2 else 0.4505
        x, y = 16 * (pair % 4) + rng.uniform(0, 2), 16 * (pair // 4) + rng.uniform(0, 2)
        shift = 8 * (1 - overlap) / (1 + overlap)
        for k, x1 in enumerate((x, x + shift)):
            p = 8 * pair + k
            box = torch.tensor([[x1, y, x1 + 8, y + 8]])
            deltas[:, p] = head.bbox_coder.encode(torch.tensor([PRIORS[p]]), box)
            scores[:, p, 79] = 21.0 + k
    for result in predict(scores, deltas, head=head):
        assert len(result) == 8 * 2 + 8


def test_mmcv_s_nms_gets_float32_as_the_compiled_one_needs(monkeypatch):
    """It reads float32 and refuses everything else; the stand-in for it would not mind."""
    module = importlib.import_module('mmcv.ops.nms').ext_module
    nms, seen = module.nms, []

    def strict(bboxes, scores, **options):
        seen.append((bboxes.dtype, scores.dtype))
        return nms(bboxes, scores, **options)

    monkeypatch.setattr(module, 'nms', strict)
    scores, deltas = outputs(1)
    # An option that only mmcv's NMS knows.
    config = dict(TINY_TEST_CFG, nms=dict(type='nms', iou_threshold=0.45, split_thr=100000))
    result = predict(scores, deltas, head=tiny_head(test_cfg=config))[0]
    assert seen == [(torch.float32, torch.float32)]
    assert_detections(result, naive_predict(scores[0], deltas[0], PRIORS, (64, 64)))


def test_without_nms_overlapping_candidates_stay():
    scores, deltas = torch.zeros(1, 368, 2), torch.zeros(1, 368, 4)
    scores[..., 1] = 20
    scores[0, 0:256:4, 0] = torch.linspace(19, 20, 64)  # the 64 small squares, 8 px apart
    scores[0, 1:256:4, 0] = torch.linspace(18, 19, 64)  # and the larger ones around them
    thinned, every = (predict(scores, deltas, with_nms=flag)[0] for flag in (True, False))
    assert len(every) == 128 > len(thinned)


def test_a_config_given_to_the_call_is_used_instead():
    scores, deltas = outputs(1, seed=9)
    head = tiny_head()
    config = type(head.test_cfg)(dict(TINY_TEST_CFG, max_per_img=3))
    assert_detections(
        predict(scores, deltas, head=head, cfg=config)[0],
        naive_predict(scores[0], deltas[0], PRIORS, (64, 64), max_per_img=3),
    )


def test_extreme_deltas_stay_in_the_image():
    scores, deltas = outputs(1)
    results = predict(scores, deltas * 1e4)[0]
    assert len(results) > 0
    assert results.bboxes.isfinite().all()
    assert results.bboxes.min() >= 0 and results.bboxes.max() <= 64


def test_what_the_loss_teaches_is_what_detection_reads():
    """Perfect scores and deltas for an image's objects give exactly its objects back."""
    boxes, labels = clear_cut_boxes(4, 6, PRIORS, smallest=12), [2, 0, 1, 2]
    head = tiny_head()
    matches, _ = naive_match(PRIORS, boxes)
    scores = torch.zeros(1, 368, 4)
    deltas = torch.zeros(1, 368, 4)
    for p, g in enumerate(matches):
        scores[0, p, labels[g - 1] if g > 0 else 3] = 15.0
        if g > 0:
            prior, box = torch.tensor([PRIORS[p]]), torch.tensor([boxes[g - 1]])
            deltas[0, p] = head.bbox_coder.encode(prior, box)[0]
    result = predict(scores, deltas, head=head)[0]
    found = sorted(zip(result.labels.tolist(), result.bboxes.tolist()))
    assert [label for label, _ in found] == sorted(labels)
    torch.testing.assert_close(
        torch.tensor([box for _, box in found]),
        torch.tensor([box for _, box in sorted(zip(labels, boxes))]),
        rtol=0,
        atol=1e-3,
    )
    assert head_loss(head, scores, deltas, [boxes], [labels])['loss_bbox'] < 1e-8


# ---------------------------------------------------------------------------- inside a detector


@MODELS.register_module(force=True)
class ThreeMaps(nn.Module):
    """A backbone of three convolutions: 64 px to maps of 8, 4 and 2."""

    def __init__(self):
        super().__init__()
        widths = (3, *TINY_CHANNELS)
        strides = (8, 2, 2)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, s + 1, stride=s, padding=s // 2)
            for a, b, s in zip(widths, widths[1:], strides)
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, x):
        maps = []
        for conv in self.convs:
            x = conv(x).relu()
            maps.append(x)
        return tuple(maps)


def tiny_detector(num_classes=3):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='SingleStageDetector',
            data_preprocessor=dict(type='SSDDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3),
            backbone=dict(type='ThreeMaps'),
            bbox_head=dict(
                type='SSDMultiBoxHead',
                num_classes=num_classes,
                in_channels=TINY_CHANNELS,
                anchor_generator=prior_config(TINY),
                bbox_coder=CODER,
            ),
            train_cfg=dict(
                assigner=dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)
            ),
            test_cfg=TINY_TEST_CFG,
        )
    )


def data(boxes, labels, scale=(1.0, 1.0)):
    """A batch as MMDetection's loader gives it: grey images, bright where an object is."""
    batch = dict(inputs=[], data_samples=[])
    for own, classes, meta in zip(boxes, labels, image_metas(len(boxes), scale=scale)):
        image = torch.full((3, 64, 64), 60, dtype=torch.uint8)
        for (x1, y1, x2, y2), c in zip(own, classes):
            image[c % 3, int(y1) : int(y2), int(x1) : int(x2)] = 230
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = instances(own, classes)
        sample.ignored_instances = instances([])
        batch['inputs'].append(image)
        batch['data_samples'].append(sample)
    return batch


MIXED = [[[5, 6, 30, 28], [36, 30, 58, 60]], [], [[20, 10, 40, 50]]]


@pytest.mark.parametrize('num_classes', [1, 3])
def test_a_detector_learns_to_find_what_it_is_shown(num_classes):
    """Eighty steps on three images, one of them empty; then it finds the objects in them."""
    model = tiny_detector(num_classes)
    model.init_weights()
    labels = [[0, 1 % num_classes], [], [2 % num_classes]]
    optimizer = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.01))
    logs = [model.train_step(data(MIXED, labels), optimizer) for _ in range(80)]
    assert logs[-1]['loss'] < 0.1 * logs[0]['loss']

    model.eval()
    results = model.test_step(data(MIXED, labels, scale=(0.5, 0.25)))  # to original pixels
    for result, boxes, classes in zip(results, MIXED, labels):
        sure = result.pred_instances[result.pred_instances.scores > 0.5]
        assert len(sure) == len(boxes)
        found = sorted(zip(sure.labels.tolist(), sure.bboxes.tolist()))
        for (label, box), (expected, truth) in zip(found, sorted(zip(classes, boxes))):
            assert label == expected
            distance = torch.tensor(box) * torch.tensor([0.5, 0.25] * 2) - torch.tensor(truth)
            assert distance.abs().max() < 4


def test_a_detector_answers_in_each_of_mmdetection_s_modes():
    model = tiny_detector()
    batch = model.data_preprocessor(data(MIXED, [[0, 1], [], [2]]), training=True)
    losses = model(**batch, mode='loss')
    assert set(losses) == {'loss_cls', 'loss_bbox'}
    model.eval()
    with torch.no_grad():
        scores, deltas = model(**batch, mode='tensor')
        results = model(**batch, mode='predict')
    direct = model.bbox_head.predict_by_feat(
        scores, deltas, batch_img_metas=[s.metainfo for s in batch['data_samples']], rescale=True
    )
    for result, own in zip(results, direct):
        assert len(own) > 0
        torch.testing.assert_close(result.pred_instances.bboxes, own.bboxes)
        torch.testing.assert_close(result.pred_instances.scores, own.scores)


def test_a_level_that_does_not_cover_the_image_is_refused():
    head = tiny_head()
    metas = image_metas(1)
    metas[0]['batch_input_shape'] = (64, 128)  # as if the image were twice as wide as the maps
    outputs = head(tiny_features(1))
    with pytest.raises(ValueError, match=r'level 0 is 8 cells wide, 64 pixels .* 128 pixels wide'):
        head.loss_by_feat(*outputs, [instances([[4, 4, 30, 30]])], metas)
    with pytest.raises(ValueError, match=r'anchor_generator\.strides\[0\] to 16'):
        head.predict_by_feat(*outputs, metas)


@pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_maps_are_flattened_in_the_order_of_the_priors_as_float32(memory, dtype):
    flat = torch.randn(2, 368, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    maps = [level.contiguous(memory_format=memory) for level in to_levels(flat)]
    found = flatten_levels(maps, 5)
    assert found.dtype == torch.float32
    assert torch.equal(found, flat.float())
