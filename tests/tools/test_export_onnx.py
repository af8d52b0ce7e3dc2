"""tools/export_onnx.py, on drawn shapes and a detector with random weights; and its page."""

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import onnx
import pytest
import torch

from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.errors import InputError
from ssd_plugin.export import onnx_file, quantize
from ssd_plugin.export.onnx_runtime import OnnxDetector
from tests.support.commands import ROOT
from tests.support.config_rows import metrics_in


@pytest.fixture
def export(run, tmp_path):
    """Runs the command; answers the path of the file and what it prints."""

    def call(*options, images=('--images', 'image.jpg')):
        path = tmp_path / 'out.onnx'
        return path, run('export_onnx', 'demo.py', 'weights.pth', path, *images, *options)

    return call


def test_the_file_is_checked_on_drawn_images_where_there_are_no_data(export):
    nowhere = ('--cfg-options', 'test_dataloader.dataset.data_root=nowhere/')
    path, said = export(*nowhere, images=())
    signature, checked = said.splitlines()
    assert signature == (
        f'{path}: images (batch, 3, 160, 160) uint8 -> boxes (batch, 20, 4) float32, '
        'scores (batch, 20) float32, labels (batch, 20) int64'
    )
    assert f'agree on 4 drawn images, alone and in a batch: {2 * 4 * 20} detections' in checked
    boxes, scores = map(float, re.findall(r'up to (\S+?)[ ,]', checked))
    assert boxes <= 1e-2 and scores <= 1e-4
    assert OnnxDetector(path).dataset_meta == dict(classes=CLASSES)
    assert [*path.parent.iterdir()] == [path]


def test_the_file_is_checked_on_the_config_s_own_images(export):
    assert 'agree on 4 images of the test set' in export(images=())[1]


def test_images_are_named_as_files_folders_and_patterns(export, tmp_path):
    folder = 'data/shapes/JPEGImages'  # 10 images
    for names, number in (
        ([folder], 10), ([f'{folder}/00000[1-3].*', 'image.jpg'], 4), (['data/**/*.jpg'], 10)
    ):  # fmt: skip
        assert f'agree on {number} images, ' in export(images=('--images', *names))[1]
    for number in range(20):
        shutil.copy('image.jpg', tmp_path / f'{number}.jpg')
    assert 'agree on 16 images, ' in export(images=('--images', tmp_path))[1]
    with pytest.raises(SystemExit, match='nowhere: no such file or folder') as caught:
        export(images=('--images', 'nowhere'))
    assert '\n' not in caught.value.code


def test_boxes_and_scores_without_nms_of_real_images_where_the_pipeline_loads_them_so(export):
    real = 'test_dataloader.dataset.pipeline.0.to_float32=True'
    _, said = export('--no-nms', '--cfg-options', real)
    assert 'images (batch, 3, 160, 160) float32 -> boxes (batch, 2136, 4) float32, ' in said
    assert ', scores (batch, 2136, 5) float32\n' in said
    assert 'ONNX Runtime and PyTorch agree on 1 images, ' in said


def test_a_graph_that_answers_otherwise_is_not_written(export, tmp_path, monkeypatch):
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
        export()
    assert re.match(r'\S*out.onnx was not written: .* differ on 1 images', caught.value.code)
    assert '\n' not in caught.value.code
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named(export, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit) as caught:
        export()
    assert "onnx is not installed: pip install 'ssd-plugin[export]'" in caught.value.code


def test_the_page_s_program_detects_with_onnx_runtime_alone(export, capsys):
    path, _ = export()
    page = (ROOT / 'docs/export.md').read_text()
    (program,) = re.findall(r'```python\n(import json.*?)```', page, flags=re.DOTALL)
    assert 'ssd_plugin' not in program.replace("['ssd_plugin']", '')
    program = re.sub(r"imread\('.*?'\)", "imread('image.jpg')", program)
    exec(program.replace('0.3', '0.05').replace('ssd.onnx', str(path)), {})
    lines = capsys.readouterr().out.splitlines()
    image = cv2.imread('image.jpg')
    inputs = torch.from_numpy(cv2.resize(image, (160, 160))).permute(2, 0, 1)
    (found,) = OnnxDetector(path).detect([inputs])
    found = found[found.scores > 0.05]
    assert len(lines) == len(found) > 5
    name, score, *box = lines[0].split()
    assert name == CLASSES[found.labels[0]]
    assert float(score) == pytest.approx(found.scores[0].item(), abs=6e-3)
    expected = found.bboxes[0].numpy() * ([image.shape[1] / 160, image.shape[0] / 160] * 2)
    assert [*map(float, box)] == pytest.approx(expected, abs=0.06)


