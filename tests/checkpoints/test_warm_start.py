"""Training begins with all that a checkpoint knows, and says what it does not know."""

import re

import pytest
import torch
from mmdet.datasets import VOCDataset
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torchvision.models.detection import ssd300_vgg16

from ssd_plugin.checkpoints.convert import convert
from ssd_plugin.checkpoints.files import Weights
from ssd_plugin.checkpoints.warm_start import warm_start
from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.errors import CheckpointError, ConfigError
from tests.support.commands import ROOT, run_warm
from tests.support.exported import read_config
from tests.support.in_processes import run_ranks
from tests.support.peers import torchvision_model
from tests.support.tiny_training import PLAIN, write_training
from tests.support.weights import layout_of

TRAIN = ROOT / 'tools/train.py'
MINED = dict(type='HardNegativeMiningLoss')
SIGMOID = dict(type='FocalLoss', use_sigmoid=True)
KEPT = 'bbox_head.cls_convs'


def build(num_classes, loss=None, name='demo_shapes', seed=0, **changes):
    """A detector with random weights, biases of the class branch included."""
    changes |= {'bbox_head.num_classes': num_classes, 'bbox_head.loss_cls': loss}
    cfg = read_config(name, **changes)
    init_default_scope('mmdet')
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    for name, value in model.named_parameters():
        if name.startswith('bbox_head'):
            value.data.normal_()
    return model


def weights_of(model, classes=None):
    meta = dict(dataset_meta=dict(classes=classes)) if classes else {}
    return Weights('w.pth', {k: v.clone() for k, v in model.state_dict().items()}, meta)


def rows(state, outputs, score):
    """The weights of one score of all priors, level by level."""
    layers = [state[name] for name in state if name.startswith(KEPT) and name.endswith('weight')]
    return torch.cat([layer[score::outputs].flatten() for layer in layers])


@pytest.mark.parametrize('loss', [None, SIGMOID], ids=['softmax', 'sigmoid'])
def test_known_classes_keep_their_scores_and_the_others_start_anew(loss):
    known, new = ('cat', 'Traffic Light', 'dog'), ('pig', 'dog', 'trafficlight', 'cow')
    old, model = build(3, loss), build(4, loss, seed=1)
    weights, line = warm_start(model, weights_of(old, known), new)
    background = loss is None
    before, fresh = old.state_dict(), model.state_dict()
    outputs = 3 + background, 4 + background
    for score, source in enumerate([None, 2, 1, None] + [3] * background):
        found = rows(weights.state, outputs[1], score)
        if source is None:
            assert torch.equal(found, rows(fresh, outputs[1], score))
        else:
            assert torch.equal(found, rows(before, outputs[0], source))
    others = [name for name in before if not name.startswith(KEPT)]
    assert all(torch.equal(weights.state[name], before[name]) for name in others)
    kept = ', background kept' * background
    assert line == (
        'Warm start from w.pth: 2 of 4 classes known (dog, trafficlight), 2 new (pig, cow)'
        f'{kept}; {len(others)} other parameters kept'
    )
    model.load_state_dict(weights.state)


def test_scores_of_another_kind_of_loss_start_anew():
    model = build(2, SIGMOID, seed=1)
    weights, line = warm_start(model, weights_of(build(2), ('a', 'b')), ('a', 'b'))
    assert all(torch.equal(weights.state[n], v) for n, v in model.state_dict().items() if KEPT in n)
    assert '0 of 2 classes known, 2 new (a, b);' in line


@pytest.mark.parametrize(('number', 'known'), [(2, '2 of 2 classes known (a, b)'), (3, '0 of 2')])
def test_scores_without_names_are_kept_if_they_are_as_many(number, known):
    model = build(2, seed=1)
    weights, line = warm_start(model, weights_of(build(number)), ('a', 'b'))
    assert f'w.pth, which names no classes: {known}' in line and 'background kept' in line
    model.load_state_dict(weights.state)


def test_a_head_with_one_layer_for_all_levels_starts_warm_too():
    name = 'retinanet_r50_hnm_voc'
    small = {'backbone.init_cfg': None, 'backbone.depth': 18, 'neck.in_channels': [64] * 4}
    small |= {'backbone.base_channels': 8, 'neck.in_channels': [8, 16, 32, 64]}
    old, model = (build(n, MINED, name, n, **small) for n in (2, 3))
    weights, line = warm_start(model, weights_of(old, ('a', 'b')), ('c', 'b', 'a'))
    key = 'bbox_head.retina_cls.weight'
    found, before = weights.state[key].unflatten(0, (-1, 4)), old.state_dict()[key]
    assert torch.equal(found[:, 1:], before.unflatten(0, (-1, 3))[:, [1, 0, 2]])
    assert '2 of 3 classes known (b, a), 1 new (c), background kept' in line


