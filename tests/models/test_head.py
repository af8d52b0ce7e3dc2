"""The head: MMDetection's parameters, the method's loss, the method's detections."""

import math
import random

import pytest
import torch
from mmcv.ops.nms import ext_module
from mmdet.registry import MODELS
from torch import nn

from ssd_plugin.models.head import flatten_levels
from tests.support import helpers as h
from tests.support.naive_losses import assert_head_loss, encode, naive_head_loss
from tests.support.tiny_detector import data, tiny_detector

SSDLITE = dict(use_depthwise=True, norm_cfg=dict(type='BN', eps=0.001), act_cfg=dict(type='ReLU6'))
STACKED = dict(stacked_convs=2, feat_channels=16, act_cfg=dict(type='ReLU'))


def both_heads(model, in_channels, num_classes, **arguments):
    """Our head and MMDetection's `SSDHead`, built with the same arguments."""
    coder = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])
    arguments.update(in_channels=in_channels, num_classes=num_classes, bbox_coder=coder)
    ours = h.prior_config(model)
    theirs = h.prior_config(model, type='SSDAnchorGenerator', scale_major=False)
    kinds = zip(('SSDMultiBoxHead', 'SSDHead'), (ours, theirs))
    return [MODELS.build(dict(type=k, anchor_generator=g, **arguments)) for k, g in kinds]


@pytest.mark.parametrize('arguments', [{}, SSDLITE, STACKED, SSDLITE | STACKED])
def test_a_checkpoint_of_mmdetection_s_head_loads_and_means_the_same(arguments):
    ours, theirs = both_heads(h.TINY, h.TINY_CHANNELS, 3, **arguments)
    theirs.init_weights()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    features = h.tiny_features(2)
    for mine, other in zip(ours.eval()(features), theirs.eval()(features)):
        assert len(mine) == 3
        torch.testing.assert_close(list(mine), list(other))


@pytest.mark.parametrize('name', ['SSD300 VOC', 'SSD300 COCO', 'SSD512 VOC'])
def test_the_published_models_parameters_have_mmdetection_s_names_and_shapes(name):
    in_channels = (512, 1024, 512, 256, 256, 256, 256)[: len(h.MODEL_TABLE[name]['strides'])]
    with torch.device('meta'):
        heads = both_heads(h.MODEL_TABLE[name], in_channels, 80 if 'COCO' in name else 20)
    ours, theirs = ({k: v.shape for k, v in head.state_dict().items()} for head in heads)
    assert ours == theirs
    assert 'cls_convs.0.0.weight' in ours


SIGMOID = h.mined(type='CrossEntropyLoss', use_sigmoid=True)


@pytest.mark.parametrize(
    ('loss_cls', 'num_scores'), [(None, 6), (dict(type='FocalLoss'), 5), (SIGMOID, 5)]
)
def test_the_forward_pass_gives_every_prior_its_scores_and_deltas(loss_cls, num_scores):
    """Sigmoids need no score of the background."""
    maps = h.tiny_head(num_classes=5, loss_cls=loss_cls)(h.tiny_features(2))
    for levels, width in zip(maps, (num_scores, 4), strict=True):
        shapes = [(2, per_cell * width, n, n) for per_cell, n in ((4, 8), (6, 4), (4, 2))]
        assert [tuple(level.shape) for level in levels] == shapes


@pytest.mark.parametrize('arguments', [{}, SSDLITE, STACKED, SSDLITE | STACKED])
def test_initial_weights_are_xavier_s_or_small_and_the_last_layers_of_both_kinds_small(arguments):
    head = h.tiny_head(**arguments)
    for name, conv in head.named_modules():
        if isinstance(conv, nn.Conv2d):
            size, is_last = math.prod(conv.kernel_size), name.count('.') == 2
            fan = (conv.in_channels + conv.out_channels) * size / 2
            bound = math.sqrt(3 / fan) * (1e-3 if is_last else 1)
            is_small = conv.groups > 1 or (is_last and arguments.get('use_depthwise'))
            if is_small:  # normal, as MMDetection's
                assert conv.weight.std().item() == pytest.approx(1e-3, rel=0.3)
            else:
                assert 0.9 * bound < conv.weight.abs().max() <= bound
            assert conv.bias is None or not conv.bias.any()


UNIFORM = 4 * math.log(4)  # three classes and background; three negatives for each positive
P = 0.01  # the first probability of a class where there is no score of background
# Of a positive: its own class's term, and two other classes; of a negative: three.
SIGMOIDS = {
    'CrossEntropyLoss': -math.log(P) - 2 * math.log(1 - P) + 3 * 3 * -math.log(1 - P),
    'FocalLoss': 0.25 * (1 - P) ** 2 * -math.log(P) + 11 * 0.75 * P**2 * -math.log(1 - P),
}


