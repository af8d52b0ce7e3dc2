"""The benchmark: which contestants are compared, on which inputs, and what is reported.

No test depends on how long anything takes.
"""

import io
import json
import os
import sys
import time
from argparse import Namespace
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import benchmark
import cv2
import numpy as np
import pytest
import torch
from _bench import (
    acceptance,
    contestants,
    images,
    loss,
    pipeline,
    plot,
    postprocess,
    report,
    step,
    training,
)
from _bench.timing import BARE, FLOOR, MMDET, NO_LOADING, OURS, TORCHVISION, Case, Stopwatch
from mmdet.registry import MODELS
from rich.console import Console
from torchvision.models.detection.ssd import SSD

from tests.support.commands import ROOT

ONCE = dict(repeats=1, warmup=0)


def constant_clock(work):
    """Runs the work, and says that it took eight seconds."""
    work()
    return 8.0


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Three images of each size."""
    return images.write_images(tmp_path_factory.mktemp('bench') / 'images', per_size=3)


def image_paths(root):
    return sorted((root / 'VOC2007' / 'JPEGImages').glob('*.jpg'))


def made_case(part='loss', name='forward + backward, batch 32, contiguous', **samples):
    samples = samples or {OURS: [1.0, 3.0, 2.0], MMDET: [8.0, 9.0, 4.0], TORCHVISION: [2.0] * 3}
    return Case(part, name, 'batch', samples, dict(objects=7))


def test_contestants_alternate_and_warm_up_rounds_do_not_count(monkeypatch):
    turns, told = [], []
    ticks = iter([tick for seconds in range(100) for tick in (50, 50 + seconds)])
    monkeypatch.setattr(time, 'perf_counter', lambda: next(ticks))
    works = {name: partial(turns.append, name) for name in 'ABC'}
    stopwatch = Stopwatch(repeats=3, warmup=2, tell=lambda *turn: told.append(turn))
    samples = stopwatch.alternate(works, per=2)
    assert turns == list('ABC') * 5
    assert told[:3] == [('A', -1), ('B', -1), ('C', -1)]
    assert told[-1] == ('C', 3)
    assert samples == {'A': [3, 4.5, 6], 'B': [3.5, 5, 6.5], 'C': [4, 5.5, 7]}


def test_median_spread_and_ratio():
    case = made_case(**{OURS: [4.0, 1.0, 2.0, 3.0, 5.0], MMDET: [6.0, 7.0, 6.0, 90.0, 5.0]})
    assert (case.median(OURS), case.ratio(MMDET)) == (3, 2)
    assert case.spread(OURS) == dict(min=1, q1=2, q3=4, max=5)
    assert made_case(**{OURS: [2.0]}).spread(OURS) == dict(min=2, q1=2, q3=2, max=2)


LOSS, ALONE = 'forward + backward, batch 32, ', 'model alone, batch 2'
LOSSES = {LOSS + 'contiguous': 3.0, LOSS + 'channels_last': 2.0}
# The part with its cases' ratios to a peer, the run's device and --amp; what was wanted and found.
VERDICTS = {
    'the worst case decides': (
        ('loss', LOSSES, MMDET, 'cpu'), ('MMDetection / ours >= 2.5', 2, 'missed')
    ),
    'other cases are not judged': (
        ('loss', {LOSS + 'contiguous': 3.0, 'forward, batch 32, contiguous': 0.1}, MMDET, 'cpu'),
        ('MMDetection / ours >= 2.5', 3, 'met'),
    ),
    'a floor bounds our time from above': (
        ('pipeline', {'small': 1 / 2, 'large': 1 / 4}, FLOOR, 'cpu'),
        ('ours / decode + resize <= 2.5', 4, 'missed'),
    ),
    'our time is within that bound': (
        ('pipeline', {'small': 1 / 2}, FLOOR, 'cpu'), ('ours / decode + resize <= 2.5', 2, 'met')
    ),
    'a GPU has requirements of its own': (
        ('loss', LOSSES, MMDET, 'cuda'), ('MMDetection / ours >= 10', 2, 'missed')
    ),
    'some are required with --amp': (
        ('step', {ALONE: 5}, MMDET, 'cpu'), ('MMDetection / ours >= 4', 5, 'asked for with --amp')
    ),
    'with it they are judged': (
        ('step', {ALONE: 5}, MMDET, 'cpu', True), ('MMDetection / ours >= 4', 5, 'met')
    ),
}  # fmt: skip


@pytest.mark.parametrize('measured, expected', VERDICTS.values(), ids=VERDICTS)
def test_cases_are_judged_by_their_ratio(measured, expected):
    part, ratios, peer, *run = measured
    cases = [made_case(part, name, **{OURS: [1.0], peer: [x]}) for name, x in ratios.items()]
    (line,) = acceptance.judge(cases, *run)
    assert (line['wanted'], line['measured'], line['verdict']) == expected


def test_tables_show_times_and_ratios():
    console = Console(width=120, record=True, file=io.StringIO())
    report.print_part(console, 'loss', [made_case()])
    report.print_verdicts(console, acceptance.judge([made_case()], 'cpu'))
    text = console.export_text()
    row = next(line for line in text.splitlines() if MMDET in line)
    figures = ['8000', '6000', '-', '8500', '4000', '-', '9000', '0.125', '4.00', 'x']
    assert row.split() == [MMDET, *figures]
    assert 'objects 7' in text and 'missed' in text


@pytest.mark.parametrize('suffix', benchmark.PLOT_TYPES)
def test_the_plot_is_written(tmp_path, suffix):
    path = tmp_path / f'chart{suffix}'
    cases = [made_case(), made_case('pipeline', 'images', **{OURS: [1.0], FLOOR: [0.5]})]
    plot.save_plot(path, cases, dict(device='a computer', threads='1'))
    assert path.stat().st_size > 5000
    if suffix == '.png':
        assert cv2.imread(str(path)).std() > 0


def test_images_are_like_photographs_and_the_same_each_time(root, tmp_path):
    paths = image_paths(root)
    shapes = [cv2.imread(str(path)).shape for path in paths]
    assert shapes == [(375, 500, 3)] * 3 + [(480, 640, 3)] * 3
    assert all(45_000 < path.stat().st_size < 130_000 for path in paths)
    again = image_paths(images.write_images(tmp_path / 'again', per_size=3))
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    boxes = images.random_boxes(np.random.default_rng(0), 2000, 500, 375)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] < (500, 375)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 12).all()


def test_every_pipeline_loads_the_same_files(root, monkeypatch):
    configs = contestants.our_config(), contestants.mmdet_config()
    ours, theirs = (contestants.build_dataset(contestants.with_images(c, root)) for c in configs)
    read = []
    for other in (theirs.get_data_info(i) for i in range(6)):
        info = ours.get_data_info(other['sample_idx'])
        assert other['instances'] == info['instances']
        assert other['img_path'] == info['img_path']
    assert [type(transform).__name__ for transform in theirs.pipeline.transforms] == [
        *('LoadImageFromFile', 'LoadAnnotations', 'Expand', 'MinIoURandomCrop', 'Resize'),
        *('RandomFlip', 'PhotoMetricDistortion', 'PackDetInputs'),
    ]
    count, loaders = pipeline.make_contestants(root)
    assert count == 6
    decode, imread = pipeline.read_image, cv2.imread
    monkeypatch.setattr(pipeline, 'read_image', lambda p, *a: read.append(p) or decode(p, *a))
    monkeypatch.setattr(cv2, 'imread', lambda p, *a: read.append(p) or imread(p, *a))
    for i in range(6):
        for who in (OURS, MMDET):
            assert loaders[who](i)['inputs'].shape == (3, 300, 300)
        image, target = loaders[TORCHVISION](i)
        assert (image.shape, image.dtype) == ((3, 300, 300), torch.uint8)
        assert len(target['boxes']) == len(target['labels'])
        assert loaders[FLOOR](i).shape == (300, 300, 3)
    assert read == [str(path) for path in image_paths(root) for _ in range(2)]


def test_pipelines_are_timed_in_one_thread(root):
    seen = []

    def threads():
        return cv2.getNumThreads(), torch.get_num_threads()

    def clock(work):
        seen.append(threads())
        return 1.5

    before = threads()
    small, large = pipeline.run(Stopwatch(clock=clock, **ONCE), root)
    assert (set(seen), threads()) == ({(1, 1)}, before)
    assert small.samples == {who: [0.5] for who in (OURS, MMDET, TORCHVISION, FLOOR)}
    assert (small.name, large.name) == ('JPEG 500x375 to sample', 'JPEG 640x480 to sample')


@pytest.mark.parametrize('memory_format', loss.FORMATS.values(), ids=loss.FORMATS)
def test_every_loss_is_of_the_same_batch(memory_format):
    inputs = loss.make_inputs(2, 'cpu', memory_format=memory_format)
    assert all(m.is_contiguous(memory_format=memory_format) for m in inputs.cls_scores)
    losses = loss.make_losses(inputs)
    our_maps, their_maps, their_own = (losses[who][1] for who in (OURS, MMDET, TORCHVISION))
    assert all(one is other for one, other in zip(our_maps, their_maps))
    assert all(one is other for one, other in zip(our_maps[6:], their_own[6:])), 'offsets'
    assert all(m.is_contiguous(memory_format=memory_format) for m in their_own)
    values = [one().item() for one, _ in losses.values()]
    assert values == pytest.approx([values[0]] * 3, rel=0.01)
    gradients, expected = (loss.gradient(*losses[who]) for who in (OURS, MMDET))
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('size, count', [(300, 8732), (512, 24564)])
def test_torchvision_has_the_same_priors(size, count):
    _, scores, deltas, *_ = loss.make_inputs(1, 'cpu', objects=1, input_size=size)
    (theirs,) = contestants.TorchvisionHead(size, scores, deltas).priors()
    generator = contestants.our_head(size).prior_generator
    ours = torch.cat(generator.grid_priors([m.shape[2:] for m in scores], device='cpu'))
    assert ours.shape == (count, 4)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-3)


def test_loss_cases_and_growth():
    kinds = product(('contiguous', 'channels_last'), ('forward', 'forward + backward'))
    expected = [f'{what}, batch 1, {memory_format}' for memory_format, what in kinds]
    assert [case.name for case in loss.run(Stopwatch(**ONCE), batch=1)] == expected
    (case,) = loss.run_growth(Stopwatch(**ONCE), settings=[(1, 3, 512)])
    assert (case.part, case.name) == ('growth', 'forward + backward, batch 1, 3 objects, 512 px')
    assert set(case.samples) == {OURS, MMDET, TORCHVISION}
    assert len(loss.make_inputs(1, 'cpu', objects=40).gt_instances[0]) == 40


def test_trained_scores_are_background_but_for_the_ground_truth():
    inputs = loss.make_inputs(4, 'cpu')
    postprocess.make_trained(inputs)
    flat = [m.permute(0, 2, 3, 1).reshape(4, -1, 21) for m in inputs.cls_scores]
    scores = torch.cat(flat, dim=1).softmax(-1)
    background, foreground = scores[..., 20], scores[..., :20]
    assert (background > 0.9).float().mean() > 0.99
    candidates = (foreground > 0.01).sum(dim=(1, 2))
    assert ((candidates > 200) & (candidates < 1000)).all(), candidates
    assert postprocess.count_candidates(inputs) == candidates.sum()
    maps = inputs.cls_scores, inputs.bbox_preds, inputs.metas
    found = contestants.our_head().predict_by_feat(*maps, rescale=False)
    for truth, detections in zip(inputs.gt_instances, found):
        sure = detections[detections.scores > 0.2]
        assert set(sure.labels.tolist()) <= set(truth.labels.tolist())
        assert len(sure) > 0


def test_detections_are_compared_with_torchvisions():
    cases = postprocess.run(Stopwatch(**ONCE), batches=(1,))
    for case, scores in zip(cases, ('random', 'background-heavy', 'trained'), strict=True):
        assert case.name == f'batch 1, {scores} scores'
        assert set(case.samples) == {OURS, MMDET, TORCHVISION}
        assert case.facts[f'detections of {OURS}'] == 200
        assert case.facts['share of ours that torchvision has'] > 0.95


def test_peers_detect_with_the_same_limits():
    cfg, ssd = contestants.our_head().test_cfg, contestants.torchvision_ssd()
    assert contestants.mmdet_head().test_cfg == cfg
    limits = ssd.score_thresh, ssd.topk_candidates, ssd.nms_thresh, ssd.detections_per_img
    assert limits == (cfg.score_thr, cfg.nms_pre, cfg.nms.iou_threshold, cfg.max_per_img)


@pytest.fixture
def tiny_recipes(monkeypatch):
    """Both recipes with a very small network under their heads."""

    def shrunk(read):
        def config(*path):
            cfg = read(*path)
            maps = dict(base_channels=8, out_indices=(1, 2, 3), norm_eval=False)
            cfg.model.backbone = dict(type='ResNet', depth=18, **maps)
            levels = dict(in_channels=[16, 32, 64], out_channels=8, num_outs=6)
            cfg.model.neck = dict(type='ChannelMapper', **levels)
            cfg.model.bbox_head.in_channels = [8] * 6
            cfg.model.bbox_head.anchor_generator.strides = [8, 16, 32, 64, 128, 256]
            return cfg

        return config

    monkeypatch.setattr(training, 'our_config', shrunk(contestants.our_config))
    monkeypatch.setattr(training, 'mmdet_config', shrunk(contestants.mmdet_config))


def stands_still(process, patience=10):
    """Whether a process is stopped, or will be within some seconds: signals take their time."""
    for _ in range(100 * patience):
        stat = Path(f'/proc/{process.pid}/stat').read_text()
        if stat.rpartition(')')[2].split()[0] == 'T':
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_contestants_take_turns_and_loaders_wait_for_theirs(
    root, tmp_path, tiny_recipes, monkeypatch
):
    monkeypatch.setattr(step, 'torchvision_step', lambda samples, device: lambda: None)
    monkeypatch.setattr(step, 'bare_step', lambda *args: lambda: None)
    settings, still = training.Settings(batch=2, workers=1, iterations=2), []
    with ExitStack() as stack:
        loops = {
            who: stack.enter_context(closing(make(root, tmp_path / who, settings)))
            for who, make in ((OURS, training.our_loop), (MMDET, training.mmdet_loop))
        }
        heads = [type(loop.runner.model.bbox_head).__name__ for loop in loops.values()]
        assert heads == ['SSDMultiBoxHead', 'SSDHead']
        samples = step.fixed_samples(root, settings)

        def clock(work):
            seconds = constant_clock(work)
            workers = [worker for loop in loops.values() for worker in loop.workers]
            still.append([stands_still(worker) for worker in workers])
            return seconds

        stopwatch = Stopwatch(clock=clock, **ONCE)
        from_files = step.time_from_files(stopwatch, loops, samples, settings)
        assert [loop.iter for loop in loops.values()] == [2, 2]
        assert still == [[True, True]] * 3
        assert from_files.samples == {OURS: [2.0], MMDET: [2.0], NO_LOADING: [2.0]}

        weight = loops[OURS].runner.model.bbox_head.cls_convs[0][0].weight
        before = weight.detach().clone()
        alone = step.time_model(stopwatch, loops, samples, settings)
        assert set(alone.samples) == {OURS, MMDET, TORCHVISION, BARE}
        assert not torch.equal(weight, before), 'the optimizer steps'


def test_a_config_without_peers_is_timed_by_itself(root, tmp_path, tiny_recipes):
    paths = (ROOT / 'configs' / f'{name}_voc.py' for name in ('ssd300_r50', 'ssd512'))
    r50, ssd512 = (training.Settings(batch=1, workers=0, config=path) for path in paths)
    cases = step.run(Stopwatch(clock=constant_clock, **ONCE), root, tmp_path, r50)
    assert {case.name: set(case.samples) for case in cases} == {
        'ssd300_r50_voc, model alone, batch 1': {OURS},
        'ssd300_r50_voc, from files, batch 1': {OURS, NO_LOADING},
    }
    assert acceptance.judge(cases, 'cuda') == []
    (sample,) = step.fixed_samples(root, ssd512)
    assert sample['inputs'].shape == (3, 512, 512)


@pytest.mark.filterwarnings('ignore:this CPU has no AVX-512')
def test_the_bare_convolutions_run_in_the_dtype_and_format_of_ours(
    root, tmp_path, tiny_recipes, monkeypatch
):
    settings = training.Settings(batch=1, workers=0, amp=True)
    loop = training.our_loop(root, tmp_path, settings)
    samples = step.fixed_samples(root, settings)
    dtype, memory_format = loop.observed_format(loop.collate(samples))
    assert dtype == torch.bfloat16

    seen = []

    def forward(self, x):
        y = self.levels[0][0](x)
        seen.append((y.dtype, x.is_contiguous(memory_format=memory_format)))
        return [y]

    monkeypatch.setattr(step.BareSSD300, 'forward', forward)
    step.bare_step(loop, samples, memory_format, 'cpu')()
    assert seen == [(torch.bfloat16, True)]


def test_the_bare_convolutions_are_those_of_the_model():
    cfg = contestants.our_config()
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model, convolutions = MODELS.build(cfg.model).to('meta'), step.BareSSD300()
        inputs = torch.zeros(2, 3, 300, 300)
        maps = convolutions(inputs)
        scores, offsets = model(inputs, mode='tensor')
    layers = (
        [m for m in n.modules() if isinstance(m, torch.nn.Conv2d)] for n in (model, convolutions)
    )
    ours, theirs = (
        sorted((m.weight.shape, m.stride, m.padding, m.dilation) for m in convs) for convs in layers
    )
    assert ours == theirs
    assert [m.shape for m in maps[::2]] == [m.shape for m in scores]
    assert [m.shape for m in maps[1::2]] == [m.shape for m in offsets]


@pytest.mark.parametrize('read', [contestants.our_config, contestants.mmdet_config])
def test_recipes_keep_all_but_where_the_images_come_from(read, root, tmp_path):
    before = read()
    cfg = training.recipe(read(), root, tmp_path, training.Settings(batch=4, workers=2))
    loader = cfg.train_dataloader
    assert loader.dataset.pipeline == before.train_pipeline
    assert loader.dataset.data_root == f'{root}/'
    assert loader.persistent_workers == before.train_dataloader.persistent_workers
    assert (loader.batch_size, loader.num_workers) == (4, 2)
    for kept in ('optim_wrapper', 'param_scheduler', 'default_hooks', 'env_cfg'):
        assert cfg[kept] == before[kept]
    assert cfg.model.bbox_head == before.model.bbox_head


@pytest.mark.parametrize('preprocessed', [False, True])
def test_torchvision_trains_on_the_same_images(preprocessed, root, monkeypatch):
    given = []

    def forward(self, *batch):
        given.append(batch)
        assert self.head.classification_head.num_columns == 21
        return dict(loss=self.backbone.scale_weight.sum())

    monkeypatch.setattr(SSD, 'forward', forward)
    samples = step.fixed_samples(root, training.Settings(batch=2, workers=0))
    boxes = [sample['data_samples'].gt_instances.bboxes.tensor for sample in samples]
    if preprocessed:  # as a data preprocessor of MMDetection leaves them
        for sample, tensor in zip(samples, boxes):
            sample['data_samples'].gt_instances.bboxes = tensor
    step.torchvision_step(samples, 'cpu')()
    ((images, targets),) = given
    for image, target, sample, expected in zip(images, targets, samples, boxes, strict=True):
        torch.testing.assert_close(image.flip(0) * 255, sample['inputs'].float())
        assert torch.equal(target['labels'], sample['data_samples'].gt_instances.labels + 1)
        assert torch.equal(target['boxes'], expected)


def call(monkeypatch, *args):
    """Run the command in this process, with what it changes of the process put back."""
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, args)])
    monkeypatch.setitem(os.environ, 'CUDA_VISIBLE_DEVICES', '')
    benchmark.main()


MISTAKES = {
    'few rounds': (['loss', '--repeats', 6], '--repeats must be 7 or more'),
    'no batch': (['step', '--batch', 0], '--batch must be 1 or more'),
    'negative workers': (['step', '--workers', -1], '--workers must be 0 or more'),
    'no folder': (['loss', '--json', 'nowhere/out.json'], "can't write nowhere/out.json"),
    'no config': (['step', '--config', 'nowhere.py'], '--config: there is no file nowhere.py'),
    'a folder': (['all', '--json', '.'], "can't write ."),
    'not an image': (['loss', '--plot', 'chart.txt'], '.png'),
    'no GPU': (['loss', '--device', 'cuda'], '--device cuda needs a GPU'),
}


@pytest.mark.parametrize('args, said', MISTAKES.values(), ids=MISTAKES)
def test_a_users_mistake_is_one_line(args, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, *args)
    assert said in caught.value.code and '\n' not in caught.value.code


def test_a_whole_run_prints_and_writes_what_it_found(tmp_path, monkeypatch, capsys):
    one = made_case()
    monkeypatch.setattr(benchmark, 'measure', lambda part, args: [replace(one, part=part)])
    call(monkeypatch, 'all', '--json', tmp_path / 'out.json', '--plot', tmp_path / 'out.png')
    output = capsys.readouterr().out
    first = [output.index(word) for word in ('device', 'pipeline', 'postprocess', 'acceptance')]
    assert first == sorted(first)
    document = json.loads((tmp_path / 'out.json').read_text())
    assert [case['part'] for case in document['cases']] == list(benchmark.ALL)
    case = document['cases'][0]
    assert case['samples'][MMDET] == [8, 9, 4]
    assert case['median'] == {OURS: 2, MMDET: 8, TORCHVISION: 2}
    assert case['spread'][OURS] == dict(min=1, q1=1.5, q3=2.5, max=3)
    assert case['times_ours'] == {MMDET: 4, TORCHVISION: 1}
    assert (case['unit'], case['facts']) == ('batch', dict(objects=7))
    assert document['settings']['device'] == 'cpu'
    assert [line['verdict'] for line in document['acceptance']] == ['missed', 'met', 'missed']
    facts = document['environment']
    for package in ('torch', 'torchvision', 'mmengine', 'mmdet', 'mmcv', 'opencv', 'ssd_plugin'):
        assert facts[package]
    assert facts['threads'] == str(torch.get_num_threads())
    assert (tmp_path / 'out.png').stat().st_size > 5000


def test_parts_get_their_defaults(monkeypatch):
    given = {}
    for part, module in zip(benchmark.ALL, (pipeline, loss, postprocess, step), strict=True):
        monkeypatch.setattr(module, 'run', lambda *args, part=part: given.update({part: args}))
    monkeypatch.setattr(images, 'write_images', lambda path: path)
    asked = dict(device='cpu', repeats=None, batch=None, workers=None, amp=True, config=None)
    for part in benchmark.ALL:
        benchmark.measure(part, Namespace(**asked))
        assert given[part][0].repeats >= benchmark.LEAST_REPEATS
        assert given[part][0].warmup >= 1
    settings = given['step'][-1]
    assert (settings.batch, settings.amp) == (2, True)
