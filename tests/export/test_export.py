"""The exported graph against the detector: the same detections, by ONNX Runtime and PyTorch."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate
from torch.overrides import TorchFunctionMode

from ssd_plugin.errors import ConfigError, InputError, MissingPackageError
from ssd_plugin.export.check import check_file, compare, predict
from ssd_plugin.export.graph import BoxesAndScores, Detections
from ssd_plugin.export.metadata import describe, normalisation
from ssd_plugin.export.nms import BatchedNMS, keep_highest
from ssd_plugin.export.onnx_runtime import OnnxDetector
from ssd_plugin.version import __version__
from tests.support.commands import ROOT
from tests.support.exported import drawn_images, export, lively_detector, read_config
from tests.support.helpers import naive_nms

DEMO_SIZE = (160, 160)


def run(path, samples):
    """The outputs of the file for a batch, by plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    images = np.stack([sample['inputs'].numpy() for sample in samples])
    return session.run(None, dict(images=images))


HEADS = {  # changes of the demo's model
    'softmax': {},
    'sigmoid': {'bbox_head.loss_cls': dict(type='CrossEntropyLoss', use_sigmoid=True)},
    'focal': {'bbox_head.loss_cls': dict(type='FocalLoss')},
    'few a class': {'test_cfg.nms_pre': 7},
    'few an image': {'test_cfg.max_per_img': 3},
    'no limits': {'test_cfg.nms_pre': -1, 'test_cfg.max_per_img': -1, 'test_cfg.score_thr': 0.3},
    'classes compete': {'test_cfg.nms.class_agnostic': True},
    'another overlap': {'test_cfg.nms.iou_threshold': 0.2, 'test_cfg.score_thr': 0.2},
    'not clipped': {'bbox_head.bbox_coder': dict(type='DeltaXYWHBBoxCoder', clip_border=False)},
    'padded': {'data_preprocessor.pad_size_divisor': 96},
    'few that overlap': {'test_cfg.max_per_img': 100, 'test_cfg.nms.iou_threshold': 0.01},
    'BGR': {'data_preprocessor.bgr_to_rgb': False},
    'nothing found': {'test_cfg.score_thr': 1},
}


@pytest.mark.parametrize('name', HEADS)
def test_settings_of_all_kinds_detect_the_same(name, tmp_path):
    """Score by score, and box by box whatever the order of equal scores."""
    cfg = read_config('demo_shapes', **HEADS[name])
    detector, images = lively_detector(cfg, DEMO_SIZE), drawn_images(3, DEMO_SIZE)
    path = export(detector, DEMO_SIZE, tmp_path / 'model.onnx')
    expected = predict(detector, images)
    assert sum(map(len, expected)) >= 9 * (name != 'nothing found')
    found = OnnxDetector(path).detect([image['inputs'] for image in images])
    for one, ours, boxes, scores, labels in zip(expected, found, *run(path, images)):
        number = len(one)
        assert (labels[:number] >= 0).all() and (labels[number:] == -1).all()
        assert not scores[number:].any() and not boxes[number:].any()
        np.testing.assert_allclose(scores[:number], one.scores, atol=1e-4)
        difference = compare(one, ours, detector.bbox_head.test_cfg)
        assert difference.is_small and difference.borderline == 0, difference


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """A detector of shapes and its file."""
    detector = lively_detector(read_config('demo_shapes'), DEMO_SIZE)
    path = tmp_path_factory.mktemp('export') / 'demo.onnx'
    return detector, export(detector, DEMO_SIZE, path, classes=('a', 'b', 'c', 'd', 'é'))


def test_without_nms_the_file_answers_boxes_and_scores_of_all_priors(demo, tmp_path):
    detector, _ = demo
    path = export(detector, DEMO_SIZE, tmp_path / 'raw.onnx', graph=BoxesAndScores)
    images = drawn_images(3, DEMO_SIZE)
    boxes, scores = run(path, images)
    assert boxes.shape == (3, 2136, 4) and scores.shape == (3, 2136, 5)
    with torch.no_grad():
        inputs = detector.data_preprocessor(pseudo_collate(images))['inputs']
        logits, _ = detector(inputs, mode='tensor')
    # The last prior of the last cell of all, and the second cell's first: 4 priors a cell.
    np.testing.assert_allclose(scores[2, -1], logits[-1][2, -6:, -1, -1].softmax(0)[:5], atol=1e-5)
    np.testing.assert_allclose(scores[0, 4], logits[0][0, :6, 0, 1].softmax(0)[:5], atol=1e-5)
    difference = check_file(path, detector, images)
    assert difference.is_small and difference.detections > 100