@pytest.mark.parametrize('arguments', [{}, SSDLITE, STACKED])
@pytest.mark.parametrize('scale', [1, 5])
def test_the_first_loss_is_that_of_uniform_scores_and_no_deltas(arguments, scale):
    head = h.tiny_head(**arguments)
    features = [scale * feature for feature in h.tiny_features(2)]
    truth = [h.instances([[4, 4, 40, 30], [20, 10, 60, 60]], [0, 2])] * 2
    scores, deltas = head(features)
    losses = head.loss_by_feat(scores, deltas, truth, h.image_metas(2))
    assert losses['loss_cls'].item() == pytest.approx(UNIFORM, rel=0.05)
    assert len(set(h.to_flat(scores, 4).flatten().tolist())) > 1000  # no ties for mining
    assert max(level.abs().max() for level in deltas) < 0.02


@pytest.mark.parametrize('kind', SIGMOIDS)
def test_the_first_sigmoids_are_those_of_rare_classes(kind):
    head = h.tiny_head(loss_cls=h.mined(type=kind, use_sigmoid=True))
    truth = [h.instances([[4, 4, 40, 30]], [1])] * 2
    losses = head.loss_by_feat(*head(h.tiny_features(2)), truth, h.image_metas(2))
    assert losses['loss_cls'].item() == pytest.approx(SIGMOIDS[kind], rel=0.05)


def test_an_initialisation_of_the_user_s_replaces_all_of_it():
    head = h.tiny_head(init_cfg=dict(type='Constant', layer='Conv2d', val=0.5, bias=2))
    for name, parameter in head.named_parameters():
        assert (parameter == (2 if name.endswith('bias') else 0.5)).all(), name


def test_a_second_initialisation_changes_nothing():
    head = h.tiny_head()
    before = [parameter.clone() for parameter in head.parameters()]
    head.init_weights()
    assert all(map(torch.equal, before, head.parameters()))


@pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_maps_are_flattened_in_the_order_of_the_priors_as_float32(memory, dtype):
    flat = torch.randn(2, 368, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    maps = [level.contiguous(memory_format=memory) for level in h.to_levels(flat)]
    found = flatten_levels(maps, 5)
    assert found.dtype == torch.float32
    assert torch.equal(found, flat.float())


def test_an_assigner_of_single_images_is_refused():
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)
    with pytest.raises(TypeError, match='MaxIoUAssigner has no assign_batch, use BatchMaxIoU'):
        h.tiny_head(train_cfg=dict(assigner=assigner))


@pytest.mark.parametrize(
    ('key', 'place'),
    [('neg_pos_ratio', 'bbox_head.loss_cls.neg_pos_ratio'), ('isr', 'PISASSDMultiBoxHead')],
)
def test_what_has_no_effect_in_train_cfg_is_refused_with_its_place(key, place):
    train_cfg = dict(assigner=dict(type='BatchMaxIoUAssigner'))
    with pytest.raises(ValueError, match=rf'train_cfg.{key} has no effect; it takes .*{place}'):
        h.tiny_head(train_cfg={**train_cfg, key: 3})


@pytest.mark.parametrize('nms', [None, dict(type='nms')])
def test_a_test_cfg_that_does_not_say_which_nms_to_do_is_refused_at_once(nms):
    with pytest.raises(ValueError, match='test_cfg has nms=.*; the paper has .*iou_threshold=0.45'):
        h.tiny_head(test_cfg=dict(score_thr=0.01, nms=nms))


def test_a_level_that_does_not_cover_the_image_is_refused():
    head, metas = h.tiny_head(), h.image_metas(1)
    metas[0]['batch_input_shape'] = (64, 128)  # as if the image were twice as wide as the maps
    outputs = head(h.tiny_features(1))
    with pytest.raises(ValueError, match=r'level 0 is 8 cells wide, 64 pixels .* 128 pixels'):
        head.loss_by_feat(*outputs, [h.instances([[4, 4, 30, 30]])], metas)
    with pytest.raises(ValueError, match='Another input size'):
        head.predict_by_feat(*outputs, metas)


def test_maps_may_come_from_any_iterable():
    head, feats = h.tiny_head().eval(), h.tiny_features(2)
    for found, expected in zip(head(iter(feats)), head(feats), strict=True):
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


