"""tools/detect.py beside MMDetection's own inferencer, on a few drawn shapes."""

import json
import re
import shutil
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.errors import CheckpointError, InputError
from ssd_plugin.inference.inferencer import StreamInferencer, build_inferencer
from ssd_plugin.inference.inputs import Image
from ssd_plugin.inference.stream import detect_stream
from tests.support.commands import ROOT, run_warm
from tests.support.videos import grey_frames, write_video

CONFIG, WEIGHTS, IMAGES = 'demo.py', 'weights.pth', 'data/shapes/JPEGImages'
FIELDS = 'labels', 'scores', 'bboxes'


@pytest.fixture(autouse=True)
def _clean(run):
    for folder in ('out', 'more', 'bad'):
        shutil.rmtree(folder, ignore_errors=True)


def read_images():
    """Paths and numbers of frames, in their order."""
    images = json.loads(Path('out/images.json').read_text())['images']
    return [(image['file_name'], image.get('frame_id')) for image in images]


def detections_of():
    """Detections (class, box xywh, score) by path."""
    coco = COCO('out/images.json')
    by_path = {image['file_name']: [] for image in coco.imgs.values()}
    for entry in json.loads(Path('out/detections.json').read_text()):
        path = coco.imgs[entry['image_id']]['file_name']
        name = coco.cats[entry['category_id']]['name']
        by_path[path].append((name, entry['bbox'], entry['score']))
    return by_path


def assert_same(found, expected):
    """The same detections of the same images, but for rounding."""
    assert sum(map(len, expected.values())) >= 10 and found.keys() == expected.keys()
    for path, detections in expected.items():
        for (name, *box_and_score), (wanted, box, score) in zip(
            sorted(found[path]), sorted(detections), strict=True
        ):
            assert name == wanted
            assert box_and_score == [pytest.approx(box, abs=0.02), pytest.approx(score, abs=1e-4)]


def test_detections_are_those_of_mmdetections_inferencer(run):
    output = run('detect', CONFIG, WEIGHTS, IMAGES, '--out', 'out', '--batch-size', 4)
    inferencer = DetInferencer(CONFIG, WEIGHTS, device='cpu', show_progress=False)
    paths = sorted(str(path) for path in Path(IMAGES).iterdir())
    expected = {}
    for path, found in zip(paths, inferencer(paths)['predictions']):
        expected[path] = [
            (CLASSES[label], [x1, y1, x2 - x1, y2 - y1], score)
            for label, score, (x1, y1, x2, y2) in zip(*map(found.get, FIELDS))
            if score >= 0.3
        ]
    written = detections_of()
    assert_same(written, expected)
    for detections in written.values():
        assert detections == sorted(detections, key=lambda d: -d[2])
    number = sum(map(len, expected.values()))
    assert f'10 images, {number} detections with a score of {0.3} or more' in output
    assert re.search(r'10/10 \d+\.\d images/s', output)
    assert output.splitlines()[-3:] == ['out/detections.json', 'out/images.json', 'out/vis']
    for path in paths:
        source, drawn = cv2.imread(path), cv2.imread(f'out/vis/{Path(path).name}')
        assert drawn.shape == source.shape
        assert (np.abs(drawn.astype(int) - source) > 60).any() == bool(expected[path])


def test_images_folders_and_a_video_at_once(run):
    shutil.copytree(IMAGES, 'more')
    write_video(Path('clip.mp4'), grey_frames(3))
    inputs = (f'{IMAGES}/000001.jpg', 'mo*/*[12].jpg', 'clip.mp4')
    run('detect', CONFIG, WEIGHTS, *inputs, '--out', 'out', '--batch-size', 2)
    paths = [f'{IMAGES}/000001.jpg', 'more/000001.jpg', 'more/000002.jpg']
    assert read_images() == [
        *((path, None) for path in paths),
        *(('clip.mp4', i) for i in range(3)),
    ]
    assert detections_of()['more/000001.jpg'] == detections_of()[f'{IMAGES}/000001.jpg']
    drawn = {path.relative_to('out/vis').as_posix() for path in Path('out/vis').rglob('*.*')}
    assert drawn == {*paths, 'clip.mp4'}


def test_voc_xml_is_read_back_by_data_root(run):
    run('detect', CONFIG, WEIGHTS, IMAGES, '--out', 'out', '--voc-xml', '--no-draw')
    written = sorted(path.name for path in Path('out').iterdir())
    assert written == ['detections.json', 'images.json', 'voc']
    source, all_found = recognise(Path('out/voc')), detections_of()
    assert source.kind == 'VOC' and len(source.reader.images) == 10
    for path in source.reader.images:
        image, found = source.read('train', path), all_found[f'{IMAGES}/{Path(path).name}']
        assert [o.name for o in image.boxes] == [name for name, *_ in found]
        for entry, (_, (x, y, w, h), _) in zip(image.boxes, found):
            assert entry.bbox == pytest.approx((x, y, x + w, y + h), abs=1)
        assert not image.faults


