"""tools/export_onnx.py, on drawn shapes and a detector with random weights; and its page."""

import re
import sys
from pathlib import Path

import cv2
import export_onnx
import onnx
import pytest
import torch

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from ssd_plugin.export import onnx_file
from ssd_plugin.export.runtime import OnnxDetector
from tests.support.commands import ROOT
from tests.support.exported import lively_detector, read_config

CONFIG = 'demo.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A directory with a config, a checkpoint, and one image of a user's."""
    folder = tmp_path_factory.mktemp('export_onnx')
    (folder / CONFIG).write_text(f'_base_ = [{str(ROOT / "configs/demo_shapes.py")!r}]\n')
    detector = lively_detector(read_config('demo_shapes'), (160, 160))
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=detector.state_dict(), meta=meta), folder / 'weights.pth')
    images = write_voc_shapes(folder / 'mine', num_train=0, num_test=1, seed=5)
    cv2.imwrite(str(folder / 'image.png'), cv2.imread(str(next(images.glob('JPEG*/*')))))
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Runs the command in that directory; answers what it prints."""
    monkeypatch.chdir(folder)

    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['export_onnx.py', *map(str, args)])
        export_onnx.main()
        return capsys.readouterr().out

    return call


def test_the_file_is_checked_on_drawn_images_where_there_are_no_data(run):
    said = run(CONFIG, 'weights.pth', 'out.onnx').splitlines()
    assert said[0] == (
        'out.onnx: images (batch, 3, 160, 160) uint8 -> boxes (batch, 200, 4) float32, '
        'scores (batch, 200) float32, labels (batch, 200) int64'
    )
    assert 'agree on 4 drawn images, alone and in a batch' in said[1]
    detections = int(re.search(r'(\d+) detections', said[1]).group(1))
    boxes, scores = map(float, re.findall(r'up to (\S+?)[ ,]', said[1]))
    assert detections > 400 and boxes <= 1e-2 and scores <= 1e-4
    assert OnnxDetector('out.onnx').dataset_meta == dict(classes=CLASSES)
    assert not list(Path().glob('*.part'))


def test_the_file_is_checked_on_the_config_s_own_images(run, folder):
    write_voc_shapes(folder / 'data/shapes', num_train=0, num_test=2)
    assert 'agree on 2 images of the test set' in run(CONFIG, 'weights.pth', 'own.onnx')
    said = run(CONFIG, 'weights.pth', 'own.onnx', '--images', 'image.png')
    assert 'agree on 1 images' in said


def test_boxes_and_scores_without_nms(run):
    said = run(CONFIG, 'weights.pth', 'raw.onnx', '--no-nms', '--images', 'image.png')
    assert 'boxes (batch, 2136, 4) float32, scores (batch, 2136, 5) float32\n' in said
    assert 'ONNX Runtime and PyTorch agree' in said


def test_real_images_where_the_pipeline_loads_them_so(run):
    option = 'test_dataloader.dataset.pipeline.0.to_float32=True'
    said = run(
        CONFIG, 'weights.pth', 'float.onnx', '--images', 'image.png', '--cfg-options', option
    )
    assert 'images (batch, 3, 160, 160) float32' in said


def test_names_of_classes_come_from_the_config_if_need_be(run, folder):
    loaded = torch.load('weights.pth')['state_dict']
    torch.save(loaded, 'bare.pth')
    (folder / 'data/shapes').mkdir(parents=True, exist_ok=True)
    run(CONFIG, 'bare.pth', 'bare.onnx', '--images', 'image.png')
    assert OnnxDetector('bare.onnx').dataset_meta == dict(classes=CLASSES)