def test_numbers_of_levels_that_differ_are_told():
    with pytest.raises(ValueError, match='in_channels has 2, anchor_generator 3'):
        h.tiny_head(in_channels=h.TINY_CHANNELS[:2])
    with pytest.raises(ValueError, match='2 feature maps, 3 in_channels, 3 in anchor_generator'):
        h.tiny_head()(h.tiny_features(1)[:2])


ONE_MATCH = dict(boxes=[[], [[20.5, 21.0, 24.0, 23.0]]], labels=[[], [1]])
IGNORED = [[[2.0, 2, 62, 30], [5, 5, 5, 9]], [[0.0, 0, 64, 64]]]
LOSS_CASES = {
    'an empty one among others': dict(counts=(3, 0, 6)),
    'an empty one first, and one matched prior': dict(ONE_MATCH, counts=(0, 1)),
    'ignored boxes': dict(counts=(2, 0), ignored=IGNORED),
}


@pytest.mark.parametrize('case', LOSS_CASES.values(), ids=LOSS_CASES)
def test_the_loss_is_the_naive_loop_over_images(case):
    """With the coder and the losses that are the default."""
    batch, iof = h.random_batch(**case), 0.5 if 'ignored' in case else -1
    expected = naive_head_loss(batch, ignore_iof_thr=iof)
    assigner = dict(type='BatchMaxIoUAssigner', ignore_iof_thr=iof)
    found = batch.head_loss(h.tiny_head(train_cfg=dict(assigner=assigner)))
    assert_head_loss(found, expected, batch, rtol=2e-5, atol=2e-6)
    if 'ignored' in case:
        assert found['loss_cls'] < naive_head_loss(batch)['loss_cls']
    if case.get('boxes') is ONE_MATCH['boxes']:
        assert sum(g > 0 for g in h.naive_match(h.PRIORS, batch.boxes[1])[0]) == 1


def test_weights_of_the_two_losses_multiply():
    batch = h.random_batch()
    loss_bbox = dict(type='SmoothL1Loss', beta=1.0, loss_weight=3.0)
    head = h.tiny_head(loss_cls=dict(h.mined(), loss_weight=0.5), loss_bbox=loss_bbox)
    plain, weighted = batch.head_loss(h.tiny_head()), batch.head_loss(head)
    torch.testing.assert_close(weighted['loss_cls'], plain['loss_cls'] / 2)
    torch.testing.assert_close(weighted['loss_bbox'], plain['loss_bbox'] * 3)


@pytest.mark.parametrize('boxes', [[], [[7, 7, 17, 17], [13, 13, 35, 35], [28, 28, 64, 64]]])
def test_the_gradient_reaches_every_parameter_and_is_0_without_boxes(boxes):
    """A distributed run waits for every one of them."""
    head = h.tiny_head()
    truth = [h.instances(boxes, range(len(boxes)))] * 2
    losses = head.loss_by_feat(*head(h.tiny_features(2)), truth, h.image_metas(2))
    sum(losses.values()).backward()
    assert all((loss > 0) == bool(boxes) for loss in losses.values())
    for name, parameter in head.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any() == bool(boxes), name


