"""Other SSDs beside ours: with the same weights, they have the same losses and detections."""

import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from tests.support import helpers as h
from tests.support import tiny_detector as tiny
from tests.support.commands import ROOT, run_warm
from tests.support.drawn_data import write_shapes
from tests.support.peer_detectors import DETECTORS, LIGHT_NORM, with_detector

SCRIPT = ROOT / 'tests' / 'long' / 'side_by_side.py'
PEERS = DETECTORS[1:]
LIGHT = dict(use_depthwise=True, norm_cfg=dict(type='BN', **LIGHT_NORM), act_cfg=dict(type='ReLU6'))
PREPROCESSOR = dict(type='SSDDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3)


def build(name, **head):
    """A detector of three classes on the tiny priors; `head` are options of our head."""
    cfg = Config(dict(model=dict(
        type='SingleStageDetector', data_preprocessor=PREPROCESSOR,
        backbone=dict(type='ThreeMaps'), bbox_head=h.tiny_head_config() | head, **h.TINY_CFG,
    )))  # fmt: skip
    with_detector(cfg, name)
    return MODELS.build(cfg.model)


def branches(model):
    """The branches for scores of all levels, and those for deltas."""
    if hasattr(model, 'ssd'):
        parts = model.ssd.head.classification_head, model.ssd.head.regression_head
        return [part.module_list for part in parts]
    return [model.bbox_head.cls_convs, model.bbox_head.reg_convs]


def last_convs(branch):
    return [[m for m in level.modules() if isinstance(m, nn.Conv2d)][-1] for level in branch]


def same_weights(peer, **head):
    """Ours and the peer with the same random weights, and with scores that tell priors apart."""
    torch.manual_seed(0)
    ours, other = build('ours', **head), build(peer, **head)
    for branch, spread in zip(branches(ours), (0.6, 0.2)):
        for conv in last_convs(branch):
            nn.init.normal_(conv.weight, std=spread / conv.kernel_size[0])
    for conv in last_convs(branches(ours)[0]):
        conv.bias.data.view(-1, 4)[:, -1] = 3  # background
    other.backbone.load_state_dict(ours.backbone.state_dict())
    for own, their in zip(branches(ours), branches(other)):
        values = zip(own.state_dict().values(), their.state_dict().values(), strict=True)
        for source, target in values:
            target.copy_(source)
    if peer == 'torchvision':  # background is its first class
        for conv in last_convs(branches(other)[0]):
            for value in (conv.weight.data, conv.bias.data):
                value.copy_(value.unflatten(0, (-1, 4)).roll(1, 1).flatten(0, 1))
    return ours, other


def batch_of(model, ours):
    """Images without two equal places, as the network takes them; two boxes, none, and one."""
    data = model.data_preprocessor(tiny.data(ours, scale=(0.5, 0.25)), training=True)
    inputs = torch.randn(data['inputs'].shape, generator=torch.Generator().manual_seed(0))
    return dict(batch_inputs=inputs, batch_data_samples=data['data_samples'])


def losses_of(model, ours):
    """Sums over what MMDetection gives as one loss an image."""
    losses = model.loss(**batch_of(model, ours))
    return {name: sum(loss) if isinstance(loss, list) else loss for name, loss in losses.items()}


def number_matched(ours):
    priors = InstanceData(priors=torch.tensor(h.PRIORS))
    truth = [sample.gt_instances for sample in tiny.data(ours)['data_samples']]
    return sum(
        int((ours.bbox_head.assigner.assign(priors, image).gt_inds > 0).sum()) for image in truth
    )


@pytest.mark.parametrize('head', [{}, LIGHT], ids=['convolutions', 'depthwise'])
@pytest.mark.parametrize('peer', PEERS)
def test_with_the_same_weights_the_others_have_our_losses(peer, head):
    ours, other = same_weights(peer, **head)
    mine, theirs = losses_of(ours, ours), losses_of(other, ours)
    assert mine['loss_cls'] > 1 and mine['loss_bbox'] > 0.1
    # MMDetection counts an image without matched priors, of which there is one, as if it had one.
    matched = number_matched(ours)
    share = matched / (matched + 1) if peer == 'mmdet' else 1
    for name in ('loss_cls', 'loss_bbox'):
        torch.testing.assert_close(theirs[name].squeeze(), mine[name] * share)


@pytest.mark.parametrize('head', [{}, LIGHT], ids=['convolutions', 'depthwise'])
@pytest.mark.parametrize('peer', PEERS)
def test_with_the_same_weights_the_others_have_our_detections(peer, head):
    models = same_weights(peer, **head)
    for model in models:
        losses_of(model, models[0])  # gives the norms their statistics
    with torch.no_grad():
        expected, found = (
            [sample.pred_instances for sample in model.eval().predict(**batch_of(model, models[0]))]
            for model in models
        )
    assert all(len(instances) > 20 for instances in expected)
    for mine, theirs in zip(expected, found, strict=True):
        for field in ('scores', 'labels', 'bboxes'):
            torch.testing.assert_close(theirs[field], mine[field], rtol=1e-4, atol=1e-3)


def config_of(folder):
    """The config that a run has left in its folder, whose path does not count."""
    (path,) = folder.glob('*.py')
    return Config.fromstring(path.read_text().replace(str(folder), 'run'), '.py').to_dict()


def data_of(folder):
    """The images and boxes of each part of the data, as a run has used them."""
    return {path.name: json.loads(path.read_text()) for path in folder.glob('data/*.json')}


def test_runs_differ_in_the_detector_alone_and_are_reported(tmp_path):
    write_shapes(tmp_path / 'shapes', num_train=20, num_test=6)
    options = ['--config', ROOT / 'configs/demo_shapes.py', '--epochs', 1, '--seed', 3]
    light = ['--cfg-options', 'model.bbox_head.use_depthwise=True']
    found, configs = {}, {}
    for name in DETECTORS:
        out = tmp_path / f'{name}.json'
        run_warm(SCRIPT, 'shapes', *options, '--detector', name, '--out', out, *light, cwd=tmp_path)
        found[name], configs[name] = json.loads(out.read_text()), config_of(tmp_path / name)
        assert found[name]['detector'] == name and found[name]['seed'] == 3
        assert 0 <= found[name]['metrics']['pascal_voc/mAP'] <= 1 and found[name]['seconds'] > 0
    own = configs['ours']
    for name in PEERS:
        assert changed(own, configs[name]) == {'model'}
        assert data_of(tmp_path / name) == data_of(tmp_path / 'ours') != {}
        parts = {'type', 'data_preprocessor', 'bbox_head', 'train_cfg', 'test_cfg'}
        assert changed(own['model'], configs[name]['model']) <= parts

    said = run_warm(SCRIPT, '--report', '.', cwd=tmp_path)
    assert all(f'{found[name]["metrics"]["pascal_voc/mAP"]:.3f}' in said for name in DETECTORS)
    assert (tmp_path / 'side_by_side.png').read_bytes().startswith(b'\x89PNG')


def changed(own, other):
    """The entries of a dict that are others, or none, in another."""
    return {key for key in own if key not in other or own[key] != other[key]}