def test_a_file_is_told_from_one_of_other_weights_alone_and_in_a_batch(demo):
    (detector, path), images = demo, drawn_images(3, DEMO_SIZE)
    difference = check_file(path, detector, images)
    assert difference.is_small and difference.detections == 2 * 3 * 200
    other = lively_detector(read_config('demo_shapes'), DEMO_SIZE, seed=1)
    assert check_file(path, other, images).unmatched > 100


def test_the_file_says_what_it_is(demo):
    model = onnx.load(demo[1])
    onnx.checker.check_model(model, full_check=True)
    assert OnnxDetector(demo[1]).dataset_meta == dict(classes=('a', 'b', 'c', 'd', 'é'))
    meta = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(meta.pop('classes')) == ['a', 'b', 'c', 'd', 'é']
    assert json.loads(meta.pop('input_size')) == [160, 160]
    assert json.loads(meta.pop('mean')) == [127.5] * 3 and json.loads(meta.pop('std')) == [64] * 3
    assert json.loads(meta.pop('delta_stds')) == [0.1, 0.1, 0.2, 0.2]
    assert json.loads(meta.pop('delta_means')) == [0, 0, 0, 0]
    assert json.loads(meta.pop('test_cfg')) == read_config('demo_shapes').model.test_cfg
    assert meta == dict(channel_order='BGR', config='config.py', ssd_plugin=__version__)


@pytest.mark.parametrize('name', sorted(path.stem for path in (ROOT / 'configs').glob('*.py')))
def test_mean_and_std_normalise_an_image_as_the_network_does(name):
    preprocessor = MODELS.build(read_config(name).model.data_preprocessor)
    bgr = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    seen = preprocessor(dict(inputs=[bgr]))['inputs'][0, :, :8, :8]
    for order, image in (('BGR', bgr), ('RGB', bgr.flip(0))):
        meta = normalisation(preprocessor, order)
        mean, std = (torch.tensor(meta[key]).view(3, 1, 1) for key in ('mean', 'std'))
        values = (image - mean) / std
        assert any(torch.allclose(v, seen, atol=1e-4) for v in (values, values.flip(0)))


@pytest.mark.parametrize('kind', ['DetDataPreprocessor', 'SSDDataPreprocessor'])
def test_mean_and_std_are_in_the_order_of_the_images_channels_and_thresholds_by_class(kind):
    rgb = dict(type=kind, mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True)
    detector = lively_detector(read_config('demo_shapes', data_preprocessor=rgb), DEMO_SIZE)
    meta = describe(detector, ('a', 'é'), DEMO_SIZE, 'config.py', {'a': 0.2, 'é': 0.3})
    assert meta['mean'] == [3, 2, 1] and meta['std'] == [6, 5, 4]
    assert meta['score_thr'] == {'a': 0.2, 'é': 0.3}
    assert describe(detector, ('a',), DEMO_SIZE, '', channel_order='RGB')['mean'] == [1, 2, 3]


def test_it_takes_the_place_of_the_model_in_a_test_step(demo):
    detector, path = demo
    ours = OnnxDetector(path).test_step(pseudo_collate(drawn_images(2, DEMO_SIZE)))
    with torch.no_grad():
        theirs = detector.test_step(pseudo_collate(drawn_images(2, DEMO_SIZE)))
    for one, other in zip(ours, theirs):
        assert one.ori_shape == other.ori_shape != one.img_shape
        assert one.pred_instances.bboxes.max() > 165  # in pixels of the original image
        # In any order: two scores may be equal but for rounding.
        cfg = detector.bbox_head.test_cfg
        difference = compare(other.pred_instances, one.pred_instances, cfg)
        assert difference.is_small and not difference.borderline


def test_it_rounds_real_images_where_the_graph_takes_bytes(demo):
    detector = OnnxDetector(demo[1])
    image = drawn_images(1, DEMO_SIZE)[0]['inputs'].clamp(1, 254)
    exact, rounded = detector.detect([image])[0], detector.detect([image.float() + 0.4])[0]
    assert torch.equal(exact.scores, rounded.scores)


def test_an_image_of_another_size_is_an_error(demo):
    with pytest.raises(InputError, match=r'160 x 160 pixels .* \(3, 100, 160\)'):
        OnnxDetector(demo[1]).detect([torch.zeros(3, 100, 160)])


