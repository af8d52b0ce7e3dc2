"""Caffe's files: read in both of their forms, refused in one line, and detecting what OpenCV does.

The golden files are what OpenCV 4 detects with the same network and weights, by its own layers of
Caffe's SSD (tests/long/caffe_golden.py).
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS as DETECTORS
from mmdet.structures import DetDataSample
from mmengine.config import Config

from ssd_plugin.checkpoints.caffe import read_caffemodel
from ssd_plugin.checkpoints.convert import convert, recognise
from ssd_plugin.checkpoints.files import read
from ssd_plugin.errors import CheckpointError, MissingPackageError
from tests.long.caffe_golden import run_opencv
from tests.support.caffe_ssd import (
    MODELS,
    SEED,
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


@torch.no_grad()
def detect(name, file, seed):
    """Boxes (n, 4), scores (n,) and labels (n,) with the weights of a file, converted."""
    model = MODELS[name]
    state, meta = read(file)
    layout = recognise(state)
    assert str(layout) == f"caffe's SSD{model.side}"
    checkpoint = convert(state, layout, meta)
    config = 'ssd300_caffe_voc' if name == 'one_class' else name
    assert checkpoint['meta']['config'] == f'{config}.py'
    cfg = Config.fromfile(CONFIGS / f'{config}.py')
    cfg.model.backbone.init_cfg = None
    cfg.model.bbox_head.num_classes = checkpoint['meta']['num_classes']
    detector = DETECTORS.build(cfg.model).eval()
    detector.load_state_dict(checkpoint['state_dict'])
    image = torch.tensor(random_image(model.side, seed)).permute(2, 0, 1)
    side = (model.side, model.side)
    sample = DetDataSample(metainfo=dict(img_shape=side, ori_shape=side, scale_factor=(1, 1)))
    (found,) = detector.test_step(dict(inputs=[image], data_samples=[sample]))
    found = found.pred_instances
    return found.bboxes, found.scores, found.labels


def assert_agree(ours, theirs):
    """The same detections, boxes to 0.01 pixels and scores to 0.0001."""
    theirs = torch.tensor(theirs)
    theirs = theirs[:, 2:], theirs[:, 1], theirs[:, 0].long()
    assert_same_detections(ours, theirs, most=1e-2, num_classes=1)
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=1e-4)  # both sorted


@pytest.mark.parametrize('name', MODELS)
def test_converted_weights_detect_what_opencv_does(name, tmp_path):
    file = write(tmp_path / 'in.caffemodel', caffemodel(random_weights(MODELS[name], SEED)))
    theirs = np.load(GOLDEN / f'{name}.npz')['detections']
    assert_agree(detect(name, file, SEED), theirs)


@pytest.mark.skipif(int(cv2.__version__.split('.')[0]) > 4, reason='OpenCV 5 reads no Caffe files')
@pytest.mark.parametrize('name', MODELS)
def test_converted_weights_detect_what_this_opencv_does(name, tmp_path):
    seed = SEED + 1
    file = write(tmp_path / 'in.caffemodel', caffemodel(random_weights(MODELS[name], seed)))
    assert_agree(detect(name, file, seed), run_opencv(MODELS[name], file.read_bytes(), seed))


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


# -------------------------------------------------------------------------- what a file is not


def test_values_in_double_precision_are_read_and_an_empty_blob_is_empty(tmp_path):
    double = field(7, field(1, varint(2))) + field(8, np.array([0.5, -3]).tobytes())
    empty = field(7, field(1, varint(0)))
    state = read_caffemodel(write(tmp_path / 'in.caffemodel', one_layer(b'fc', double, empty)))
    assert state['fc.weight'].tolist() == [0.5, -3]
    assert state['fc.weight'].dtype == torch.float32
    assert state['fc.bias'].shape == (0,)


def shape(*sizes):
    return field(7, field(1, b''.join(map(varint, sizes))))


FLOATS = field(5, np.ones(4, np.float32).tobytes())
WHOLE = caffemodel({'conv': [np.ones((8, 3, 3, 3), np.float32), np.zeros(8, np.float32)]})
MISTAKES = {
    'a blob of 2^40 floats': (
        one_layer(b'conv', shape(2**20, 2**20) + FLOATS),
        "blob 0 of layer 'conv' has 4 values, its shape 1048576 x 1048576 takes 1099511627776",
    ),
    'an old blob of too many': (
        one_layer(b'conv', field(1, 2**30) + field(2, 2**10) + field(3, 1) + field(4, 1) + FLOATS),
        'has 4 values, its shape 1073741824 x 1024 x 1 x 1 takes 1099511627776',
    ),
    'a blob of too few': (one_layer(b'a', shape(3) + FLOATS), 'has 4 values, its shape 3 takes 3'),
    'no data': (one_layer(b'a', shape(3)), 'has 0 values, its shape 3 takes 3'),
    'half a float': (one_layer(b'a', shape(1) + field(5, b'12')), 'has 0.5 values'),
    'sizes below 0': (one_layer(b'a', shape(-2, -2) + FLOATS), 'which no blob has'),
    'too many axes': (one_layer(b'a', shape(*[1] * 99) + FLOATS), 'which no blob has'),
    'cut off': (WHOLE[:-5], 'is not a .caffemodel of Caffe, or it is cut off'),
    'text': (b'name: "VGG_SSD"\n', 'is not a .caffemodel of Caffe, or it is cut off'),
    'nothing': (b'', 'no layer in it has blobs'),
    'no weights': (caffemodel({}), 'no layer in it has blobs'),
}


@pytest.mark.parametrize('case', MISTAKES)
def test_a_file_with_a_mistake_is_one_line(case, tmp_path):
    content, said = MISTAKES[case]
    file = write(tmp_path / 'in.caffemodel', content)
    with pytest.raises(CheckpointError) as error:
        read(file)
    assert said in str(error.value)
    assert str(error.value).startswith(str(file))
    assert '\n' not in str(error.value)


def test_wherever_a_file_is_cut_off_it_is_noticed(tmp_path):
    for end in range(len(WHOLE)):
        file = write(tmp_path / 'in.caffemodel', WHOLE[:end])
        with pytest.raises(CheckpointError):
            state = read_caffemodel(file)
            convert(state, recognise(state, 'caffe'))


def test_a_file_of_another_network_names_what_is_wrong_with_it(tmp_path):
    state = read_caffemodel(write(tmp_path / 'in.caffemodel', WHOLE))
    with pytest.raises(CheckpointError, match=r"^conv1_1\.weight: caffe's SSD300 has shape"):
        convert(state, recognise(state, 'caffe'))


def test_a_file_larger_than_any_ssd_is_not_opened(tmp_path):
    file = tmp_path / 'in.caffemodel'
    with file.open('wb') as out:
        out.truncate(3 << 30)  # which takes no space
    with pytest.raises(CheckpointError, match='has 3072 MB, more than the weights of an SSD'):
        read(file)


def test_without_protobuf_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'google.protobuf.message', None)
    with pytest.raises(MissingPackageError, match='pip install protobuf'):
        read(write(tmp_path / 'in.caffemodel', WHOLE))
