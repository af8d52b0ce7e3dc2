"""tools/detect.py beside MMDetection's own inferencer, on a few drawn shapes."""

import json
import os
import re
import shutil
import signal
from argparse import Namespace
from collections import Counter
from itertools import count
from pathlib import Path
from threading import Barrier

import cv2
import detect as detect_tool
import numpy as np
import onnx
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from pycocotools.coco import COCO

from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.errors import CheckpointError, InputError
from ssd_plugin.inference.inferencer import StreamInferencer, build_inferencer
from ssd_plugin.inference.live import LiveStream
from ssd_plugin.inference.threads import PROBES
from tests.support.commands import ROOT, run_warm, start_warm, wait_until
from tests.support.served_stream import served_stream
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


def test_large_jpegs_are_detected_on_as_small_ones_in_their_own_pixels(run):
    small = cv2.imread(f'{IMAGES}/000001.jpg')
    height, width = small.shape[:2]
    large = cv2.resize(small, (10 * width, 10 * height), interpolation=cv2.INTER_CUBIC)
    assert large.size > 3 * 4_000_000
    Path('more').mkdir()
    cv2.imwrite('more/large.jpg', large, [cv2.IMWRITE_JPEG_QUALITY, 97])
    cv2.imwrite('more/small.png', small)
    found = []
    for options in ((), ('--no-draw',)):
        run('detect', CONFIG, WEIGHTS, 'more', '--out', 'out', *options)
        images = json.loads(Path('out/images.json').read_text())['images']
        assert [(i['width'], i['height']) for i in images] == [
            large.shape[1::-1],
            small.shape[1::-1],
        ]
        found.append(detections_of())
    whole, decoded_in_part = found
    assert whole['more/small.png'] == decoded_in_part['more/small.png']
    enlarged = [(n, np.multiply(box, 10), score) for n, box, score in whole['more/small.png'][:5]]
    for expected, limit in ((whole['more/large.jpg'][:10], 25), (enlarged, 60)):  # of 2800 pixels
        for name, box, score in expected:
            others = [d for d in decoded_in_part['more/large.jpg'] if d[0] == name]
            _, other, other_score = min(others, key=lambda d: np.abs(np.subtract(d[1], box)).max())
            assert np.abs(np.subtract(other, box)).max() < limit
            assert other_score == pytest.approx(score, abs=0.01)


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
    detector = build_inferencer(Config.fromfile(CONFIG), str(exported), 'cpu').model
    options = detector.session.get_session_options()
    assert options.get_session_config_entry('session.intra_op.allow_spinning') == '0'
    assert torch.get_num_threads() == 1  # PyTorch's and its threads do not wait for each other
    with pytest.raises(InputError, match='ONNX Runtime .*--device cpu'):  # no silent promise
        build_inferencer(Config.fromfile(CONFIG), str(exported), 'meta')


@pytest.fixture
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('_threads')
def test_two_threads_detect_on_an_image_each_and_find_what_one_does(run, tmp_path, monkeypatch):
    exported, detect = tmp_path / 'real.onnx', StreamInferencer.detect
    run('export_onnx', CONFIG, WEIGHTS, exported)
    by_threads = {}

    def together(self, images):
        if next(calls) >= PROBES:
            all_threads.wait()
        return detect(self, images)

    monkeypatch.setattr(StreamInferencer, 'detect', together)
    monkeypatch.setattr('ssd_plugin.inference.threads.LEAST', 0)
    for checkpoint in (WEIGHTS, exported):
        for threads in (1, 2):
            calls, all_threads = count(), Barrier(threads, timeout=60)
            torch.set_num_threads(threads)
            run('detect', CONFIG, checkpoint, IMAGES, '--out', 'out', '--device', 'cpu')
            assert next(calls) == 10  # an even number after the first four
            by_threads[threads] = detections_of()
        assert by_threads[1] == by_threads[2] and any(by_threads[1].values())


@pytest.mark.usefixtures('_threads')
@pytest.mark.parametrize(
    'device, source, workers',
    [('cpu', ['a.jpg'], 2), ('cpu', LiveStream, 1), ('cuda:0', ['a.jpg'], 1), ('no', [], 1)],
)
def test_only_files_are_shared_among_the_threads_of_a_cpu(device, source, workers):
    torch.set_num_threads(2)
    assert detect_tool.count_workers(Namespace(device=device), source) == workers
    assert torch.get_num_threads() == 2 // workers