def test_images_that_can_not_be_read_are_skipped_and_named(run):
    Path('bad').mkdir()
    shutil.copy('image.jpg', 'bad/good.jpg')
    Path('bad/empty.jpg').touch()
    Path('bad/text.png').write_text('no image')
    output = run('detect', CONFIG, WEIGHTS, 'bad', '--out', 'out', '--batch-size', 2)
    assert '3/3' in output and '\n1 images' in output and '  bad/text.png: ' in output
    assert 'skipped 2, which could not be read:\n  bad/empty.jpg: the file is empty' in output
    assert read_images() == [('bad/good.jpg', None)]
    with pytest.raises(SystemExit, match='none of the 2 inputs could be read'):
        run('detect', CONFIG, WEIGHTS, 'bad/empty.jpg', 'bad/text.png', '--out', 'out')


def test_class_names_are_the_checkpoints_or_else_the_configs(run):
    cfg, names = Config.fromfile(CONFIG), CLASSES[::-1]
    weights = torch.load(WEIGHTS, weights_only=True)['state_dict']
    torch.save(dict(state_dict=weights, meta=dict(CLASSES=names)), 'other.pth')  # MMDetection 2
    assert StreamInferencer(cfg, 'other.pth').classes == names
    torch.save(dict(state_dict=weights), 'other.pth')
    assert StreamInferencer(cfg, 'other.pth').classes == CLASSES
    del cfg.test_dataloader.dataset.metainfo  # then they are VOC's 20
    with pytest.raises(CheckpointError, match='5 classes of the model and 20 names'):
        StreamInferencer(cfg, 'other.pth')


def test_a_data_set_in_wrappers_says_how_images_are_read(run):
    cfg = Config.fromfile(CONFIG)
    image = cv2.imread('image.jpg')
    (plain,) = StreamInferencer(cfg, WEIGHTS).detect([image])
    repeated = dict(type='RepeatDataset', times=2, dataset=cfg.test_dataloader.dataset)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[repeated])
    (wrapped,) = StreamInferencer(cfg, WEIGHTS).detect([image])
    assert len(plain) and np.array_equal(plain.bboxes, wrapped.bboxes)
    assert 'ConcatDataset' in cfg.pretty_text  # the config stays as it is


def test_an_exported_detector_finds_what_the_checkpoint_does(run, tmp_path):
    exported = tmp_path / 'real.onnx'
    run('export_onnx', CONFIG, WEIGHTS, exported)
    found, options = [], ('--out', 'out', '--no-draw', '--batch-size', 4, '--device', 'cpu')
    for checkpoint in (exported, WEIGHTS):
        run('detect', CONFIG, checkpoint, IMAGES, *options)
        found.append(detections_of())
    assert_same(*found)
    with pytest.raises(InputError, match='ONNX Runtime .*--device cpu'):  # no silent promise
        build_inferencer(Config.fromfile(CONFIG), str(exported), 'meta')


def test_no_more_than_a_batch_is_in_memory():
    class Nothing:
        def detect(self, images):
            return [InstanceData(bboxes=np.zeros((0, 4)), scores=np.zeros(0)) for _ in images]

    alive, most = weakref.WeakSet(), []

    class Pixels(np.ndarray):  # a plain array has no hash, which a WeakSet needs
        __hash__ = object.__hash__

    def stream():
        for i in range(40):
            pixels = np.zeros((4, 4, 3), np.uint8).view(Pixels)
            alive.add(pixels)
            yield Image(f'{i}.jpg', f'{i}.jpg', pixels)
            most.append(len(alive))

    (*_, tally) = detect_stream(Nothing(), stream(), [], batch_size=4, score_thr=0.3)
    assert (tally.images, tally.detections, tally.faults) == (40, 0, [])
    assert max(most) <= 2 * 4  # the last batch may wait for the next to be complete


def test_it_runs_as_a_command(demo_folder):
    write_video(demo_folder / 'grey.avi', grey_frames(2))
    options = ('grey.avi', '--out', 'as_command')
    said = run_warm(ROOT / 'tools/detect.py', CONFIG, WEIGHTS, *options, cwd=demo_folder)
    assert '2/2' in said and 'warn' not in said.lower()
    assert said.splitlines()[-1] == 'as_command/vis'
