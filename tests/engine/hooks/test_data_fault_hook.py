"""DataFaultHook: what takes no part in a run is counted once, named and listed, and no more."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.structures import InstanceData

from ssd_plugin.datasets.faults import DataFault
from ssd_plugin.datasets.shapes import write_voc_shapes
from ssd_plugin.engine.hooks import data_fault_hook
from tests.support.commands import ROOT, run_warm
from tests.support.damage_annotations import OF_ANNOTATIONS, OF_IMAGES, damage

TRAIN, TEST = ROOT / 'tools/train.py', ROOT / 'tools/test.py'
DEMO = ROOT / 'configs/demo_shapes.py'

# ----------------------------------------------------------------------- the hook with a runner


GOOD = (10, 10, 30, 40)
OUTSIDE = (100, 10, 120, 40)  # of images that are 100 wide and 50 high
NO_WIDTH, NO_HEIGHT = (10, 10, 10, 40), (10, 40, 30, 40)
FAULTY = {
    NO_WIDTH: 'boxes without area',
    NO_HEIGHT: 'boxes without area',
    (0, 10, 1e-7, 40): 'boxes without area',
    (10, float('nan'), 30, 40): 'boxes with non-finite coordinates',
    (10, 10, float('inf'), 40): 'boxes with non-finite coordinates',
    (-1e30, 10, 1e30, 40): 'boxes too large to train on',
    OUTSIDE: 'boxes outside the image',
    (10, 50, 30, 90): 'boxes outside the image',
}
UNREADABLE = DataFault('unreadable images', '/data/b.jpg', 'cut\noff')
MISSING = DataFault('missing images', '/data/a.jpg')


def sample(name, *boxes, box_type=torch.Tensor, **meta):
    bboxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    if box_type is HorizontalBoxes:
        bboxes = HorizontalBoxes(bboxes)
    instances = InstanceData(bboxes=bboxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    metainfo = dict(img_path=f'/data/{name}.jpg', img_shape=(50, 100)) | meta
    return DetDataSample(metainfo=metainfo, gt_instances=instances)


@pytest.fixture
def runner(tmp_path):
    """As much of a runner as the hook uses; ``warnings`` are the messages it was given."""
    warnings = []
    logger = logging.Logger('test')
    logger.addFilter(lambda record: warnings.append(record.getMessage()))
    return SimpleNamespace(
        work_dir=str(tmp_path), logger=logger, warnings=warnings, model=torch.nn.Module(),
        val_dataloader=SimpleNamespace(dataset=SimpleNamespace()),
    )  # fmt: skip


def build(**options):
    return HOOKS.build(dict(type='DataFaultHook', **options))


def see(hook, runner, *samples):
    hook.before_train_iter(runner, 0, dict(inputs=None, data_samples=list(samples)))


def listed(path):
    """The lines of a list of faults, split."""
    return [line.split('\t') for line in path.read_text().splitlines()]


@pytest.mark.parametrize('box_type', [torch.Tensor, HorizontalBoxes])
def test_faulty_boxes_are_told_apart_by_kind_and_image(box_type, runner, tmp_path):
    hook = build()
    boxes = {f'{i}': box for i, box in enumerate(FAULTY)}
    samples = [sample(name, GOOD, box, box_type=box_type) for name, box in boxes.items()]
    see(hook, runner, *samples, sample('good', GOOD, box_type=box_type), sample('empty'))
    hook.after_train_epoch(runner)
    assert sorted(listed(tmp_path / 'data_faults.txt')) == [
        ['train', f'/data/{name}.jpg', FAULTY[box], '1 of 2 boxes'] for name, box in boxes.items()
    ]


def test_sound_data_are_not_mentioned(runner, tmp_path):
    hook = build()
    see(hook, runner, sample('a', GOOD), sample('empty'))
    hook.before_val(runner)
    hook.after_val(runner)
    hook.after_train_epoch(runner)
    assert runner.warnings == [] and list(tmp_path.iterdir()) == []


def test_one_line_says_how_many_boxes_in_which_images(runner, tmp_path):
    hook = build(max_names=1)
    nameless = sample('', NO_WIDTH, GOOD, img_id=7)
    nameless.pop('img_path')
    see(hook, runner, sample('b', GOOD, NO_WIDTH, OUTSIDE), sample('a', NO_HEIGHT))
    see(hook, runner, sample('c', GOOD), nameless)
    hook.after_train_epoch(runner)
    path = tmp_path / 'data_faults.txt'
    assert runner.warnings == [
        '4 of 7 ground-truth boxes take no part in training (3 without area, 1 outside the image), '
        f'in 3 of 4 images: a.jpg, ...; all are listed in {path}'
    ]
    assert [line[1:] for line in listed(path)] == [
        ['/data/b.jpg', 'boxes outside the image', '1 of 3 boxes'],
        ['/data/a.jpg', 'boxes without area', '1 of 1 boxes'],
        ['/data/b.jpg', 'boxes without area', '1 of 3 boxes'],
        ['7', 'boxes without area', '1 of 2 boxes'],
    ]


def test_a_box_that_is_seen_again_is_neither_counted_nor_reported_again(runner):
    hook = build()
    for _ in range(3):
        see(hook, runner, sample('a', GOOD, NO_WIDTH, NO_HEIGHT))
        see(hook, runner, sample('a', GOOD))  # a crop that left out the faulty boxes
        hook.before_val(runner)
        hook.after_val(runner)
        hook.after_train_epoch(runner)
    assert len(runner.warnings) == 1 and runner.warnings[0].startswith('2 of 3 ground-truth boxes')
    see(hook, runner, sample('b', NO_WIDTH))
    hook.before_val(runner)
    assert len(runner.warnings) == 2 and runner.warnings[1].startswith('3 of 4 ground-truth boxes')


def test_faults_of_files_are_reported_once_with_the_split(runner, tmp_path):
    hook = build(max_names=1)
    for _ in range(2):
        see(hook, runner, sample('a', data_faults=[UNREADABLE, MISSING]))
        hook.after_train_epoch(runner)
    path = tmp_path / 'data_faults.txt'
    assert runner.warnings == [
        '2 faults in the data (1 missing images, 1 unreadable images): a.jpg, ...; '
        f'all are listed in {path}'
    ]
    runner.val_dataloader.dataset.faults = [MISSING]
    hook.before_val(runner)
    assert listed(path) == [
        ['train', '/data/a.jpg', 'missing images', ''],
        ['train', '/data/b.jpg', 'unreadable images', 'cut off'],
        ['val', '/data/a.jpg', 'missing images', ''],
    ]
    assert len(runner.warnings) == 2


def test_ranks_are_summed_and_what_several_have_seen_counts_once(runner, monkeypatch):
    other, hook = build(), build()
    faulty = sample('a', GOOD, NO_WIDTH, data_faults=[UNREADABLE])
    see(other, runner, faulty, sample('b', NO_WIDTH, NO_WIDTH, data_faults=[MISSING]))
    monkeypatch.setattr(data_fault_hook, 'all_gather_object', lambda mine: sent.append(mine))
    sent = []
    with pytest.raises(TypeError):  # nothing was gathered; what would be sent is known now
        other.after_train_epoch(runner)
    monkeypatch.setattr(data_fault_hook, 'all_gather_object', lambda mine: [mine, *sent])
    see(hook, runner, faulty, sample('c', GOOD))
    hook.after_train_epoch(runner)
    assert runner.warnings[0].startswith('2 faults in the data')
    assert runner.warnings[1].startswith('3 of 5 ground-truth boxes')
    assert 'in 2 of 3 images' in runner.warnings[1]


def test_detections_are_removed_from_unreadable_images_in_evaluation_alone(runner):
    def found(**meta):
        instances = InstanceData(bboxes=torch.rand(3, 4), scores=torch.rand(3))
        return DetDataSample(metainfo=meta, pred_instances=instances)

    runner.model = MODELS.build(Config.fromfile(DEMO).model)
    runner.model.forward = lambda *args: [found(), found(unreadable=True)]
    hook, numbers = build(), []
    for step in (lambda _: None, hook.before_val, hook.after_val):
        step(runner)
        numbers.append([len(one.pred_instances) for one in runner.model(None)])
    assert numbers == [[3, 3], [3, 0], [3, 3]]


# ------------------------------------------------------------------------------------- commands

CONFIG = f"""
_base_ = [{str(DEMO)!r}]
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(type='CheckedVOCDataset')
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(type='CheckedVOCDataset')
)
test_dataloader = val_dataloader
model = dict(test_cfg=dict(score_thr=0, max_per_img=5))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""
CONCATENATED = """
_base_ = 'demo.py'
test_dataloader = dict(dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[_base_.test_dataloader.dataset]))
"""
BAD_TEST_IMAGE = '000031.jpg'


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
    """Drawn shapes, half of the images to train on damaged; and what was done to them."""
    folder = tmp_path_factory.mktemp('damaged')
    root = write_voc_shapes(folder / 'data/shapes', num_train=30, num_test=4)
    tests = [root / 'Annotations' / f'{number:06}.xml' for number in range(31, 35)]
    for path in tests:  # not to be damaged
        path.rename(path.with_suffix('.kept'))
    done = damage(root, share=0.5, seed=1)
    for path in tests:
        path.with_suffix('.kept').rename(path)
    image = root / 'JPEGImages' / BAD_TEST_IMAGE
    image.write_bytes(image.read_bytes()[:-500])
    (folder / 'demo.py').write_text(CONFIG)
    (folder / 'concatenated.py').write_text(CONCATENATED)
    assert set(done.values()) == {*OF_ANNOTATIONS, *OF_IMAGES}
    return folder, done