def test_what_does_not_fit_is_refused_with_the_numbers():
    model = build(2)
    other = build(2, **{'bbox_head.anchor_generator.ratios': [[2], [2, 3], [2, 3], [2]]})
    said = 'it has 4 levels of 4, 6, 6, 4 priors a cell, the config 4 levels of 4, 4, 4, 4 priors'
    with pytest.raises(CheckpointError, match=said):
        warm_start(model, weights_of(other, ('a', 'b')), ('a', 'b'))
    with pytest.raises(CheckpointError, match='names 2 classes .a, b., but has 6 scores'):
        warm_start(model, weights_of(build(5), ('a', 'b')), ('a', 'b'))
    with pytest.raises(ConfigError, match='num_classes is 2, and the training data have 3 classes'):
        warm_start(model, weights_of(model, ('a', 'b')), ('a', 'b', 'c'))


# --- as a user types it ----------------------------------------------------------------------


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Weights of the tiny detector, which knows the five drawn classes, and its data."""
    folder = tmp_path_factory.mktemp('warm')
    write_training(folder, PLAIN)
    run_warm(TRAIN, 'tiny.py', '--cfg-options', 'train_cfg.max_epochs=1', cwd=folder)
    return folder


WARM = re.compile(r'Warm start from (.*)')


@pytest.mark.parametrize('ema', [False, True], ids=['', 'EMAHook'])
def test_training_starts_from_the_weights(ema, folder):
    """The checkpoint after training with a rate of 0 has them; so has its running average."""
    data = ['--data-root', 'data', '--classes', 'star,circle']
    path = next(iter(folder.glob('work_dirs/tiny/iter_*.pth')))
    options = ['optim_wrapper.optimizer.lr=0', 'train_cfg.max_epochs=1']
    hooks = [dict(type='EMAHook')] if ema else []
    text = f"_base_ = 'tiny.py'\nparam_scheduler = []\ncustom_hooks = {hooks}\n"
    # All of the backbone comes from the checkpoint: that file is not missed.
    text += "pretrained = dict(type='Pretrained', checkpoint='nowhere.pth')\n"
    text += 'model = dict(backbone=dict(init_cfg=pretrained))\n'
    (folder / 'next.py').write_text(text)
    said = run_warm(
        TRAIN, 'next.py', *data, '--load-from', path, '--cfg-options', *options, cwd=folder
    )
    (line,) = WARM.findall(said) or [said]
    assert line.startswith(f'{path}: 2 of 2 classes known (star, circle), background kept; ')
    before = torch.load(path)['state_dict']
    last = max(folder.glob('work_dirs/next/*_*.pth'), key=lambda file: file.stat().st_mtime)
    after = torch.load(last)
    states = [after['state_dict']]
    if ema:
        states.append({k[7:]: v for k, v in after['ema_state_dict'].items() if k[:7] == 'module.'})
    for state in states:
        for score, source in enumerate((CLASSES.index('star'), CLASSES.index('circle'), 5)):
            torch.testing.assert_close(rows(state, 3, score), rows(before, 6, source))
        for name in ('backbone.conv1.weight', 'bbox_head.reg_convs.2.0.weight'):
            torch.testing.assert_close(state[name], before[name])
    for path in folder.glob('work_dirs/next/*'):
        if path.is_file():
            path.unlink()


def test_each_process_starts_from_the_same(folder):
    path = next(iter(folder.glob('work_dirs/tiny/iter_*.pth')))
    options = ['--launcher', 'pytorch', '--work-dir', 'two', '--load-from', path]
    options += ['--cfg-options', 'train_cfg.max_epochs=1']
    said = run_ranks(2, TRAIN, 'tiny.py', *options, cwd=folder)
    assert [len(WARM.findall(text)) for text in said] == [1, 0], said


def test_resuming_is_no_warm_start(folder):
    said = run_warm(
        TRAIN, 'tiny.py', '--resume', '--cfg-options', 'train_cfg.max_epochs=2', cwd=folder
    )
    assert not WARM.findall(said)


def test_a_converted_model_starts_warm():
    """COCO's 'dining table' is VOC's 'diningtable'; 'airplane' is not its 'aeroplane'."""
    peer = torchvision_model(ssd300_vgg16, 91)
    checkpoint = convert(peer.state_dict(), layout_of('torchvision'))
    weights = Weights('tv.pth', checkpoint['state_dict'], checkpoint['meta'])
    model = build(20, name='ssd300_voc', **{'backbone.init_cfg': None})
    classes = VOCDataset.METAINFO['classes']
    weights, line = warm_start(model, weights, classes)
    assert re.search(r'tv.pth: (\d+) of 20 classes known', line)[1] == '16'
    assert '4 new (aeroplane, motorbike, sofa, tvmonitor), background kept' in line
    source = peer.state_dict()['head.classification_head.module_list.0.weight']
    found = weights.state['bbox_head.cls_convs.0.0.weight']
    assert torch.equal(found[classes.index('person') :: 21], source[1::91])  # its first class
    assert torch.equal(found[20::21], source[0::91])
    with pytest.raises(CheckpointError, match='convert it first, python tools/convert_checkpoint'):
        warm_start(model, Weights('in.pth', dict(peer.state_dict()), {}), classes)