@pytest.mark.skipif(
    torch.__version__ < (2, 3), reason='PyTorch autocasts to bfloat16 alone on a CPU'
)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_losses_under_autocast_are_those_of_the_rounded_scores(dtype):
    """Only the convolutions are rounded: the loss of their outputs is float32's."""
    head, batch = h.tiny_head(), h.random_batch((3, 0))
    truth = list(map(h.instances, batch.boxes, batch.labels))
    with torch.autocast('cpu', dtype=dtype):
        scores, deltas = head(h.tiny_features(2))
        assert scores[0].dtype == deltas[0].dtype == dtype
        losses = head.loss_by_feat(scores, deltas, truth, h.image_metas(2))
    flat = dict(scores=h.to_flat(scores, 4).float(), deltas=h.to_flat(deltas, 4).float())
    expected = naive_head_loss(batch._replace(**flat))
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=0)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_a_head_that_has_detected_in_inference_mode_can_be_trained():
    """What that mode makes can't be kept for a gradient, and priors are kept from call to call."""
    head = h.tiny_head(reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss'))
    batch = h.random_batch()
    with torch.inference_mode():
        predict(batch.scores, batch.deltas, head=head)
    batch.head_loss(head)['loss_bbox'].backward()
    assert batch.deltas.grad.abs().sum() > 0


def outputs(batch_size, seed=0, num_scores=4):
    batch = h.random_batch((0,) * batch_size, num_scores, seed)
    return batch.scores.detach(), batch.deltas.detach()


def predict(scores, deltas, metas=None, head=None, **options):
    head = h.tiny_head(num_classes=scores.shape[-1] - 1) if head is None else head
    metas = h.image_metas(len(scores)) if metas is None else metas
    results = head.predict_by_feat(h.to_levels(scores), h.to_levels(deltas), metas, **options)
    assert len(results) == len(scores)
    return results


def assert_detections(result, expected, scale=(1.0, 1.0)):
    assert len(expected) == len(result.scores) == len(result.labels) == len(result.bboxes)
    assert result.labels.dtype == torch.int64
    boxes = torch.tensor([box for _, _, box in expected]).reshape(-1, 4)
    torch.testing.assert_close(result.scores, torch.tensor([s for s, _, _ in expected]))
    assert result.labels.tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(result.bboxes, boxes / torch.tensor(scale * 2), rtol=1e-4, atol=1e-3)


SOFTMAX_CASES = [(2, torch.float32, None), (4, torch.float32, None), (4, torch.bfloat16, None)]
SIGMOID_LOSSES = dict(type='FocalLoss'), h.mined(type='QualityFocalLoss')
DETECTION_CASES = SOFTMAX_CASES + [(3, torch.float32, loss) for loss in SIGMOID_LOSSES]


@pytest.mark.parametrize(('num_scores', 'dtype', 'loss_cls'), DETECTION_CASES)
@pytest.mark.parametrize(('sharpness', 'background'), [(0.3, 0), (1, 0), (1, 5)])
def test_detections_are_those_of_the_naive_loop_over_classes(
    num_scores, dtype, loss_cls, sharpness, background
):
    """Sigmoid scores need no background. Outputs in half precision are read in full precision."""
    scores, deltas = outputs(2, seed=7, num_scores=num_scores)
    scores *= sharpness
    if loss_cls:
        scores -= 3
    else:
        scores[..., -1] += background
    scores, deltas = scores.to(dtype), deltas.to(dtype)
    head = h.tiny_head(3 if loss_cls else num_scores - 1, loss_cls=loss_cls)
    for image, result in enumerate(predict(scores, deltas, head=head)):
        outputs_of_image = scores[image].float(), deltas[image].float()
        expected = h.naive_predict(*outputs_of_image, sigmoid=bool(loss_cls))
        assert 20 < len(expected) <= 200
        assert_detections(result, expected)


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('loss_cls', [h.mined(), dict(type='FocalLoss')])
def test_detection_leaves_the_maps_as_they_are_and_has_gradients_where_they_have(loss_cls, rescale):
    head = h.tiny_head(loss_cls=loss_cls)
    batch = h.random_batch((0, 0), head.cls_out_channels, seed=4)
    maps = [h.to_levels(flat.detach()) for flat in batch[:2]]
    before = [level.clone() for part in maps for level in part]
    plain = head.predict_by_feat(*maps, batch_img_metas=h.image_metas(2), rescale=rescale)
    assert all(map(torch.equal, before, [level for part in maps for level in part]))
    differentiable = predict(batch.scores, batch.deltas, head=head, rescale=rescale)
    for one, other in zip(plain, differentiable, strict=True):
        assert len(one) > 0
        for name in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(one[name], other[name].detach())
    sum(found.scores.sum() + found.bboxes.sum() for found in differentiable).backward()
    for flat in batch[:2]:
        assert flat.grad.isfinite().all() and flat.grad.any()


@pytest.mark.parametrize(
    'changes',
    [dict(score_thr=0.9), dict(iou_thr=0.1, nms_pre=5), dict(iou_thr=0.9, max_per_img=17)],
)
def test_the_test_config_is_obeyed_whether_the_head_has_it_or_the_call(changes):
    scores, deltas = outputs(1, seed=8)
    config = dict(h.TINY_TEST_CFG, **{k: v for k, v in changes.items() if k != 'iou_thr'})
    config['nms'] = dict(type='nms', iou_threshold=changes.get('iou_thr', 0.45))
    expected = h.naive_predict(scores[0], deltas[0], **changes)
    assert expected != h.naive_predict(scores[0], deltas[0])
    assert_detections(predict(scores, deltas, head=h.tiny_head(test_cfg=config))[0], expected)
    assert_detections(predict(scores, deltas, cfg=config)[0], expected)


def test_an_image_without_detections_gives_empty_tensors():
    scores, deltas = outputs(2)
    scores[0, :, -1] = 50  # nothing but background
    empty, full = predict(scores, deltas)
    assert empty.bboxes.shape == (0, 4) and empty.scores.shape == empty.labels.shape == (0,)
    assert empty.labels.dtype == torch.int64
    assert len(full) > 0
    assert len(predict(scores[:1], deltas[:1], rescale=True)[0]) == 0


def test_images_of_a_batch_keep_to_their_own_size_and_scale():
    scores, deltas = outputs(3, seed=5)
    sizes = [((64, 64), (1.0, 1.0)), ((40, 64), (0.5, 0.25)), ((64, 33), (2.0, 1.5))]
    metas = [h.image_metas(1, shape, scale)[0] for shape, scale in sizes]
    plain, rescaled = (predict(scores, deltas, metas, rescale=flag) for flag in (False, True))
    for image, (shape, scale) in enumerate(sizes):
        expected = h.naive_predict(scores[image], deltas[image], shape=shape)
        assert_detections(plain[image], expected)
        assert_detections(rescaled[image], expected, scale)


def test_an_overlap_near_the_threshold_is_the_same_anywhere_in_a_batch():
    """Sixteen pairs of boxes an image, half of them just under an IoU of 0.45, half just over."""
    scores, deltas = torch.zeros(31, 368, 81), torch.zeros(31, 368, 4)
    scores[..., 80] = 20
    rng = random.Random(0)
    for pair in range(16):
        overlap = 0.4495 if pair % 2 else 0.4505
        x, y = 16 * (pair % 4) + rng.uniform(0, 2), 16 * (pair // 4) + rng.uniform(0, 2)
        shift = 8 * (1 - overlap) / (1 + overlap)
        for p, x1 in ((8 * pair, x), (8 * pair + 1, x + shift)):
            deltas[:, p] = torch.tensor(encode(h.PRIORS[p], [x1, y, x1 + 8, y + 8]))
            scores[:, p, 79] = 21.0 + p % 2
    for result in predict(scores, deltas):
        assert len(result) == 8 * 2 + 8


def test_mmcv_s_nms_gets_float32_as_the_compiled_one_needs(monkeypatch):
    """It reads float32 and refuses everything else; the stand-in for it would not mind."""
    nms, seen = ext_module.nms, []

    def strict(bboxes, scores, **options):
        seen.append((bboxes.dtype, scores.dtype))
        return nms(bboxes, scores, **options)

    monkeypatch.setattr(ext_module, 'nms', strict)
    scores, deltas = outputs(1)
    # An option that only mmcv's NMS knows.
    config = dict(h.TINY_TEST_CFG, nms=dict(type='nms', iou_threshold=0.45, split_thr=100000))
    result = predict(scores, deltas, cfg=config)[0]
    assert seen == [(torch.float32, torch.float32)]
    assert_detections(result, h.naive_predict(scores[0], deltas[0]))


def test_what_the_loss_teaches_is_what_detection_reads():
    """Perfect scores and deltas for an image's boxes give exactly these boxes back."""
    boxes, labels = h.tiny_boxes(4, 6), [2, 0, 1, 2]
    scores, deltas = torch.zeros(1, 368, 4), torch.zeros(1, 368, 4)
    for p, g in enumerate(h.naive_match(h.PRIORS, boxes)[0]):
        scores[0, p, labels[g - 1] if g > 0 else 3] = 15.0
        if g > 0:
            deltas[0, p] = torch.tensor(encode(h.PRIORS[p], boxes[g - 1]))
    result = predict(scores, deltas)[0]
    found = sorted(zip(result.labels.tolist(), result.bboxes.tolist()))
    expected = sorted(zip(labels, boxes))
    assert [label for label, _ in found] == [label for label, _ in expected]
    for (_, box), (_, truth) in zip(found, expected):
        assert box == pytest.approx(truth, abs=1e-3)
    losses = h.Batch(scores, deltas, [boxes], [labels]).head_loss(h.tiny_head())
    assert losses['loss_bbox'] < 1e-8


def test_a_detector_answers_in_each_of_mmdetection_s_modes():
    model = tiny_detector()
    batch = model.data_preprocessor(data(model), training=True)
    assert set(model(**batch, mode='loss')) == {'loss_cls', 'loss_bbox'}
    model.eval()
    with torch.no_grad():
        scores, deltas = model(**batch, mode='tensor')
        results = model(**batch, mode='predict')
    metas = [sample.metainfo for sample in batch['data_samples']]
    direct = model.bbox_head.predict_by_feat(scores, deltas, metas, rescale=True)
    for result, own in zip(results, direct, strict=True):
        assert len(own) > 0
        torch.testing.assert_close(result.pred_instances.bboxes, own.bboxes)
        torch.testing.assert_close(result.pred_instances.scores, own.scores)