def test_a_graph_that_answers_otherwise_is_not_written(run, monkeypatch):
    real = onnx_file.build_onnx

    def spoilt(*args):
        model = real(*args)
        for weight in model.graph.initializer:
            if 'reg_convs' in weight.name and weight.name.endswith('bias'):
                values = onnx.numpy_helper.to_array(weight) + 0.05
                weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr(onnx_file, 'build_onnx', spoilt)
    with pytest.raises(SystemExit) as caught:
        run(CONFIG, 'weights.pth', 'spoilt.onnx', '--images', 'image.png')
    assert re.match('spoilt.onnx was not written: .* differ on 1 images', caught.value.code)
    assert '\n' not in caught.value.code
    assert not list(Path().glob('spoilt*'))


@pytest.mark.parametrize(
    'args, said',
    [
        (['none.py', 'weights.pth', 'x.onnx'], 'no config file none.py'),
        ([CONFIG, 'none.pth', 'x.onnx'], 'no checkpoint file none.pth'),
        ([CONFIG, CONFIG, 'x.onnx'], f'{CONFIG} is not a checkpoint'),
        ([CONFIG, 'weights.pth', 'x.pt'], 'NAME.onnx, not x.pt'),
        ([CONFIG, 'weights.pth', 'none/x.onnx'], 'no folder none'),
        ([CONFIG, 'weights.pth', 'x.onnx', '--images', 'none.jpg'], 'none.jpg'),
        ([CONFIG, 'weights.pth', 'x.onnx', '--images', CONFIG], f'{CONFIG} is no image'),
        ([str(ROOT / 'configs/ssd512x288_r18_voc.py'), 'weights.pth', 'x.onnx'], 'does not fit'),
        (
            [CONFIG, 'weights.pth', 'x.onnx', '--cfg-options', 'model.test_cfg.score_thr=1'],
            'nothing is detected',
        ),
        (
            [CONFIG, 'weights.pth', 'x.onnx', '--cfg-options', 'model.test_cfg.nms.type=soft_nms'],
            'model.test_cfg.nms',
        ),
        (
            [CONFIG, 'weights.pth', 'x.onnx', '--cfg-options']
            + ['test_dataloader.dataset.pipeline.1.keep_ratio=True'],
            'keep_ratio=False',
        ),
    ],
)
def test_a_users_mistake_is_one_line(args, said, run):
    if '--images' not in args:
        args = [*args, '--images', 'image.png']
        if '--cfg-options' in args:
            args = [*args[:3], *args[-2:], *args[3:-2]]
    with pytest.raises(SystemExit) as caught:
        run(*args)
    assert said in caught.value.code and '\n' not in caught.value.code
    assert not list(Path().glob('x.onnx*'))


def test_what_is_not_installed_is_named(run, monkeypatch):
    monkeypatch.setattr(export_onnx.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit) as caught:
        run(CONFIG, 'weights.pth', 'x.onnx')
    assert "onnx is not installed: pip install 'ssd-plugin[export]'" in caught.value.code


def test_the_page_s_program_detects_with_onnx_runtime_alone(run, capsys):
    run(CONFIG, 'weights.pth', 'ssd.onnx', '--images', 'image.png')
    page = (ROOT / 'docs/export.md').read_text()
    (program,) = re.findall(r'```python\n(import json.*?)```', page, flags=re.DOTALL)
    assert 'ssd_plugin' not in program.replace("['ssd_plugin']", '')
    exec(program.replace('0.3', '0.05'), {})
    lines = capsys.readouterr().out.splitlines()
    image = cv2.imread('image.png')
    inputs = torch.from_numpy(cv2.resize(image, (160, 160))).permute(2, 0, 1)
    (found,) = OnnxDetector('ssd.onnx').detect([inputs])
    found = found[found.scores > 0.05]
    assert len(lines) == len(found) > 5
    name, score, *box = lines[0].split()
    assert name == CLASSES[found.labels[0]]
    assert float(score) == pytest.approx(found.scores[0].item(), abs=6e-3)
    scale = [image.shape[1] / 160, image.shape[0] / 160] * 2
    expected = [value * factor for value, factor in zip(found.bboxes[0].tolist(), scale)]
    assert [float(value) for value in box] == pytest.approx(expected, abs=0.06)