def test_a_folder_that_can_not_be_written_is_told_in_one_line(run):
    Path('out/vis/000001.jpg').mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"^\[Errno 21\] Is a directory: 'out/vis/000001.jpg'$"):
        run('detect', CONFIG, WEIGHTS, IMAGES, '--out', 'out')


def test_ctrl_c_ends_it_at_once_and_leaves_whole_files(demo_folder, tmp_path):
    write_video(tmp_path / 'long.avi', grey_frames(10) * 300)
    out, said = tmp_path / 'out', tmp_path / 'said'
    options = ('--out', out, '--voc-xml', '--score-thr', 0)
    arguments = (demo_folder / CONFIG, demo_folder / WEIGHTS, 'long.avi', *options)
    process = start_warm(ROOT / 'tools/detect.py', *arguments, cwd=tmp_path, output=said)
    wait_until(lambda: len(list(out.glob('voc/Annotations/*'))) > 20, seconds=200)
    os.kill(process.pid, signal.SIGINT)
    process.join(10)
    assert process.exitcode == 130
    assert f'interrupted: what was written until then is in {out}' in said.read_text()
    assert 'Traceback' not in said.read_text()
    images = json.loads((out / 'images.json').read_text())['images']
    numbers = {entry['image_id'] for entry in json.loads((out / 'detections.json').read_text())}
    assert 20 < len(images) < 3000 and numbers <= {image['id'] for image in images}
    video, frames = cv2.VideoCapture(str(out / 'vis/long.avi.mp4')), 0
    while video.read()[0]:
        frames += 1
    assert frames == len(images) == len(list(out.glob('voc/Annotations/*')))
    assert all(cv2.imread(str(path)) is not None for path in out.glob('voc/JPEGImages/*'))


def test_show_writes_a_threshold_for_each_class(run):
    said = run('show', 'pr', CONFIG, WEIGHTS, '--best-thresholds', 'best/scores.json')
    assert tuple(json.loads(Path('best/scores.json').read_text())) == CLASSES
    assert 'best/scores.json' in said.splitlines()


def test_what_reaches_the_threshold_of_its_class_is_written(run):
    best = {name: 0.3 + 0.05 * label for label, name in enumerate(CLASSES)}
    Path('scores.json').write_text(json.dumps(best))
    run('detect', CONFIG, WEIGHTS, IMAGES, '--out', 'out', '--no-draw', '--score-thr', 0)
    expected = {
        path: [detection for detection in found if detection[2] >= best[detection[0]]]
        for path, found in detections_of().items()
    }
    options = ('--out', 'out', '--score-thr', 'scores.json')
    output = run('detect', CONFIG, WEIGHTS, IMAGES, *options)
    assert_same(detections_of(), expected)
    number = sum(map(len, expected.values()))
    wanted = 'the score that scores.json asks for'
    assert f'10 images, {number} detections with {wanted} or more' in output


def test_an_exported_file_carries_thresholds(run, tmp_path):
    exported = tmp_path / 'carries.onnx'
    run('export_onnx', CONFIG, WEIGHTS, exported)
    model = onnx.load(exported)
    by_class = dict.fromkeys(CLASSES, 1.0) | {CLASSES[0]: 0.35}
    model.metadata_props.add(key='score_thr', value=json.dumps(by_class))
    onnx.save(model, exported)
    options = (IMAGES, '--out', 'out', '--no-draw', '--device', 'cpu')
    said = run('detect', CONFIG, exported, *options)
    assert f'with the score that {exported} asks for or more' in said
    counts = Counter(name for found in detections_of().values() for name, *_ in found)
    assert set(counts) == {CLASSES[0]}
    run('detect', CONFIG, exported, *options, '--score-thr', 0.3)  # what is asked for goes first
    assert len({name for found in detections_of().values() for name, *_ in found}) > 1


def test_an_exported_file_of_another_size_is_refused_before_detecting(run, tmp_path):
    exported = tmp_path / 'real.onnx'
    run('export_onnx', CONFIG, WEIGHTS, exported)
    ratio = '--cfg-options', 'test_dataloader.dataset.pipeline.1.keep_ratio=True'
    for change, said in ((('--size', '192'), 'are 192 x 192'), (ratio, 'are of up to 160 x 160')):
        with pytest.raises(SystemExit, match=f'takes images of 160 x 160 pixels.*{said} pixels'):
            run('detect', CONFIG, exported, 'image.jpg', '--out', 'out', *change)