def test_the_file_carries_thresholds_and_takes_floats_where_it_is_told_to(export, tmp_path):
    path, said = export('--float32', '--score-thr', '0.4')
    assert 'images (batch, 3, 160, 160) float32 -> boxes (batch, 20, 4) float32' in said
    meta = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(meta['score_thr']) == dict.fromkeys(CLASSES, 0.4)
    (tmp_path / 'few.json').write_text('{"circle": 0.3}')
    with pytest.raises(SystemExit, match='few.json: no threshold for square') as caught:
        export('--score-thr', tmp_path / 'few.json')
    assert '\n' not in caught.value.code


def test_a_raw_file_has_scores_deltas_and_priors(export):
    path, said = export('--raw')
    assert '-> scores (batch, 2136, 5) float32, deltas (batch, 2136, 4) float32, ' in said
    assert ', priors (2136, 4) float32\n' in said
    with pytest.raises(InputError, match='exported with --raw'):
        OnnxDetector(path)


@pytest.mark.parametrize('most', [-1, 1])
def test_int8_shrinks_the_file_and_says_what_it_costs(most, export, run, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize, 'LOSS_TO_WARN_OF', most)  # of mAP, which is from 0 to 1
    path, said = export('--int8', 'data/shapes/JPEGImages')
    (before, after), (float_map, int8_map) = (
        map(float, re.search(rf'INT8: .*?([\d.]+) -> ([\d.]+) {what}', said).groups())
        for what in ('MB', 'on the test set')
    )
    assert after < before / 2
    assert (f'WARNING: INT8 LOSES {float_map - int8_map:.4f} ' in said) == (most < 0)
    run('test', 'demo.py', path, '--work-dir', tmp_path / 'tested')
    assert metrics_in(tmp_path / 'tested')['pascal_voc/mAP'] == pytest.approx(int8_map, abs=1e-4)


def test_int8_leaves_all_but_convolutions_and_the_first_of_these_in_float(export):
    missing = ('--cfg-options', 'test_dataloader.dataset.data_root=nowhere/')
    path, said = export('--int8', 'image.jpg', *missing)
    assert 'INT8: what it costs could not be measured: ' in said.splitlines()[-1]
    graph = onnx.load(path).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    first, *others = (node for node in graph.node if node.op_type == 'Conv')
    assert 'DequantizeLinear' not in (made_by.get(name) for name in first.input)
    assert others and all(
        made_by[name] == 'DequantizeLinear' for conv in others for name in conv.input[:2]
    )
    assert 'NonMaxSuppression' in made_by.values()
    assert OnnxDetector(path).dataset_meta == dict(classes=CLASSES)


COSTS = {  # what is told where the mAP can't be measured, and the file is there
    'no test set': ('test_dataloader = test_evaluator = test_cfg = None\n', 'no test_dataloader'),
    'no mAP': (
        "test_evaluator = dict(_delete_=True, type='DumpDetResults', out_file_path='found.pkl')\n",
        'the test evaluator gives no mAP for the float file',
    ),
}


@pytest.mark.parametrize('case', COSTS)
def test_an_int8_file_is_written_though_its_cost_can_not_be_measured(case, run, tmp_path):
    text, message = COSTS[case]
    config, path = tmp_path / 'changed.py', tmp_path / 'out.onnx'
    config.write_text(f'_base_ = [{str(Path("demo.py").resolve())!r}]\n{text}')
    said = run('export_onnx', config, 'weights.pth', path, '--int8', 'data/shapes/JPEGImages')
    assert 'INT8: what it costs could not be measured: ' in said and message in said
    assert OnnxDetector(path).dataset_meta == dict(classes=CLASSES)
    assert not list(tmp_path.glob('*.part*'))


def test_images_to_calibrate_on_are_read_before_anything_is_exported(export, monkeypatch):
    monkeypatch.setattr(onnx_file, 'build_onnx', None)
    with pytest.raises(SystemExit, match='nowhere: no such file or folder'):
        export('--int8', 'nowhere')


def test_an_image_of_the_test_set_that_can_not_be_read_is_left_out(export, tmp_path):
    shutil.copytree('data', tmp_path / 'data')
    images = sorted((tmp_path / 'data/shapes/JPEGImages').iterdir())
    images[-1].write_bytes(images[-1].read_bytes()[:500])
    options = '--cfg-options', f'test_dataloader.dataset.data_root={tmp_path}/data/shapes/'
    path, said = export(*options, images=())
    assert 'agree on 3 images of the test set' in said


@pytest.mark.parametrize('place', ['folder.onnx', 'locked/out.onnx'])
def test_where_it_can_not_be_written_is_told_before(place, run, tmp_path, monkeypatch):
    (tmp_path / 'folder.onnx').mkdir()
    (tmp_path / 'locked').mkdir()
    monkeypatch.setattr(os, 'access', lambda path, mode: path.name != 'locked')  # root may write
    monkeypatch.setattr(onnx_file, 'build_onnx', None)
    with pytest.raises(SystemExit, match=place) as caught:
        run('export_onnx', 'demo.py', 'weights.pth', tmp_path / place)
    assert 'is a folder' in caught.value.code or 'no permission' in caught.value.code
