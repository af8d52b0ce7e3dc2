"""The benchmark's part on detection: who detects, on what, and what is charged to which stage."""

import importlib.util
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from _bench import detect, detectors, report
from _bench.timing import ALL, Stopwatch
from mmengine.config import Config
from rich.console import Console

from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.export.graph import BoxesAndScores
from tests.support.commands import ROOT
from tests.support.exported import export, lively_detector, read_config
from tests.support.videos import write_video

SIZE = (160, 160)
PEERS = ['DetInferencer']


@pytest.fixture(scope='module')
def files(demo_folder, tmp_path_factory):
    """A checkpoint, and its files with and without NMS."""
    model = lively_detector(read_config('demo_shapes', **{'test_cfg.max_per_img': 20}), SIZE)
    folder = tmp_path_factory.mktemp('files')
    paths = [str(demo_folder / 'weights.pth'), str(folder / 'ssd.onnx'), str(folder / 'raw.onnx')]
    export(model, SIZE, Path(paths[1]), classes=CLASSES)
    export(model, SIZE, Path(paths[2]), graph=BoxesAndScores, classes=CLASSES)
    return paths


def settings(demo_folder, files, **changes):
    paths = sorted(map(str, demo_folder.glob('data/shapes/JPEGImages/*')))
    given = dict(models=files, paths=paths, device='cpu', batches=[2], threads=[1])
    return detect.Settings(Config.fromfile(demo_folder / 'demo.py'), **given | changes)


def test_every_file_is_timed_from_files_and_from_memory_beside_its_peers(
    demo_folder, files, tmp_path, monkeypatch
):
    monkeypatch.chdir(demo_folder)
    monkeypatch.setattr(detect, 'TURN', 0)
    threads = []
    stopwatch = Stopwatch(
        repeats=1, warmup=0, tell=lambda *_: threads.append(torch.get_num_threads())
    )
    cases = detect.run(stopwatch, settings(demo_folder, files), tmp_path)
    assert set(threads) == {1}
    names = ['weights.pth', 'ssd.onnx', 'raw.onnx']
    if importlib.util.find_spec('openvino'):
        names[1:] = ['ssd.onnx', 'ssd.onnx, OpenVINO', 'raw.onnx', 'raw.onnx, OpenVINO']
    kinds = 'from files, drawn', 'from files', 'from memory'
    timed, stages = cases[: len(kinds)], cases[len(kinds) :]
    assert [case.name for case in timed] == [f'{kind}, batch 2, 1 thread' for kind in kinds]
    for case in timed:
        assert [*case.samples] == names + PEERS and case.facts['images'] == 2
        assert case.base == 'weights.pth' and all(min(s) > 0 for s in case.samples.values())
    # What was drawn and written, by ours and by MMDetection's.
    assert len([*tmp_path.glob('vis/*.jpg')]) == len([*tmp_path.glob('mmdet/vis/*.jpg')]) == 2
    assert (tmp_path / 'detections.json').stat().st_size > 1000

    assert [case.name for case in stages] == [f'{name}, batch 2, 1 thread' for name in names]
    for case in stages:
        parts = [case.median(stage) for stage in detect.STAGES]
        assert sum(parts) == pytest.approx(case.median(ALL)) and min(parts) > 0
    console = Console(width=200, record=True)
    report.print_part(console, 'detect', cases)
    text = console.export_text()
    rows = text[text.index('stages if none overlaps') :].splitlines()
    assert [row[:20].strip() for row in rows if '%)' in row] == names
    assert 'times weights.pth' in text


def test_all_detect_the_same_in_memory(demo_folder, files, monkeypatch):
    monkeypatch.chdir(demo_folder)
    given = settings(demo_folder, files)
    job = detectors.Job([], detect.decode(given.paths, 3), 2, Path())
    expected = None
    for who, detector in detectors.make_detectors(given.cfg, given.models, 'cpu', 1).items():
        if who in PEERS:
            images = [image.pixels for image in job.images]
            found = detector.inferencer(images, 2)['predictions']
            found = [one['scores'] for one in found]
        else:
            found = [one.scores for one in detector.from_memory(job)]
        expected = expected or found
        assert [*map(len, found)] == [20, 20, 20]
        assert all(a == pytest.approx(b, abs=1e-4) for a, b in zip(found, expected)), who


