"""DataFaultHook: what takes no part in a run is counted once, named and listed, and no more."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmdet.models import BaseDetector
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.model import MMDistributedDataParallel
from mmengine.structures import InstanceData

from ssd_plugin.datasets.faults import DataFault
from ssd_plugin.engine.hooks import data_fault_hook
from ssd_plugin.errors import DataRefusedError
from tests.support.data_folders import listed

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
    (100, 10, 100, 40): 'boxes outside the image',  # as pipelines clip them
    (10, 0, 30, 0): 'boxes outside the image',
}
UNREADABLE = DataFault('unreadable images', '/data/b.jpg', 'cut\noff')
MISSING = DataFault('missing images', '/data/a.jpg')


def sample(name, *boxes, box_type=torch.Tensor, labels=None, **meta):
    bboxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor(labels or [0] * len(boxes), dtype=torch.long)
    bboxes = bboxes if box_type is torch.Tensor else box_type(bboxes)
    instances = InstanceData(bboxes=bboxes, labels=labels)
    metainfo = dict(img_path=f'/data/{name}.jpg', img_shape=(50, 100)) | meta
    return DetDataSample(metainfo=metainfo, gt_instances=instances)


@pytest.fixture
def runner(tmp_path):
    """As much of a runner as the hook uses; ``warnings`` are the messages it was given."""
    warnings = []
    logger = logging.Logger('test')
    logger.addFilter(lambda record: warnings.append(record.getMessage()))
    loader = SimpleNamespace(dataset=SimpleNamespace())
    parts = dict(logger=logger, model=torch.nn.Module(), val_dataloader=loader)
    return SimpleNamespace(work_dir=str(tmp_path), warnings=warnings, **parts)


def build(**options):
    return HOOKS.build(dict(type='DataFaultHook', **options))


def see(hook, runner, *samples):
    """The hook before an iteration with these samples."""
    hook.before_train_iter(runner, 0, dict(inputs=None, data_samples=list(samples)))


def end_epoch(hook, runner):
    """The hook in a validation and at the end of the epoch."""
    hook.before_val(runner)
    hook.after_val(runner)
    hook.after_train_epoch(runner)


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
    # Nor are labels checked where the model has no number of classes.
    see(hook, runner, sample('a', GOOD, labels=[99]), sample('empty'))
    end_epoch(hook, runner)
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
        end_epoch(hook, runner)
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
    sent = []
    monkeypatch.setattr(
        data_fault_hook, 'all_gather_object', lambda mine: sent.append(mine) or sent
    )
    other.after_train_epoch(runner)
    runner.warnings.clear()
    see(hook, runner, faulty, sample('c', GOOD))
    hook.after_train_epoch(runner)
    assert runner.warnings[0].startswith('2 faults in the data')
    assert runner.warnings[1].startswith('3 of 5 ground-truth boxes')
    assert 'in 2 of 3 images' in runner.warnings[1]


def test_detections_are_removed_from_unreadable_images_in_evaluation_alone(runner):
    class Detector(BaseDetector):
        def forward(self, batch):
            metas = dict(unreadable=False), dict(unreadable=True)
            return [DetDataSample(metainfo=m, pred_instances=InstanceData(x=[1])) for m in metas]

        loss = predict = _forward = extract_feat = forward

    runner.model, hook, numbers = Detector(), build(), []
    for step in (lambda _: None, hook.before_val, hook.after_val):
        step(runner)
        numbers.append([len(one.pred_instances) for one in runner.model(None)])
    assert numbers == [[1, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize('distributed', [False, True])
@pytest.mark.parametrize('label, background', [(-1, ''), (3, ' (3 is the background)'), (255, '')])
def test_a_label_of_no_class_is_refused_by_name(label, background, distributed, runner):
    runner.model.bbox_head = SimpleNamespace(num_classes=3)
    if distributed:  # the wrapper without its processes
        wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
        torch.nn.Module.__init__(wrapper)
        wrapper.module, runner.model = runner.model, wrapper
    sound = sample('a', GOOD, GOOD, labels=[0, 2]), sample('empty')
    see(build(), runner, *sound)
    with pytest.raises(DataRefusedError) as caught:
        see(build(), runner, *sound, sample('b', GOOD, GOOD, GOOD, labels=[1, label, 99]))
    assert str(caught.value) == (
        f'/data/b.jpg: a ground-truth box has the label {label}, but '
        f'model.bbox_head.num_classes=3 takes labels from 0 to 2{background}: correct one of them'
    )


def test_images_that_a_config_leaves_out_for_having_no_objects_are_told_once(runner):
    """As information: they are no fault."""
    runner.train_dataloader = SimpleNamespace(dataset=SimpleNamespace(num_empty_left_out=3))
    build().before_train(runner)
    expected = '3 images without objects are not trained on (filter_empty_gt=True)'
    assert runner.warnings == [expected]
    runner.train_dataloader = SimpleNamespace(dataset=SimpleNamespace(num_empty_left_out=0))
    build().before_train(runner)
    assert runner.warnings == [expected]