@pytest.mark.parametrize(
    'options, said',
    [
        (('--score-thr', '1.5'), '1.5 is no score from 0 to 1'),
        (('--score-thr', 'none.json'), "'none.json' is no number, and no such file"),
        (('--out', 'a.mp4', '--voc-xml'), '--out a.mp4 is the drawn video alone: name a folder'),
    ],
)
def test_options_that_do_not_fit_are_told_before_anything_is_imported(options, said, run, capsys):
    with pytest.raises(SystemExit):
        run('detect', CONFIG, WEIGHTS, IMAGES, '--out', 'out', *options)
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)


@pytest.mark.parametrize(
    'arguments, said',
    [
        (('0', IMAGES, '--out', 'out'), '^0 is a camera or a stream, and has to be the only input'),
        ((IMAGES, '--out', 'out.mp4'), '^--out out.mp4 takes one video, camera or stream'),
        (('a.mp4', '--out', 'a.mp4'), '^a.mp4 is where results are written: name another --out'),
        (('vis/1.jpg', '--out', '.'), '^vis/1.jpg is where results are written'),
        (('99', '--out', 'out'), "^99: OpenCV can't open this camera$"),
    ],
)
def test_inputs_that_do_not_fit_are_told_in_one_line(arguments, said, run):
    for name in ('a.mp4', 'vis/1.jpg'):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    with pytest.raises(SystemExit, match=said):
        run('detect', CONFIG, WEIGHTS, *arguments)


def test_without_a_display_show_is_refused(run, monkeypatch):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match='^--show: there is no display here'):
        run('detect', CONFIG, WEIGHTS, 'image.jpg', '--show')


def test_half_finds_the_same_or_is_refused_in_one_line(run, tmp_path):
    exported = tmp_path / 'any.onnx'
    exported.touch()
    with pytest.raises(SystemExit, match='has the precision that it was exported with'):
        run('detect', CONFIG, exported, 'image.jpg', '--out', 'out', '--half')
    try:
        halved = build_inferencer(Config.fromfile(CONFIG), WEIGHTS, 'cpu', half=True)
    except InputError as refusal:
        assert 'no instructions for bfloat16' in str(refusal)
        return
    image = cv2.imread('image.jpg')
    (whole,) = build_inferencer(Config.fromfile(CONFIG), WEIGHTS, 'cpu').detect([image])
    (half,) = halved.detect([image])
    assert (half.labels[:3] == whole.labels[:3]).all()
    assert 0 < np.abs(half.scores[:3] - whole.scores[:3]).max() < 0.05


def test_a_stream_is_drawn_into_a_video_until_it_is_ended(demo_folder, tmp_path):
    out, said = tmp_path / 'out.mp4', tmp_path / 'said'
    said.touch()
    with served_stream([40, 0] + [10**9]) as address:
        arguments = (demo_folder / CONFIG, demo_folder / WEIGHTS, address, '--out', out)
        process = start_warm(ROOT / 'tools/detect.py', *arguments, cwd=tmp_path, output=said)
        wait_until(lambda: 'try 2 of 5' in said.read_text(), seconds=200)
        wait_until(lambda: False, seconds=4)  # the pause of two seconds, and some frames
        os.kill(process.pid, signal.SIGTERM)
        process.join(10)
    assert process.exitcode == 130, said.read_text()
    assert f'{address} broke off: try 1 of 5 in 1 s\n' in said.read_text()
    assert 'Traceback' not in said.read_text()
    video, frames = cv2.VideoCapture(str(out)), []
    while (frame := video.read()[1]) is not None:
        frames.append(frame)
    assert len(frames) > 40 and frames[0].shape == (64, 96, 3)


def test_it_runs_as_a_command(demo_folder):
    write_video(demo_folder / 'grey.avi', grey_frames(2))
    options = ('grey.avi', '--out', 'as_command')
    said = run_warm(ROOT / 'tools/detect.py', CONFIG, WEIGHTS, *options, cwd=demo_folder)
    assert '2/2' in said and 'warn' not in said.lower()
    assert said.splitlines()[-1] == 'as_command/vis'