def test_a_file_that_can_not_be_used_is_one_clear_error(demo, tmp_path):
    text, foreign = tmp_path / 'text.onnx', tmp_path / 'foreign.onnx'
    text.write_text('no graph')
    model = onnx.load(demo[1])
    del model.metadata_props[:]
    onnx.save(model, foreign)
    raw = export(demo[0], DEMO_SIZE, tmp_path / 'raw.onnx', graph=BoxesAndScores)
    for path, said in (
        (tmp_path / 'nothing.onnx', 'no file .*nothing.onnx'),
        (text, 'text.onnx is no ONNX file'),
        (foreign, 'was not written by tools/export_onnx.py'),
        (raw, 'raw.onnx has no NMS'),
    ):
        with pytest.raises(InputError, match=said) as caught:
            OnnxDetector(path)
        assert '\n' not in str(caught.value)


def test_without_onnx_runtime_it_says_what_to_install(demo, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)  # importing it fails
    with pytest.raises(MissingPackageError, match=r"pip install 'ssd-plugin\[export\]'"):
        OnnxDetector(demo[1])


def test_suppression_is_the_naive_one_in_every_class_of_every_image():
    rng = torch.Generator().manual_seed(0)
    corners, sides = (torch.rand(2, 30, 2, generator=rng) * scale for scale in (50, 40))
    boxes, scores = torch.cat([corners, corners + sides], 2), torch.rand(2, 3, 30, generator=rng)
    left = BatchedNMS.apply(boxes, scores, 0.4, 0.3, 30)
    for image, label in np.ndindex(2, 3):
        values = scores[image, label]
        stay = naive_nms(boxes[image].tolist(), values.tolist(), 0.4)
        stay = sorted(i for i in stay if values[i] > 0.3)
        assert (left[image, label] >= 0).nonzero().flatten().tolist() == stay
        assert torch.equal(left[image, label, stay], values[stay])
    assert (left[left < 0] == -1).all()


def test_the_highest_scores_of_a_class_are_kept():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.4, 0.7], [0, 0, 0.3, 0, 0.2]]).repeat(2, 1, 1)
    scores[1, 0] = 0
    expected = scores.clone()
    expected[0, 0] = torch.tensor([-1, 0.9, 0.5, -1, 0.7])
    assert torch.equal(keep_highest(scores, 3, 0.05), expected)


def test_the_highest_are_never_asked_of_nothing():
    """ONNX Runtime up to 1.23 divides by the number of rows, which ends the process."""
    sizes = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.topk:
                sizes.append(args[0].numel())
            return function(*args, **kwargs or {})

    graph = Detections(lively_detector(read_config('demo_shapes'), DEMO_SIZE), DEMO_SIZE)
    nothing = torch.full((1, graph.num_priors, 5), 0.001)
    with Watch():
        _, scores, _ = graph.suppress(torch.rand(1, graph.num_priors, 4), nothing, 10**6)
    assert (scores < 0).all() and len(sizes) == 2 and all(sizes)


def detect_in_pytorch(graph, images):
    with torch.no_grad():
        return graph(torch.stack([image['inputs'] for image in images]))


def test_the_graph_in_pytorch_detects_the_same(demo):
    detector, _ = demo
    images = drawn_images(2, DEMO_SIZE)
    _, scores, labels = detect_in_pytorch(Detections(detector, DEMO_SIZE), images)
    for one, ours, label in zip(predict(detector, images), scores, labels):
        torch.testing.assert_close(ours[label >= 0], one.scores, atol=1e-5, rtol=0)


@pytest.mark.skipif(torch.__version__ < '2.6', reason='torch.export takes it from 2.6 on')
def test_torch_export_takes_the_graph_with_nms_for_batches_of_any_size():
    cfg = read_config('demo_shapes', **HEADS['few a class'])
    detector = lively_detector(cfg, DEMO_SIZE)
    graph = Detections(detector, DEMO_SIZE)
    two = torch.zeros(2, 3, *DEMO_SIZE, dtype=torch.uint8)
    batch = dict(images={0: torch.export.Dim('batch')})
    program = torch.export.export(graph, (two,), dynamic_shapes=batch).module()
    for number in (1, 3):
        images = drawn_images(number, DEMO_SIZE)
        expected, found = (detect_in_pytorch(g, images) for g in (graph, program))
        for ours, theirs in zip(expected, found):
            assert torch.equal(ours, theirs)
        assert (found[1] > 0).sum() > 10 * number


def test_other_heads_and_other_suppression_are_refused():
    detector = lively_detector(read_config('demo_shapes'), DEMO_SIZE)
    detector.bbox_head.test_cfg.nms.type = 'soft_nms'
    with pytest.raises(ConfigError, match='model.test_cfg.nms is .*soft_nms.*--no-nms'):
        Detections(detector, DEMO_SIZE)
    detector.bbox_head = torch.nn.Identity()
    with pytest.raises(ConfigError, match='no SSDMultiBoxHead in model.bbox_head, but Identity'):
        BoxesAndScores(detector, DEMO_SIZE)
