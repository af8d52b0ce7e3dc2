"""tools/detect.py beside MMDetection's own inferencer, on a few drawn shapes."""

import json
import re
import shutil
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.structures import InstanceData

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from ssd_plugin.inference.inferencer import StreamInferencer
from ssd_plugin.inference.inputs import Image
from ssd_plugin.inference.stream import detect_stream
from tests.inference.test_inputs import grey_frames, write_video
from tests.support.commands import run_warm

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'

import detect  # noqa: E402

CONFIG, WEIGHTS = 'demo.py', 'weights.pth'
THR = 0.22  # what some of an untrained detector's scores reach


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A directory with six images, a config and an untrained detector's checkpoint."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    folder = tmp_path_factory.mktemp('detect')
    write_voc_shapes(folder / 'shapes', num_train=4, num_test=2)
    config = f'_base_ = [{str(ROOT / "configs/demo_shapes.py")!r}]\n'
    (folder / CONFIG).write_text(f'{config}model = dict(test_cfg=dict(max_per_img=20))\n')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(folder / CONFIG).model)
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / WEIGHTS)
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Runs the command in that directory; answers what it prints."""
    monkeypatch.chdir(folder)
    shutil.rmtree('out', ignore_errors=True)

    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['detect.py', *map(str, args)])
        detect.main()
        return capsys.readouterr().out

    return call


def read(name, folder='out'):
    return json.loads(Path(folder, name).read_text())


def detections_of(folder='out'):
    """Detections (class, box xywh, score) by path."""
    images = {image['id']: image['file_name'] for image in read('images.json', folder)['images']}
    classes = {c['id']: c['name'] for c in read('images.json', folder)['categories']}
    by_path = {path: [] for path in images.values()}
    for entry in read('detections.json', folder):
        name = classes[entry['category_id']]
        by_path[images[entry['image_id']]].append((name, entry['bbox'], entry['score']))
    return by_path


def test_detections_are_those_of_mmdetections_inferencer(run):
    output = run(
        CONFIG, WEIGHTS, 'shapes/JPEGImages', '--out', 'out', '--score-thr', THR, '--batch-size', 4
    )
    inferencer = DetInferencer(CONFIG, WEIGHTS, device='cpu', show_progress=False)
    paths = sorted(str(path) for path in Path('shapes/JPEGImages').iterdir())
    expected = {}
    for path, found in zip(paths, inferencer(paths)['predictions']):
        expected[path] = [
            (CLASSES[label], [x1, y1, x2 - x1, y2 - y1], score)
            for label, score, (x1, y1, x2, y2) in zip(
                *map(found.get, ('labels', 'scores', 'bboxes'))
            )
            if score >= THR
        ]
    number = sum(map(len, expected.values()))
    written = detections_of()
    assert number >= 6 and written.keys() == expected.keys()
    for path, detections in expected.items():
        assert len(written[path]) == len(detections)
        for (name, box, score), (wanted, wanted_box, wanted_score) in zip(
            written[path], detections
        ):
            assert (name, score) == (wanted, pytest.approx(wanted_score, abs=1e-4))
            assert box == pytest.approx(wanted_box, abs=0.02)
    assert f'6 images, {number} detections with a score of {THR} or more' in output
    assert re.search(r'6/6 \d+\.\d images/s', output)
    assert output.splitlines()[-3:] == ['out/detections.json', 'out/images.json', 'out/vis']
    for path in paths:
        source, drawn = cv2.imread(path), cv2.imread(f'out/vis/{Path(path).name}')
        assert drawn.shape == source.shape
        assert (np.abs(drawn.astype(int) - source) > 60).any() == bool(expected[path])


def test_images_folders_and_a_video_at_once(run):
    shutil.copytree('shapes/JPEGImages', 'more')
    frames = [cv2.imread('more/000001.jpg') for _ in range(3)]
    write_video(Path('clip.mp4'), frames)
    run(
        CONFIG, WEIGHTS, 'shapes/JPEGImages/000001.jpg', 'mo*/*[12].jpg', 'clip.mp4',
        '--out', 'out', '--batch-size', 2, '--score-thr', THR,
    )  # fmt: skip
    images = [(i['file_name'], i.get('frame_id')) for i in read('images.json')['images']]
    assert images == [
        ('shapes/JPEGImages/000001.jpg', None),
        ('more/000001.jpg', None),
        ('more/000002.jpg', None),
        *(('clip.mp4', i) for i in range(3)),
    ]
    found = detections_of()
    assert found['more/000001.jpg'] == found['shapes/JPEGImages/000001.jpg']
    drawn = {path.relative_to('out/vis').as_posix() for path in Path('out/vis').rglob('*.*')}
    assert drawn == {
        'shapes/JPEGImages/000001.jpg', 'more/000001.jpg', 'more/000002.jpg', 'clip.mp4',
    }  # fmt: skip
    video = cv2.VideoCapture('out/vis/clip.mp4')
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and video.get(cv2.CAP_PROP_FPS) == 12.5
    assert video.read()[1].shape == frames[0].shape


def test_voc_xml_is_read_back_by_data_root(run):
    from ssd_plugin.datasets.own_data.recognise import recognise

    run(CONFIG, WEIGHTS, 'shapes/JPEGImages', '--out', 'out', '--voc-xml', '--no-draw',
        '--score-thr', THR)  # fmt: skip
    assert sorted(path.name for path in Path('out').iterdir()) == [
        'detections.json', 'images.json', 'voc',
    ]  # fmt: skip
    source = recognise(Path('out/voc'))
    assert source.kind == 'VOC' and len(source.everything) == 6
    for name in source.everything:
        image = source.read('train', name)
        found = detections_of()[f'shapes/JPEGImages/{name}.jpg']
        assert [o.name for o in image.objects] == [name for name, *_ in found]
        for entry, (_, (x, y, w, h), _) in zip(image.objects, found):
            assert entry.box == pytest.approx((x, y, x + w, y + h), abs=1)
        assert not image.faults


def test_images_that_can_not_be_read_are_skipped_and_named(run):
    Path('bad').mkdir()
    shutil.copy('shapes/JPEGImages/000001.jpg', 'bad/good.jpg')
    Path('bad/empty.jpg').touch()
    Path('bad/text.png').write_text('no image')
    output = run(CONFIG, WEIGHTS, 'bad', '--out', 'out', '--batch-size', 2)
    assert '3/3' in output and '\n1 images' in output
    assert 'skipped 2, which could not be read:\n  bad/empty.jpg: the file is empty' in output
    assert '  bad/text.png: ' in output
    assert [image['file_name'] for image in read('images.json')['images']] == ['bad/good.jpg']
    with pytest.raises(SystemExit, match='none of the 2 inputs could be read'):
        run(CONFIG, WEIGHTS, 'bad/empty.jpg', 'bad/text.png', '--out', 'out')


@pytest.mark.parametrize(
    'args, said',
    [
        (['none.py', WEIGHTS, 'shapes'], 'no config file none.py'),
        ([CONFIG, 'none.pth', 'shapes'], 'no checkpoint file none.pth'),
        ([CONFIG, 'none.onnx', 'shapes'], 'no checkpoint file none.onnx'),
        ([CONFIG, WEIGHTS, 'shapes'], 'shapes: no images in this folder'),
        ([CONFIG, WEIGHTS, 'shapes/*.gif'], 'shapes/*.gif: no such file or folder'),
        ([CONFIG, CONFIG, 'shapes/JPEGImages'], f'{CONFIG} is not a checkpoint of PyTorch'),
        ([CONFIG, WEIGHTS, 'shapes/JPEGImages', '--device', 'gpu'], 'device gpu: '),
        (
            [
                CONFIG,
                WEIGHTS,
                'shapes/JPEGImages',
                '--cfg-options',
                'model.bbox_head.num_classes=3',
            ],
            f'{WEIGHTS} does not fit the config: size mismatch for bbox_head.cls_convs.0.0.weight',
        ),
    ],
)
def test_a_users_mistake_is_one_line(args, said, run):
    with pytest.raises(SystemExit) as caught:
        run(*args, '--out', 'out')
    assert said in caught.value.code and '\n' not in caught.value.code
    assert not Path('out').exists()


# --- class names, and what fits --------------------------------------------------------------


def save(meta, path='other.pth', without=()):
    """A copy of the checkpoint with another ``meta``, without some parameters."""
    state = torch.load(WEIGHTS, weights_only=True)['state_dict']
    torch.save(
        dict(state_dict={k: v for k, v in state.items() if k not in without}, meta=meta), path
    )
    return path


def test_class_names_are_the_checkpoints_or_else_the_configs(run):
    cfg = Config.fromfile(CONFIG)
    names = ('a', 'b', 'c', 'd', 'e')
    assert StreamInferencer(cfg, save(dict(dataset_meta=dict(classes=names)))).classes == names
    assert StreamInferencer(cfg, save(dict(CLASSES=names))).classes == names  # MMDetection 2
    assert StreamInferencer(cfg, save({})).classes == CLASSES
    del cfg.test_dataloader.dataset.metainfo  # then they are VOC's 20
    with pytest.raises(ValueError, match='5 classes of the model and 20 names'):
        StreamInferencer(cfg, save({}))


def test_a_checkpoint_that_lacks_parameters_is_refused(run):
    lacking = save({}, without=['neck.extra_layers.0.0.conv.weight', 'backbone.conv1.weight'])
    with pytest.raises(ValueError) as caught:
        StreamInferencer(Config.fromfile(CONFIG), lacking)
    assert str(caught.value) == (
        'other.pth does not fit the config: it has no backbone.conv1.weight and 1 other parameters'
    )


def test_a_data_set_in_wrappers_says_how_images_are_read(run):
    cfg = Config.fromfile(CONFIG)
    image = cv2.imread('shapes/JPEGImages/000001.jpg')
    (plain,) = StreamInferencer(cfg, WEIGHTS).detect([image])
    inner = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=inner)]
    )
    (wrapped,) = StreamInferencer(cfg, WEIGHTS).detect([image])
    assert len(plain) and np.array_equal(plain.bboxes, wrapped.bboxes)
    assert 'ConcatDataset' in cfg.pretty_text  # the config stays as it is


# --- exported detectors ----------------------------------------------------------------------


class StandIn:
    """Finds in each image one object: its upper left quarter."""

    dataset_meta = dict(classes=('thing',))

    def __init__(self, path, providers=()):
        self.session = SimpleNamespace(get_providers=lambda: ['CPUExecutionProvider'])

    def test_step(self, data):
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            assert image.dtype == torch.uint8 and image.shape == (3, 160, 160)
            scale = torch.tensor(tuple(sample.scale_factor) * 2)
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor([[0.0, 0, 80, 80]]) / scale,
                scores=torch.tensor([0.75]),
                labels=torch.tensor([0]),
            )
        return data['data_samples']


def test_an_onnx_file_takes_the_models_place(run, monkeypatch):
    runtime = pytest.importorskip('ssd_plugin.export.runtime')
    monkeypatch.setattr(runtime, 'OnnxDetector', StandIn)
    Path('detector.onnx').touch()
    run(CONFIG, 'detector.onnx', 'shapes/JPEGImages', '--out', 'out', '--batch-size', 4)
    found = detections_of()
    assert len(found) == 6
    for path, detections in found.items():
        height, width = cv2.imread(path).shape[:2]
        assert detections == [('thing', pytest.approx([0, 0, width / 2, height / 2]), 0.75)]


def test_an_exported_detector_finds_what_the_checkpoint_does(run, monkeypatch):
    pytest.importorskip('onnxruntime')
    import export_onnx

    options = ['--cfg-options', 'test_dataloader.dataset.data_root=shapes/']
    monkeypatch.setattr(sys, 'argv', ['', CONFIG, WEIGHTS, 'real.onnx', *options])
    export_onnx.main()
    found = []
    for checkpoint in (WEIGHTS, 'real.onnx'):
        run(CONFIG, checkpoint, 'shapes/JPEGImages', '--out', 'out', '--no-draw',
            '--score-thr', THR, '--device', 'cpu')  # fmt: skip
        found.append({path: sorted(found) for path, found in detections_of().items()})
    expected, exported = found
    assert sum(map(len, expected.values())) >= 6 and expected.keys() == exported.keys()
    for path, detections in expected.items():
        assert [name for name, *_ in exported[path]] == [name for name, *_ in detections]
        for (_, box, score), (_, wanted_box, wanted_score) in zip(exported[path], detections):
            assert box == pytest.approx(wanted_box, abs=0.02)
            assert score == pytest.approx(wanted_score, abs=1e-4)


def test_cuda_is_no_silent_promise_for_an_onnx_file(run, monkeypatch):
    runtime = pytest.importorskip('ssd_plugin.export.runtime')
    monkeypatch.setattr(runtime, 'OnnxDetector', StandIn)
    monkeypatch.setattr(torch, 'empty', lambda *args, **kwargs: None)  # as if there were a GPU
    Path('detector.onnx').touch()
    with pytest.raises(SystemExit) as caught:
        run(CONFIG, 'detector.onnx', 'shapes/JPEGImages', '--out', 'out', '--device', 'cuda:0')
    assert 'ONNX Runtime' in caught.value.code and '--device cpu' in caught.value.code


# --- memory ----------------------------------------------------------------------------------


def test_no_more_than_a_batch_is_in_memory():
    class Nothing:
        def detect(self, images):
            nothing = InstanceData(
                bboxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0, np.int64)
            )
            return [nothing for _ in images]

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


def test_it_runs_as_a_command(folder):
    write_video(folder / 'grey.avi', grey_frames(2))
    said = run_warm(
        TOOLS / 'detect.py', CONFIG, WEIGHTS, 'grey.avi', '--out', 'as_command', cwd=folder
    )
    assert '2/2' in said and 'warn' not in said.lower()
    assert said.splitlines()[-1] == 'as_command/vis'
    said = run_warm(
        TOOLS / 'detect.py', CONFIG, WEIGHTS, 'none', '--out', 'x', cwd=folder, fails=True
    )
    assert said.splitlines()[-1].startswith('none: no such file') and 'Traceback' not in said
