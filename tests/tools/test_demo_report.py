"""The demo's last step: images with detections, and a summary."""

import json
import os
import sys
from pathlib import Path

import cv2
import demo_report
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from ssd_plugin.visualization.detections import draw_boxes
from tests.support.commands import ROOT
from tests.support.commands import run as run_cold
from tests.support.helpers import instances

CONFIG = 'demo_shapes.py'  # in the test's directory: the demo's, with few detections an image


def write_metrics(work_dir, time, metrics):
    path = work_dir / time / f'{time}.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(metrics))
    os.utime(path, (int(time), int(time)))


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A directory as the demo leaves it, with an untrained detector; its work dir."""
    monkeypatch.chdir(tmp_path)
    few = 'model = dict(test_cfg=dict(max_per_img=4))'
    Path(CONFIG).write_text(f'_base_ = [{str(ROOT / "configs" / CONFIG)!r}]\n{few}\n')
    write_voc_shapes('data/shapes', num_train=1, num_test=9)
    work_dir = tmp_path / 'work_dirs' / 'demo_shapes'
    write_metrics(work_dir, '100', {'pascal_voc/mAP': 0.125})
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(CONFIG).model)
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), work_dir / 'epoch_1.pth')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    return work_dir


def run(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['demo_report.py', *map(str, args)])
    demo_report.main()


def enlarged(name):
    """A test image in twice its size, without detections."""
    plain = cv2.imread(f'data/shapes/JPEGImages/{name}.jpg')
    return cv2.resize(plain, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def test_images_and_summary(demo, monkeypatch, capsys):
    run(monkeypatch, CONFIG, '--score-thr', 0.02)
    output = capsys.readouterr().out
    for part in ('0.125', 'demo_shapes/epoch_1.pth', 'demo_shapes/detections/detections.png'):
        assert part in output
    assert output.count(' tools/') == 4

    images = {path.stem: path for path in (demo / 'detections').iterdir()}
    sheet = cv2.imread(str(images.pop('detections')))
    assert sheet.shape[1] == 3 * (480 + 8)
    tested = Path('data/shapes/ImageSets/Main/test.txt').read_text().split()
    assert 4 <= len(images) <= 6 and set(images) <= set(tested)
    for name, path in images.items():
        drawn, plain = cv2.imread(str(path)), enlarged(name)
        assert drawn.shape == plain.shape
        changed = (abs(drawn.astype(int) - plain) > 8).any(axis=2).mean()
        assert 0.001 < changed < 0.9  # boxes and labels, on the same image


def test_it_runs_in_a_process_that_has_imported_nothing(demo, tmp_path):
    """As `make demo` runs it: with mmcv-lite, MMDetection can be imported after the plugin only."""
    said = run_cold(ROOT / 'tools/demo_report.py', CONFIG, '--num', 1, cwd=tmp_path)
    assert '0.125 at IoU 0.5' in said
    assert (demo / 'detections/detections.png').is_file()


def test_no_detection_leaves_the_image_as_it_is(demo, monkeypatch):
    run(monkeypatch, CONFIG, demo / 'epoch_1.pth', '--score-thr', 1, '--num', 1, '--out-dir', 'out')
    (name,) = (path.stem for path in Path('out').iterdir() if path.stem != 'detections')
    assert np.array_equal(cv2.imread(f'out/{name}.png'), enlarged(name))


def test_boxes_are_drawn_where_they_are_on_the_enlarged_image(demo, monkeypatch):
    found = instances([[50, 60, 130, 110], [0, 0, 9, 9]], [3, 0])
    found.scores = torch.tensor([0.9, 0.1])
    sample = DetDataSample(pred_instances=found)
    monkeypatch.setattr(DetInferencer, '__call__', lambda *_, **__: dict(predictions=[sample]))
    cfg, path = Config.fromfile(CONFIG), 'data/shapes/JPEGImages/000002.jpg'
    (cell,) = demo_report.detect(cfg, str(demo / 'epoch_1.pth'), [path], score_thr=0.5)
    assert cell.texts == ['star 0.90'] and cell.line == '000002.jpg'
    drawn = draw_boxes(cell.image, cell.bboxes, cell.texts, cell.colors)
    changed = (abs(drawn.astype(int) - enlarged('000002')) > 40).any(axis=2)
    rows, columns = np.nonzero(changed)  # of the surer box and its label, which may lie above
    assert abs(columns.min() - 100) < 5 and abs(columns.max() - 260) < 5
    assert abs(rows.max() - 220) < 5 and 80 < rows.min() < 125


def test_map_comes_from_the_newest_evaluation(tmp_path):
    for time, value in (('200', 0.25), ('300', 0.75), ('100', 0.5)):
        write_metrics(tmp_path, time, {'pascal_voc/mAP': value})
    write_metrics(tmp_path, '400', {'loss': 1.0})
    assert demo_report.read_map(tmp_path) == 0.75


REMEDIES = {
    'work_dirs/demo_shapes/last_checkpoint': 'run tools/train.py',
    'work_dirs/demo_shapes/epoch_1.pth': 'no checkpoint file',
    'work_dirs/demo_shapes/100/100.json': 'run tools/test.py',
    'data/shapes/ImageSets/Main/test.txt': 'python tools/prepare_data.py shapes data/shapes',
}


def test_what_is_missing_is_named_in_one_line(demo, monkeypatch):
    for gone, remedy in REMEDIES.items():
        Path(gone).rename('hidden')
        with pytest.raises(SystemExit) as caught:
            run(monkeypatch, CONFIG)
        assert remedy in caught.value.code and '\n' not in caught.value.code
        Path('hidden').rename(gone)
