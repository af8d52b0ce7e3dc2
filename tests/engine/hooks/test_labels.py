"""Labels that the head has no class for: refused by name, before they come to a GPU."""

import json

import pytest
import torch
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.model import MMDistributedDataParallel
from torch import nn

from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.engine.hooks.data_fault_hook import check_labels
from ssd_plugin.errors import DataRefusedError
from tests.support.commands import ROOT, run_warm
from tests.support.helpers import instances, tiny_head
from tests.support.tiny_training import write_training

BOX = [10, 10, 40, 40]


def test_labels_from_zero_to_the_last_class_are_accepted():
    check_labels([torch.tensor([0, 2]), torch.tensor([], dtype=torch.long)], 3, ['a', 'b'])


@pytest.mark.parametrize('label, background', [(-1, ''), (3, ' (3 is the background)'), (255, '')])
def test_one_that_is_none_is_named_with_its_image_and_the_key(label, background):
    labels = [torch.tensor([0, 1]), torch.tensor([2, label, 99])]
    with pytest.raises(DataRefusedError) as error:
        check_labels(labels, 3, ['a.jpg', 'b.jpg'])
    assert str(error.value) == (
        f'b.jpg: an object has the label {label}, but model.bbox_head.num_classes=3 takes labels '
        f'from 0 to 2{background}: correct one of them'
    )


def see(model, *labels):
    """The hook before an iteration with an image of each list of labels."""
    samples = [
        DetDataSample(
            metainfo=dict(img_path=f'{i}.jpg', img_shape=(64, 64)),
            gt_instances=instances([BOX] * len(n), n),
        )
        for i, n in enumerate(labels)
    ]
    hook = HOOKS.build(dict(type='DataFaultHook'))
    runner = type('Runner', (), dict(model=model))
    hook.before_train_iter(runner, 0, dict(data_samples=samples))


def detector(num_classes):
    model = nn.Module()
    model.bbox_head = tiny_head(num_classes=num_classes)
    return model


def wrapped(model, monkeypatch):
    """As in a distributed run, without its processes."""
    monkeypatch.setattr(
        MMDistributedDataParallel, '__init__', lambda self: nn.Module.__init__(self)
    )
    wrapper = MMDistributedDataParallel()
    wrapper.module = model
    return wrapper


@pytest.mark.parametrize('distributed', [False, True])
def test_the_hook_refuses_them_before_the_iteration(monkeypatch, distributed):
    model = detector(3)
    model = wrapped(model, monkeypatch) if distributed else model
    see(model, [0, 2], [], [1])
    with pytest.raises(DataRefusedError, match='^2.jpg: .*label 3'):
        see(model, [0, 2], [], [1, 3])


def test_a_model_without_a_number_of_classes_is_left_alone():
    see(nn.Linear(1, 1), [99])


def test_a_training_run_ends_with_one_line(tmp_path):
    """Of a data set that takes labels from a file as they are, as MMDetection's BaseDetDataset."""
    label = len(CLASSES)
    extra = f"""
data = dict(type='BaseDetDataset', ann_file={str(tmp_path / 'labels.json')!r},
            metainfo=dict(classes=classes), pipeline=pipeline)
train_dataloader['dataset'] = data
custom_hooks = [dict(type='NumClassCheckHook'), dict(type='DataFaultHook')]
"""
    config = write_training(tmp_path, extra)
    images = sorted((tmp_path / 'data/JPEGImages').glob('*.jpg'))[:4]
    objects = [dict(bbox=BOX, bbox_label=label, ignore_flag=0)]
    data_list = [
        dict(img_path=str(path), height=90, width=90, instances=objects) for path in images
    ]
    document = dict(metainfo=dict(classes=CLASSES), data_list=data_list)
    (tmp_path / 'labels.json').write_text(json.dumps(document))
    said = run_warm(ROOT / 'tools/train.py', config, '--work-dir', 'work', cwd=tmp_path, fails=True)
    last = said.strip().splitlines()[-1]
    assert 'Traceback' not in said
    assert last.startswith(str(tmp_path / 'data/JPEGImages'))
    assert f'the label {label}, but model.bbox_head.num_classes={label} takes labels' in last