@pytest.fixture(scope='module')
def trained(damaged):
    """The output of an epoch."""
    return run_warm(TRAIN, 'demo.py', '--work-dir', 'work', cwd=damaged[0])


def test_training_reports_the_damaged_files_and_no_others(damaged, trained):
    folder, done = damaged
    losses = [float(text) for text in re.findall(r' loss: (\S+)', trained)]
    assert losses and all(0 < loss < 1e4 for loss in losses), trained
    faults = listed(folder / 'work' / 'data_faults.txt')
    of_boxes = [line for line in faults if line[2].startswith('boxes')]
    stems = sorted(Path(path).stem for split, path, *_ in faults if split == 'train')
    assert stems == sorted(path.stem for path in done)
    assert len(of_boxes) == sum(
        way.startswith('box ') and 'corner' not in way for way in done.values()
    )
    assert [line[:3] for line in faults if line[0] == 'val'] == [
        ['val', f'data/shapes/JPEGImages/{BAD_TEST_IMAGE}', 'unreadable images']
    ]
    of_files = len(faults) - len(of_boxes)
    assert re.search(rf'WARNING - {of_files} faults in the data \(.*unreadable', trained)


@pytest.mark.parametrize('options', [['demo.py'], ['concatenated.py', '--tta']])
def test_evaluation_finds_nothing_in_an_image_that_cannot_be_decoded(options, damaged, trained):
    folder, config = damaged[0], options[0]
    run_warm(
        TEST, config, 'work/epoch_1.pth', *options[1:], '--work-dir', config[:-3],
        '--out', 'found.pkl', cwd=folder,
    )  # fmt: skip
    numbers = [len(result['pred_instances']['scores']) for result in load(folder / 'found.pkl')]
    assert numbers[0] == 0 and all(number > 0 for number in numbers[1:]) and len(numbers) == 4
    assert [line[:3] for line in listed(folder / config[:-3] / 'data_faults.txt')] == [
        ['test', f'data/shapes/JPEGImages/{BAD_TEST_IMAGE}', 'unreadable images']
    ]


