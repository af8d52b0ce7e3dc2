"""Training and testing on damaged data: what is left out is reported, that and nothing else."""

import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.structures import InstanceData

from ssd_plugin.datasets.faults import DataFault
from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from ssd_plugin.engine.hooks import data_fault_hook as fault_report
from tests.engine.hooks.test_faulty_box_hook import Warnings, runner  # noqa: F401 - a fixture
from tests.support.commands import run_warm
from tests.support.damage_annotations import OF_ANNOTATIONS, OF_IMAGES, damage
from tests.tools.test_tools import TEST, TRAIN

DEMO = TRAIN.parent.parent / 'configs' / 'demo_shapes.py'
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
BAD_TEST_IMAGE = '000031.jpg'


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
    """Drawn shapes, of which 40 % of those to train on are damaged; and what was done to them."""
    folder = tmp_path_factory.mktemp('damaged')
    root = write_voc_shapes(folder / 'data/shapes', num_train=30, num_test=4)
    tests = [root / 'Annotations' / f'{number:06}.xml' for number in range(31, 35)]
    texts = {path: path.read_text() for path in tests}
    for path in tests:  # not to be damaged
        path.rename(path.with_suffix('.kept'))
    done = damage(root, share=0.5, seed=1)
    for path in tests:
        path.with_suffix('.kept').rename(path)
        assert path.read_text() == texts[path]
    image = root / 'JPEGImages' / BAD_TEST_IMAGE
    image.write_bytes(image.read_bytes()[:-500])
    (folder / 'demo.py').write_text(CONFIG)
    return folder, done


@pytest.fixture(scope='module')
def trained(damaged):
    """The output of an epoch."""
    return run_warm(TRAIN, 'demo.py', '--work-dir', 'work', cwd=damaged[0])


def losses(output):
    return [float(text) for text in re.findall(r' loss: (\S+)', output)]


def listed(path):
    """The lines of a list of faults, split."""
    return [line.split('\t') for line in path.read_text().splitlines()]


def test_each_way_of_damage_is_there(damaged):
    assert set(damaged[1].values()) >= {*OF_ANNOTATIONS, *OF_IMAGES}


def test_training_reports_the_damaged_files_and_no_others(damaged, trained):
    folder, done = damaged
    work_dir = folder / 'work'
    assert losses(trained) and all(0 < loss < 1e4 for loss in losses(trained)), trained
    files = listed(work_dir / 'data_faults.txt')
    boxes = listed(work_dir / 'faulty_boxes.txt')
    left_out = [Path(path).name for split, path, *_ in files if split == 'train']
    with_faulty_boxes = [f'{Path(path).stem}.xml' for path, _ in boxes]
    assert sorted(left_out + with_faulty_boxes) == sorted(path.name for path in done)
    assert [f[:3] for f in files if f[0] == 'val'] == [
        ['val', f'data/shapes/JPEGImages/{BAD_TEST_IMAGE}', 'unreadable images']
    ]
    assert re.search(rf'WARNING - {len(files)} faults in the data \(.*unreadable', trained)


def test_evaluation_goes_on_and_finds_nothing_in_a_image_that_can_not_be_decoded(damaged, trained):
    folder = damaged[0]
    run_warm(
        TEST, 'demo.py', 'work/epoch_1.pth', '--work-dir', 'tested', '--out', 'found.pkl',
        cwd=folder,
    )  # fmt: skip
    found = load(folder / 'found.pkl')
    numbers = [len(result['pred_instances']['scores']) for result in found]
    assert numbers[0] == 0 and all(number > 0 for number in numbers[1:]) and len(numbers) == 4
    assert [line[:3] for line in listed(folder / 'tested' / 'data_faults.txt')] == [
        ['test', f'data/shapes/JPEGImages/{BAD_TEST_IMAGE}', 'unreadable images']
    ]


@pytest.mark.parametrize('tool', ['train', 'test'])
@pytest.mark.parametrize('way', ['config', 'data root'])
def test_strict_refuses_in_one_line(tool, way, damaged, trained):
    folder, done = damaged
    script = [TRAIN, 'demo.py'] if tool == 'train' else [TEST, 'demo.py', 'work/epoch_1.pth']
    root = ['--data-root', 'data/shapes'] if way == 'data root' else []
    options = ['--strict', '--work-dir', f'{tool} {way}', *root]
    output = run_warm(*script, *options, cwd=folder, fails=True)
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


# ------------------------------------------------------------------------------------ the hook


def with_faults(*faults):
    return dict(data_samples=[DetDataSample(metainfo=dict(data_faults=list(faults)))])


ONE = DataFault('unreadable images', '/data/b.jpg', 'cut\noff')
OTHER = DataFault('missing images', '/data/a.jpg')


def test_the_hook_tells_what_is_new_once(runner, tmp_path):  # noqa: F811
    hook = HOOKS.build(dict(type='DataFaultHook', max_names=1))
    hook.before_train_iter(runner, 0, dict(data_samples=[DetDataSample()]))
    hook.after_train_epoch(runner)
    assert runner.warnings == [] and list(tmp_path.iterdir()) == []
    for _ in range(2):
        hook.before_train_iter(runner, 0, with_faults(ONE, OTHER))
        hook.after_train_epoch(runner)
    path = tmp_path / 'data_faults.txt'
    assert runner.warnings == [
        '2 faults in the data (1 missing images, 1 unreadable images): a.jpg, ...; '
        f'all are listed in {path}'
    ]
    assert listed(path) == [
        ['train', '/data/a.jpg', 'missing images', ''],
        ['train', '/data/b.jpg', 'unreadable images', 'cut off'],
    ]


def test_the_hook_sums_over_ranks(runner, monkeypatch):  # noqa: F811
    hook = HOOKS.build(dict(type='DataFaultHook'))
    hook.before_train_iter(runner, 0, with_faults(ONE))
    others = {('train', ONE), ('train', OTHER)}
    monkeypatch.setattr(fault_report, 'all_gather_object', lambda mine: [mine, others])
    hook.after_train_epoch(runner)
    assert runner.warnings[0].startswith('2 faults in the data')


def test_detections_are_taken_from_marked_samples_alone():
    def sample(**meta):
        found = InstanceData(bboxes=torch.rand(3, 4), scores=torch.rand(3))
        return DetDataSample(metainfo=meta, pred_instances=found)

    samples = [sample(), sample(unreadable=True)]
    model = MODELS.build(Config.fromfile(DEMO).model)
    fault_report.drop_unreadable(model, (), samples)
    assert [len(s.pred_instances) for s in samples] == [3, 0]
    assert len(CLASSES) == model.bbox_head.num_classes
