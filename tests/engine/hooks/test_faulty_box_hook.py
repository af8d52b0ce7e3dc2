"""FaultyBoxHook: what can't be trained on is counted once, named, and written down."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from ssd_plugin.engine.hooks import faulty_box_hook as hooks

GOOD = (10, 10, 30, 40)
NO_WIDTH = (10, 10, 10, 40)
NO_HEIGHT = (10, 40, 30, 40)
NOT_FINITE = (10, float('nan'), 30, 40)
INFINITE = (10, 10, float('inf'), 40)
SLIVER = (0, 10, 1e-7, 40)
HUGE = (-1e30, 10, 1e30, 40)
OUTSIDE = (100, 10, 120, 40)  # of images that are 100 wide and 50 high
BELOW = (10, 50, 30, 90)


def sample(name, *boxes, box_type=torch.Tensor):
    bboxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    if box_type is HorizontalBoxes:
        bboxes = HorizontalBoxes(bboxes)
    instances = InstanceData(bboxes=bboxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    metainfo = dict(img_path=f'/data/{name}.jpg', img_shape=(50, 100))
    return DetDataSample(metainfo=metainfo, gt_instances=instances)


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def runner(tmp_path):
    """As much of a runner as the hook uses, with the warnings it was given."""
    logger = logging.Logger('test')
    warnings = Warnings()
    logger.addHandler(warnings)
    return SimpleNamespace(work_dir=str(tmp_path), logger=logger, warnings=warnings.lines)


def see(hook, runner, *samples):
    hook.before_train_iter(runner, 0, dict(inputs=None, data_samples=list(samples)))


@pytest.mark.parametrize('box_type', [torch.Tensor, HorizontalBoxes])
def test_faults_are_told_apart_by_reason_and_image(box_type):
    faults = hooks.find_faults(
        [
            sample('a', GOOD, NO_WIDTH, NO_HEIGHT, box_type=box_type),
            sample('empty', box_type=box_type),
            sample('b', GOOD, GOOD, box_type=box_type),
            sample('c', NOT_FINITE, INFINITE, OUTSIDE, BELOW, NO_WIDTH, box_type=box_type),
        ]
    )
    assert faults == {
        '/data/a.jpg': {'without area': 2},
        '/data/c.jpg': {'not finite': 2, 'outside the image': 2, 'without area': 1},
    }


def test_a_box_too_thin_or_too_large_to_compute_with_is_a_fault():
    faults = hooks.find_faults([sample('a', GOOD, SLIVER, HUGE)])
    assert faults == {'/data/a.jpg': {'without area': 1, 'too large': 1}}


def test_images_without_a_path_go_by_their_id():
    one = sample('a', NO_WIDTH)
    nameless = DetDataSample(
        metainfo=dict(img_id=7, img_shape=(50, 100)), gt_instances=one.gt_instances
    )
    assert list(hooks.find_faults([nameless])) == ['7']


def test_sound_data_are_not_mentioned(runner, tmp_path):
    hook = HOOKS.build(dict(type='FaultyBoxHook'))
    see(hook, runner, sample('a', GOOD), sample('empty'))
    hook.before_val(runner)
    hook.after_train_epoch(runner)
    assert runner.warnings == []
    assert list(tmp_path.iterdir()) == []


def test_one_line_says_how_many_objects_in_which_images(runner, tmp_path):
    hook = HOOKS.build(dict(type='FaultyBoxHook', max_names=1))
    see(hook, runner, sample('b', GOOD, NO_WIDTH, OUTSIDE), sample('a', NO_HEIGHT))
    see(hook, runner, sample('c', GOOD))
    hook.after_train_epoch(runner)
    path = tmp_path / 'faulty_boxes.txt'
    assert runner.warnings == [
        '3 of 5 objects take no part in training (2 without area, 1 outside the image), '
        f'in 2 of 3 images: a.jpg, ...; all are listed in {path}'
    ]
    assert path.read_text().splitlines() == [
        '/data/a.jpg\t1 without area',
        '/data/b.jpg\t1 without area, 1 outside the image',
    ]


def test_what_is_seen_again_is_neither_counted_nor_reported_again(runner):
    hook = HOOKS.build(dict(type='FaultyBoxHook'))
    for _ in range(3):
        see(hook, runner, sample('a', GOOD, NO_WIDTH))
        hook.before_val(runner)
        hook.after_train_epoch(runner)
    assert len(runner.warnings) == 1
    assert runner.warnings[0].startswith('1 of 2 objects')
    see(hook, runner, sample('b', NO_WIDTH))
    hook.before_val(runner)
    assert runner.warnings[1].startswith('2 of 3 objects')


def test_an_object_that_a_crop_left_out_still_counts(runner):
    hook = HOOKS.build(dict(type='FaultyBoxHook'))
    see(hook, runner, sample('a', GOOD, NO_WIDTH, NO_HEIGHT))
    see(hook, runner, sample('a', GOOD))
    hook.after_train_epoch(runner)
    assert runner.warnings[0].startswith('2 of 3 objects')


def test_ranks_are_summed_and_a_image_both_saw_counts_once(runner, monkeypatch):
    other = HOOKS.build(dict(type='FaultyBoxHook'))
    see(other, runner, sample('a', GOOD, NO_WIDTH), sample('b', NO_WIDTH, NO_WIDTH))
    hook = HOOKS.build(dict(type='FaultyBoxHook'))
    see(hook, runner, sample('a', GOOD, NO_WIDTH), sample('c', GOOD))

    def gather(mine):
        return [mine, other.faults if mine is hook.faults else other.num_objects]

    monkeypatch.setattr(hooks, 'all_gather_object', gather)
    hook.after_train_epoch(runner)
    assert runner.warnings[0].startswith('3 of 5 objects')
    assert 'in 2 of 3 images' in runner.warnings[0]
