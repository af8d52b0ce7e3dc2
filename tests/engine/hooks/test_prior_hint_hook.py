"""PriorHintHook: most boxes with only their forced prior give a hint, after the first epoch."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import TASK_UTILS

from ssd_plugin.engine.hooks.prior_hint_hook import PriorHintHook, count_boxes
from tests.support import helpers as h
from tests.support.commands import ROOT, run_warm
from tests.support.tiny_training import BY_ITERATION, write_training

HINT = 'To fit the priors to them: python tools/fit_priors.py run/tiny.py'
HOOK = """
custom_hooks.append(dict(type='PriorHintHook'))
pipeline[2] = dict(type='Resize', scale=(size, size), keep_ratio=False)
"""
FAR = "model['bbox_head']['anchor_generator'].update(min_sizes=[2, 2, 2], max_sizes=[3, 3, 3])\n"


def train(folder, extra, *options):
    config = write_training(folder, HOOK + extra)
    return run_warm(
        ROOT / 'tools/train.py', config, '--work-dir', 'run', '--verbose', *options, cwd=folder
    )


@pytest.mark.parametrize('loop', ['', BY_ITERATION], ids=['epochs', 'iterations'])
def test_priors_far_from_all_boxes_give_one_hint_after_an_epoch(loop, tmp_path):
    said = train(tmp_path, FAR + loop)
    assert said.count(HINT) == 1
    assert '100% of the ground-truth boxes overlap no prior by an IoU of 0.5' in said
    # Five iterations are an epoch; the hint comes before the fifth's line.
    before, after = said.split(HINT)
    for text, number in ((before, 4), (after, 5)):
        assert (f'[ {number}/15]' if loop else f'[1][{number}/5]') in text


def test_priors_near_the_boxes_give_none_and_a_resumed_run_neither(tmp_path):
    assert 'fit_priors' not in train(tmp_path, '')
    (tmp_path / 'far').mkdir()
    options = '--cfg-options', 'train_cfg.max_epochs=1'
    assert HINT in train(tmp_path / 'far', FAR, *options)
    assert 'fit_priors' not in train(tmp_path / 'far', FAR, '--resume')


def test_an_assigner_of_other_rules_is_left_alone():
    """A head needs `assign_batch` of it, and no threshold."""
    hook, head, assigner = PriorHintHook(), h.tiny_head(), SimpleNamespace(assign_batch=max)
    head.assigner = assigner
    runner = SimpleNamespace(iter=0, model=SimpleNamespace(bbox_head=head))
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    hook.after_train(runner)
    assert assigner.assign_batch is max


@pytest.mark.parametrize('thr', [0.3, 0.5])
def test_boxes_are_counted_as_a_loop_over_them_does(thr):
    batch = h.random_batch(counts=(4, 0, 9, 6), seed=3)
    batch.boxes[0][:2] = [[1, 1, 3, 60], [10, 50, 62, 52]]  # that no prior resembles
    assigner = TASK_UTILS.build(dict(type='BatchMaxIoUAssigner', pos_iou_thr=thr, neg_iou_thr=thr))
    num = max(map(len, batch.boxes))
    padded = torch.zeros(4, num, 4)
    mask = torch.zeros(4, num, dtype=torch.bool)
    forced = matched = 0
    for image, boxes in enumerate(batch.boxes):
        padded[image, : len(boxes)] = h.as_boxes(boxes)
        mask[image, : len(boxes)] = True
        gt_inds, overlaps = h.naive_match(h.PRIORS, boxes, pos_iou_thr=thr, neg_iou_thr=thr)
        for g in range(len(boxes)):
            own = [overlap for i, overlap in zip(gt_inds, overlaps) if i == g + 1]
            matched += bool(own)
            forced += bool(own) and max(own) < thr
    labels = torch.where(mask, 0, -1)
    result = assigner.assign_batch(torch.tensor(h.PRIORS), padded, labels, mask)
    assert count_boxes(result, num, thr).tolist() == [forced, matched]
    assert matched == 19 and 2 <= forced < 19
