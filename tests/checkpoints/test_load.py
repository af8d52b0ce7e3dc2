"""Every command takes exactly the weights of its detector, runs no code, and says so in a line."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ssd_plugin.checkpoints.load import load_detector
from ssd_plugin.datasets.shapes import CLASSES
from ssd_plugin.errors import CheckpointError
from tests.support.commands import ROOT, run_warm
from tests.support.tiny_training import BY_ITERATION, PLAIN, write_training
from tests.support.weights import Payload


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """A config in a folder with its data, and the weights of its detector."""
    folder = tmp_path_factory.mktemp('weights')
    cfg = Config.fromfile(write_training(folder, BY_ITERATION + PLAIN))
    init_default_scope('mmdet')
    return cfg, MODELS.build(cfg.model).state_dict()


@pytest.fixture(scope='module')
def folder(good):
    """The folder, with checkpoints for commands to refuse."""
    cfg, state = good
    folder = Path(cfg.filename).parent
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=Payload('ran'))), folder / 'code.pth')
    lacking = {name: value for name, value in state.items() if 'conv1' not in name}
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=lacking, meta=meta), folder / 'lacking.pth')
    return folder


# What follows the name of the tool; WEIGHTS is the checkpoint.
DETECTING = {
    'test.py': 'tiny.py WEIGHTS',
    'test.py --tta': 'tiny.py WEIGHTS --tta',
    'test.py --data-root': 'tiny.py WEIGHTS --data-root data',
    'detect.py': 'tiny.py WEIGHTS data/JPEGImages --out out',
    'show.py matches': 'matches tiny.py --checkpoint WEIGHTS',
    'show.py errors': 'errors tiny.py WEIGHTS',
    'show.py pr': 'pr tiny.py WEIGHTS',
    'export_onnx.py': 'tiny.py WEIGHTS out.onnx',
}
READING = DETECTING | {
    'train.py --resume': 'tiny.py --resume WEIGHTS',
    'train.py load_from': 'tiny.py --cfg-options load_from=WEIGHTS',
    'train.py Pretrained': 'tiny.py --cfg-options model.backbone.init_cfg.type=Pretrained '
    'model.backbone.init_cfg.checkpoint=WEIGHTS',
    'convert_checkpoint.py': 'auto WEIGHTS good.pth',
    'state_digest.py': 'WEIGHTS',
}


def last_line(way, arguments, weights, folder):
    """What a command that ends with an error says last."""
    arguments = arguments.replace('WEIGHTS', weights).split()
    said = run_warm(ROOT / 'tools' / way.split()[0], *arguments, cwd=folder, fails=True)
    assert 'Traceback' not in said
    return said.strip().splitlines()[-1]


@pytest.mark.parametrize('way', READING)
def test_a_command_refuses_a_checkpoint_that_would_run_code(way, folder):
    said = last_line(way, READING[way], 'code.pth', folder)
    assert 'code.pth is refused: to read it would run' in said and said.endswith('open')
    assert not (folder / 'ran').exists()


@pytest.mark.parametrize('way', DETECTING)
def test_a_command_refuses_weights_of_another_model(way, folder):
    said = last_line(way, DETECTING[way], 'lacking.pth', folder)
    assert 'lacking.pth does not fit the config: it has no backbone.conv1.weight' in said


def test_it_is_a_file_that_runs_code(folder, monkeypatch):
    monkeypatch.chdir(folder)
    torch.load('code.pth', weights_only=False)
    assert (folder / 'ran').exists()
    (folder / 'ran').unlink()


def without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


CONV, BIAS = 'backbone.conv1.weight', 'backbone.bn1.bias'


@pytest.mark.parametrize(
    ('missing', 'changed', 'message'),
    [
        ([CONV], [], f'it has no {CONV}$'),
        ([CONV, BIAS], [], f'it has no {CONV} and 1 other parameters$'),
        ([], [BIAS], f'size mismatch for {BIAS}'),
        ([], ['backbone.layer9.weight'], 'the model has no backbone.layer9.weight$'),
    ],
    ids=['one is missing', 'two are missing', 'another shape', 'one more'],
)
def test_weights_that_differ_from_the_models_are_refused(good, missing, changed, message, tmp_path):
    cfg, state = good
    state = without(state, *missing) | {name: torch.zeros(3) for name in changed}
    torch.save(dict(state_dict=state), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match=message) as error:
        load_detector(cfg, str(tmp_path / 'w.pth'))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_detector_has_the_checkpoints_weights_and_class_names(good, prefix, tmp_path):
    cfg, state = good
    kept = without(state, *(name for name in state if name.endswith('num_batches_tracked')))
    saved = {f'{prefix}{name}': value + 1 for name, value in kept.items()}
    names = CLASSES[::-1]
    for meta, expected in ((dict(dataset_meta=dict(classes=names)), names), ({}, CLASSES)):
        torch.save(dict(state_dict=saved, meta=meta), tmp_path / 'w.pth')
        detector, classes = load_detector(cfg, str(tmp_path / 'w.pth'))
        assert not detector.training
        assert classes == expected
        for name, value in kept.items():
            assert torch.equal(detector.state_dict()[name], value + 1)


def test_names_must_be_as_many_as_the_models_classes(good, tmp_path):
    cfg, state = good
    for meta in (dict(dataset_meta=dict(classes=('a', 'b'))), dict(CLASSES=['a', 'b'])):
        torch.save(dict(state_dict=state, meta=meta), tmp_path / 'w.pth')
        with pytest.raises(ValueError, match=r'names 2 classes \(a, b\), but has 6 scores'):
            load_detector(cfg, str(tmp_path / 'w.pth'))
