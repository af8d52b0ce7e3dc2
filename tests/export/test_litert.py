"""Files for LiteRT, in LiteRT: in an environment of their own, as ``make test-matrix`` makes it."""

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

pytest.importorskip('litert_torch', reason='it pins packages: see tests/long/matrix.py')

from ssd_plugin.datasets.config import input_size
from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.errors import InputError
from ssd_plugin.export import litert
from ssd_plugin.export.check import check_file, compare, predict
from ssd_plugin.export.exported import open_exported
from ssd_plugin.export.graph import BoxesAndScores
from ssd_plugin.export.litert import LiteRTDetector, open_interpreter
from ssd_plugin.export.metadata import describe
from ssd_plugin.export.tflite_file import write_tflite
from tests.support import config_rows
from tests.support.exported import drawn_images, lively_detector, read_config

# Of configs that differ in their data alone, one; RetinaNet's head is not exported.
NAMES = [name for name in config_rows.NAMES if not name.endswith('coco') and 'retina' not in name]


def export(detector, size, path, classes=None):
    names = classes or tuple(f'class {c}' for c in range(detector.bbox_head.num_classes))
    meta = describe(detector, names, size, 'config.py', {names[0]: 0.5}, 'RGB')
    write_tflite(BoxesAndScores(detector, size), size, path, meta)
    return path


@pytest.mark.parametrize('name', NAMES)
def test_it_detects_the_same(name, tmp_path):
    cfg = read_config(name)
    size = input_size(cfg)
    detector = lively_detector(cfg, size)
    path = export(detector, size, tmp_path / 'ssd.tflite')
    difference = check_file(path, detector, drawn_images(2, size))
    assert difference.is_small and difference.detections > 100, difference


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """A detector, and its file."""
    detector = lively_detector(read_config('demo_shapes'), (160, 160))
    path = tmp_path_factory.mktemp('litert') / 'ssd.tflite'
    return detector, export(detector, (160, 160), path, CLASSES)


def test_a_program_without_this_package_has_names_and_hands_over_rgb(demo):
    from ai_edge_litert.interpreter import Interpreter

    detector, path = demo
    with zipfile.ZipFile(path) as archive:
        names = archive.read('labels.txt').decode().splitlines()
        meta = json.loads(archive.read('metadata.json'))
    assert tuple(names) == tuple(meta['classes']) == CLASSES
    assert meta['channel_order'] == 'RGB' and meta['input_size'] == [160, 160]
    assert meta['score_thr'] == {CLASSES[0]: 0.5}
    (image,) = drawn_images(1, (160, 160))
    rgb = image['inputs'].permute(1, 2, 0).flip(2).numpy()
    run = Interpreter(str(path)).get_signature_runner()
    outputs = run(images=rgb[None].astype(np.float32))
    with torch.no_grad():
        boxes, scores = BoxesAndScores(detector, (160, 160))(image['inputs'][None])
    np.testing.assert_allclose(outputs['boxes'], boxes, atol=1e-2)
    np.testing.assert_allclose(outputs['scores'], scores, atol=1e-4)


def test_images_of_a_batch_do_not_mix(demo):
    detector, path = demo
    images = drawn_images(3, (160, 160))
    found = LiteRTDetector(path, detector.bbox_head.test_cfg).detect([i['inputs'] for i in images])
    for ours, one in zip(predict(detector, images), found, strict=True):
        assert compare(ours, one, detector.bbox_head.test_cfg).is_small


def test_threads_do_not_mix(demo):
    detector, path = demo
    images = drawn_images(12, (160, 160))
    open_file = LiteRTDetector(path, detector.bbox_head.test_cfg)
    together = Barrier(3, timeout=60)

    def detect(image):
        together.wait()
        (found,) = open_file.detect([image['inputs']])
        return found

    with ThreadPoolExecutor(3) as pool:
        found = [*pool.map(detect, images)]
    for ours, one in zip(predict(detector, images), found, strict=True):
        assert compare(ours, one, detector.bbox_head.test_cfg).is_small


def test_each_thread_computes_with_the_threads_that_there_were(demo, monkeypatch):
    """Not with those that PyTorch has once the file is open, which are fewer."""
    detector, path = demo
    threads = []
    monkeypatch.setattr(
        litert, 'open_interpreter', lambda *args: threads.append(args[1]) or open_interpreter(*args)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        open_file = LiteRTDetector(path, detector.bbox_head.test_cfg)
        torch.set_num_threads(1)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(open_file.detect, [drawn_images(1, (160, 160))[0]['inputs']]).result()
    finally:
        torch.set_num_threads(before)
    assert threads == [3, 3]


def test_a_file_that_can_not_be_used_is_one_line(demo, tmp_path):
    text, foreign = tmp_path / 'text.tflite', tmp_path / 'foreign.tflite'
    text.write_text('no graph')
    with zipfile.ZipFile(foreign, 'w') as archive:
        archive.writestr('labels.txt', 'cat')
    for path, said in (
        (tmp_path / 'nothing.tflite', 'no file .*nothing.tflite'),
        (text, 'was not written by tools/export_tflite.py'),
        (foreign, 'was not written by tools/export_tflite.py'),
    ):
        with pytest.raises(InputError, match=said) as caught:
            open_exported(path, {})
        assert '\n' not in str(caught.value)
    with pytest.raises(InputError, match='has no NMS'):
        open_exported(demo[1])
