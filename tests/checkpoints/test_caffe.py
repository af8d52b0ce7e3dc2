"""Caffe's files: read in both of their forms, refused in one line, and detecting what OpenCV does.

The golden files are what OpenCV 4 detects with the same network and weights, by its own layers of
Caffe's SSD (tests/long/caffe_golden.py).
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS as DETECTORS
from mmdet.structures import DetDataSample
from mmengine.config import Config

from ssd_plugin.checkpoints.caffe import read_caffemodel
from ssd_plugin.checkpoints.convert import convert, recognise
from ssd_plugin.checkpoints.files import Weights, read
from ssd_plugin.errors import CheckpointError, MissingPackageError
from tests.support.caffe_ssd import (
    MODELS,
    SEED,
    blob,
    caffemodel,
    field,
    random_image,
    random_weights,
    varint,
)
from tests.support.weights import assert_same_detections

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
GOLDEN = Path(__file__).parent / 'golden'


def one_layer(name, *blobs):
    """A file with a layer of these blobs."""
    return field(100, field(1, name) + b''.join(field(7, content) for content in blobs))


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize('name', MODELS)
def test_converted_weights_detect_what_opencv_does(name, tmp_path):
    model = MODELS[name]
    file = write(tmp_path / 'in.caffemodel', caffemodel(random_weights(model, SEED)))
    state, meta = read(file)
    layout = recognise(state)
    assert str(layout) == f"caffe's SSD{model.side}"
    checkpoint = convert(state, layout, meta)
    assert checkpoint['meta']['config'] == f'{name}.py'

    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.model.backbone.init_cfg = None
    detector = DETECTORS.build(cfg.model).eval()
    detector.load_state_dict(checkpoint['state_dict'])
    image = torch.tensor(random_image(model.side, SEED)).permute(2, 0, 1)
    side = (model.side, model.side)
    sample = DetDataSample(metainfo=dict(img_shape=side, ori_shape=side, scale_factor=(1, 1)))
    with torch.no_grad():
        (found,) = detector.test_step(dict(inputs=[image], data_samples=[sample]))
    found = found.pred_instances
    theirs = torch.tensor(np.load(GOLDEN / f'{name}.npz')['detections'])
    theirs = (theirs[:, 2:], theirs[:, 1], theirs[:, 0].long())
    assert len(found) == 200
    pixels = (found.bboxes, found.scores, found.labels)
    assert_same_detections(pixels, theirs, most=1e-2)
    torch.testing.assert_close(found.scores, theirs[1], rtol=0, atol=1e-4)  # sorted, both


@pytest.mark.parametrize('old', [False, True], ids=['today', 'before 2014'])
def test_both_forms_of_the_file_have_the_same_weights(old, tmp_path):
    weights = random_weights(MODELS['ssd300_caffe_voc'], SEED)
    state = read_caffemodel(write(tmp_path / 'in.caffemodel', caffemodel(weights, old)))
    expected = {
        f'{layer}.{part}': values
        for layer, blobs in weights.items()
        for part, values in zip(('weight', 'bias'), blobs)
    }
    assert state.keys() == expected.keys()
    for name, values in expected.items():
        assert state[name].dtype == torch.float32
        assert np.array_equal(state[name].numpy(), values), name