@pytest.mark.parametrize('name, peer', [
    ('ssd300_coco', 'ssd300_vgg16'),
    ('ssdlite320_mobilenetv2_coco', 'ssdlite320_mobilenet_v3_large'),
    ('ssd512_coco', None),
    ('demo_shapes', None),
])  # fmt: skip
def test_torchvision_takes_part_where_it_has_such_a_model(name, peer):
    assert detectors.torchvision_peer(Config.fromfile(ROOT / f'configs/{name}.py')) == peer


def test_torchvision_detects_on_the_same_images_and_finds_nothing(demo_folder, tmp_path):
    peer = detectors.Torchvision('ssdlite320_mobilenet_v3_large', 5, 'cpu')
    given = settings(demo_folder, [])
    job = detectors.Job(given.paths[:3], detect.decode(given.paths, 3), 2, tmp_path)
    found = []
    of_batch = peer.detect
    peer.detect = lambda images: found.append((len(images), of_batch(images)))
    peer.from_files(job, draws=False)
    peer.from_memory(job)
    assert [number for number, _ in found] == [2, 1, 2, 1]
    assert not any(len(one['boxes']) for _, images in found for one in images)


class Instant:
    """A detector that takes no time."""

    def from_memory(self, job):
        pass


def test_images_are_evenly_spaced_and_frames_are_the_first(demo_folder, tmp_path, monkeypatch):
    paths = settings(demo_folder, []).paths
    monkeypatch.setattr(detect, 'TURN', 0)
    chosen, images = detect.choose_images(Instant(), paths, 4, time.perf_counter)
    assert chosen == [paths[i * len(paths) // 4] for i in range(4)]
    assert [image.path for image in images] == chosen
    clip = str(tmp_path / 'clip.mp4')
    write_video(tmp_path / 'clip.mp4', [image.pixels for image in detect.decode(paths[:1], 1)] * 3)
    chosen, images = detect.choose_images(Instant(), [clip], 2, time.perf_counter)
    assert chosen == [clip] and [image.frame for image in images] == [0, 1]
    assert detectors.Job(chosen, images, 1, tmp_path).has_video


def test_a_stage_is_charged_with_its_own_time_only_and_nothing_stays_wrapped(files, demo_folder):
    ticks = iter(range(100))
    cfg = settings(demo_folder, files).cfg
    detector = detectors.make_detectors(cfg, files[1:2], 'cpu', 1)['ssd.onnx']
    model = detector.inferencer.model
    with detect.StageClock(detector, 'cpu', lambda: next(ticks)) as clock:
        assert 'run' in vars(model)
        inner = clock.timed('inner', lambda: None)  # 1 tick
        clock.timed('outer', lambda: (inner(), inner()))()  # 5 ticks with both
        assert clock.seconds == Counter(inner=2, outer=3)
    assert 'run' not in vars(model) and 'detect' not in vars(detector.inferencer)


def test_cpu_time_leaves_out_what_the_process_waits_for():
    wall, cpu = (
        detect.clock_of(t)(lambda: time.sleep(0.2)) for t in (time.perf_counter, time.process_time)
    )
    assert wall > 0.19 and cpu < 0.1


MISTAKES = {
    'none.py weights.pth': 'no config file none.py',
    'demo.py none.onnx': 'no checkpoint file none.onnx',
    'demo.py weights.pth --images none.jpg': 'none.jpg: no such file',
    'demo.py weights.pth --images demo.py': 'demo.py: nothing of what --images names',
    'demo.py demo.py': 'demo.py is not a checkpoint',
}


@pytest.mark.parametrize('line, said', MISTAKES.items(), ids=MISTAKES)
def test_a_users_mistake_is_one_line(line, said, run):
    with pytest.raises(SystemExit) as caught:
        run('benchmark', 'detect', *line.split())
    assert said in caught.value.code and '\n' not in caught.value.code


def test_the_command_measures_a_folder(run, files, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(detect, 'run', lambda *args: given.append(args[1]) or [])
    monkeypatch.setattr(report, 'print_part', lambda *args: None)
    run(
        'benchmark',
        'detect',
        'demo.py',
        *files,
        '--images',
        'data/**/*.jpg',
        '--batch',
        1,
        '--cpu-time',
    )
    (asked,) = given
    assert asked.models == files and len(asked.paths) == 10 and asked.batches == [1]
    assert asked.timer is time.process_time and asked.threads == [torch.get_num_threads()]
