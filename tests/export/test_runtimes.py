"""Exported files in other runtimes, as a user runs them: OpenVINO, and OpenCV's ``cv2.dnn``."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from ssd_plugin.export.check import check_file, compare, predict
from ssd_plugin.export.graph import BoxesAndScores, Detections, ScoresAndDeltas
from ssd_plugin.models.postprocess import detect
from tests.support.exported import drawn_images, export, lively_detector, read_config

SIZES = {'demo_shapes': 160, 'ssdlite320_mobilenetv2': 320, 'ssd300_voc': 300}
GRAPHS = dict(nms=Detections, no_nms=BoxesAndScores)


@pytest.fixture(scope='module', params=SIZES)
def exported(request, tmp_path_factory):
    """A detector, two images, and the detector's files of float32 input with and without NMS."""
    size = (SIZES[request.param],) * 2
    detector = lively_detector(read_config(request.param), size)
    folder = tmp_path_factory.mktemp(request.param)
    files = {
        name: export(detector, size, folder / f'{name}.onnx', torch.float32, graph)
        for name, graph in GRAPHS.items()
    }
    return detector, drawn_images(2, size, torch.float32), files


def batch(images):
    return np.stack([image['inputs'].numpy() for image in images])


def is_the_detector_s(outputs, detector, images, with_nms):
    """Whether a file's outputs for the images are the detections of the detector."""
    outputs = [torch.from_numpy(np.array(values)) for values in outputs]
    if with_nms:
        found = [
            InstanceData(bboxes=boxes, scores=scores, labels=labels)[labels >= 0]
            for boxes, scores, labels in zip(*outputs)
        ]
    else:
        boxes, scores = outputs
        found = detect(scores, boxes, boxes[0], Decoded(), detector.bbox_head.test_cfg)
    for ours, one in zip(predict(detector, images), found, strict=True):
        difference = compare(ours, one, detector.bbox_head.test_cfg)
        assert difference.is_small and difference.detections > 100, difference


class Decoded:
    def decode(self, priors, boxes):
        return boxes


@pytest.mark.parametrize('name', GRAPHS)
def test_onnx_runtime_detects_the_same(exported, name):
    detector, images, files = exported
    difference = check_file(files[name], detector, images)
    assert difference.is_small and difference.detections > 100


@pytest.mark.parametrize('name', GRAPHS)
def test_openvino_detects_the_same(exported, name):
    openvino = pytest.importorskip('openvino')
    detector, images, files = exported
    exact = {'INFERENCE_PRECISION_HINT': 'f32'}  # it computes in bfloat16 where the CPU can
    model = openvino.Core().compile_model(str(files[name]), 'CPU', exact)
    for some in (images, images[:1]):
        is_the_detector_s(model(batch(some)).values(), detector, some, name == 'nms')


@pytest.mark.skipif(int(cv2.__version__.split('.')[0]) < 5, reason='cv2.dnn of OpenCV 5')
def test_opencv_detects_the_same_with_the_file_without_nms(exported):
    detector, images, files = exported
    net = cv2.dnn.readNetFromONNX(str(files['no_nms']))
    for some in (images, images[:1]):
        net.setInput(batch(some), 'images')
        is_the_detector_s(net.forward(['boxes', 'scores']), detector, some, False)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_a_raw_file_decodes_to_the_same_detections(tmp_path, dtype):
    detector = lively_detector(read_config('demo_shapes'), (160, 160))
    path = export(detector, (160, 160), tmp_path / 'raw.onnx', dtype, ScoresAndDeltas)
    difference = check_file(path, detector, drawn_images(2, (160, 160), dtype))
    assert difference.is_small and difference.detections == 2 * 2 * 200