@pytest.mark.parametrize('tool', ['train', 'test'])
@pytest.mark.parametrize('way', ['config', 'data root'])
def test_strict_refuses_in_one_line(tool, way, damaged, trained):
    script = [TRAIN, 'demo.py'] if tool == 'train' else [TEST, 'demo.py', 'work/epoch_1.pth']
    root = ['--data-root', 'data/shapes'] if way == 'data root' else []
    options = ['--strict', '--work-dir', f'{tool} {way}', *root]
    output = run_warm(*script, *options, cwd=damaged[0], fails=True)
    said = [line for line in output.splitlines() if 'imgcodecs' not in line and 'Load' not in line]
    assert len(said) == 1, output
    name = r'\d{6}\.(xml|jpg)' if tool == 'train' else BAD_TEST_IMAGE
    more = ', and \\d+ more' if tool == 'train' else ''
    expected = rf'--strict: data/shapes/\w+/{name}: [a-z ]+(, [^;]*)?{more}; without --strict'
    assert re.match(expected, said[0])


def test_strict_passes_sound_data(damaged, trained):
    folder = damaged[0]
    write_voc_shapes(folder / 'sound/data/shapes', num_train=2, num_test=2)
    (folder / 'sound/demo.py').write_text(CONFIG)
    for root in ([], ['--data-root', 'data/shapes']):
        output = run_warm(
            TEST, 'demo.py', '../work/epoch_1.pth', '--strict', *root, cwd=folder / 'sound'
        )
        assert 'mAP' in output
    assert not list(folder.glob('sound/work_dirs/**/data_faults.txt'))


def test_a_data_set_that_is_refused_ends_training_in_one_line(damaged):
    folder = damaged[0]
    (folder / 'none.txt').write_text('000099\n')
    option = 'train_dataloader.dataset.ann_file=../../none.txt'
    output = run_warm(TRAIN, 'demo.py', '--cfg-options', option, cwd=folder, fails=True)
    last = output.splitlines()[-1]
    assert last.startswith('data/shapes/../../none.txt: no image is left to use (')
    assert last.endswith('000099.xml: missing annotations)')
    assert 'Traceback' not in output
