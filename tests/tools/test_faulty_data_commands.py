"""Training and testing on damaged data: what is left out is reported, that and nothing else."""

import json
import re
from pathlib import Path

import pytest
from mmengine.fileio import load

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from tests.support.commands import ROOT, run_warm
from tests.support.damage_annotations import OF_ANNOTATIONS, OF_IMAGES, damage
from tests.support.data_folders import listed

TRAIN, TEST = ROOT / 'tools/train.py', ROOT / 'tools/test.py'
DEMO = ROOT / 'configs/demo_shapes.py'
CONFIG = f"""
_base_ = [{str(DEMO)!r}]
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(type='CheckedVOCDataset'))
train_dataloader = val_dataloader = test_dataloader = loader
model = dict(test_cfg=dict(score_thr=0, max_per_img=5))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""
CONCATENATED = """
_base_ = 'demo.py'
test_dataloader = dict(dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[_base_.test_dataloader.dataset]))
"""
UNCHECKED = """
_base_ = 'demo.py'
train_dataloader = dict(dataset=dict(
    _delete_=True, type='BaseDetDataset', ann_file='labels.json',
    metainfo=dict(classes=_base_.classes), pipeline=_base_.train_dataloader.dataset.pipeline))
"""
OUTSIDE = 'boxes outside the image'
BAD_TEST_IMAGE = '000031.jpg'


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
    """Drawn shapes, half of the images to train on damaged; and what was done to them."""
    folder = tmp_path_factory.mktemp('damaged')
    root = write_voc_shapes(folder / 'data/shapes', num_train=30, num_test=4)
    done = damage(root / 'Annotations' / f'{number:06}.xml' for number in range(1, 31, 2))
    image = root / 'JPEGImages' / BAD_TEST_IMAGE
    image.write_bytes(image.read_bytes()[:-500])
    (folder / 'demo.py').write_text(CONFIG)
    (folder / 'concatenated.py').write_text(CONCATENATED)
    assert set(done.values()) == {*OF_ANNOTATIONS, *OF_IMAGES}
    return folder, done


@pytest.fixture(scope='module')
def trained(damaged):
    """The output of an epoch."""
    return run_warm(TRAIN, 'demo.py', '--work-dir', 'work', '--verbose', cwd=damaged[0])


def test_training_reports_the_damaged_files_and_no_others(damaged, trained):
    folder, done = damaged
    ways = done.values()
    losses = [float(text) for text in re.findall(r' loss: (\S+)', trained)]
    assert losses and all(0 < loss < 1e4 for loss in losses), trained
    faults = listed(folder / 'work' / 'data_faults.txt')
    of_boxes = [line for line in faults if line[2] in ('boxes without area', OUTSIDE)]
    stems = sorted(Path(path).stem for split, path, *_ in faults if split == 'train')
    assert stems == sorted(path.stem for path in done)
    assert len(of_boxes) == sum(way in ('box without width', 'box far outside') for way in ways)
    assert [line[:3] for line in faults if line[0] == 'val'] == [
        ['val', f'data/shapes/JPEGImages/{BAD_TEST_IMAGE}', 'unreadable images']
    ]
    of_files = len(faults) - len(of_boxes)
    assert re.search(rf'WARNING - {of_files} faults in the data \(.*unreadable', trained)


@pytest.mark.parametrize('options', [['demo.py'], ['concatenated.py', '--tta']])
def test_evaluation_finds_nothing_in_an_image_that_cannot_be_decoded(options, damaged, trained):
    folder, config = damaged[0], options[0]
    out = ['--work-dir', config[:-3], '--out', 'found.pkl']
    run_warm(TEST, config, 'work/epoch_1.pth', *options[1:], *out, cwd=folder)
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
        args = ['demo.py', '../work/epoch_1.pth', '--strict', *root]
        assert 'mAP' in run_warm(TEST, *args, cwd=folder / 'sound')
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


def test_a_label_of_no_class_ends_training_in_one_line(damaged):
    """Of a data set that takes labels from a file as they are, as MMDetection's BaseDetDataset."""
    folder, label = damaged[0], len(CLASSES)
    boxes = [dict(bbox=[10, 10, 30, 40], bbox_label=label, ignore_flag=0)]
    path = 'data/shapes/JPEGImages/000032.jpg'
    entry = dict(img_path=path, height=90, width=90, instances=boxes)
    document = dict(metainfo=dict(classes=CLASSES), data_list=[entry] * 8)
    (folder / 'labels.json').write_text(json.dumps(document))
    (folder / 'unchecked.py').write_text(UNCHECKED)
    output = run_warm(TRAIN, 'unchecked.py', '--work-dir', 'refused', cwd=folder, fails=True)
    last = output.strip().splitlines()[-1]
    assert 'Traceback' not in output
    assert last.startswith(f'{path}: a ground-truth box has the label {label}, but ')
