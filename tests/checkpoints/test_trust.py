"""A checkpoint is data: whichever way it comes, what it asks to run is not run."""

import http.server
import pickle
import re
import threading
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from torch.torch_version import TorchVersion

from ssd_plugin.compat import torch_load as loading
from ssd_plugin.compat.restricted_pickle import RestrictedPickle
from ssd_plugin.errors import CheckpointError
from tests.support.commands import ROOT, run_warm
from tests.support.tiny_training import BY_ITERATION, write_training

CONFIG = (
    BY_ITERATION
    + """
custom_imports = dict(imports=['ssd_plugin'])
model.pop('neck')
test_dataloader, test_evaluator = val_dataloader, val_evaluator
test_cfg = dict(type='TestLoop')
"""
)
REFUSED = r'bad\.pth is refused: to read it would run (_?io\.)?open'


class Payload:
    """Makes an empty file of a name when a pickle of it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


def hide(payload):
    """Checkpoints with a payload: with the weights, beside them, and among a run's own data."""
    weight = {'backbone.conv1.weight': torch.zeros(1)}
    scalars = {'train/loss': HistoryBuffer([1.0], [1]), 'more': payload}
    return dict(
        weights=dict(state_dict=dict(weight, more=payload)),
        beside=dict(state_dict=weight, meta=dict(dataset_meta=payload)),
        history=dict(state_dict=weight, message_hub=dict(log_scalars=scalars)),
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A config, its data, and a checkpoint that would leave a file named 'ran'."""
    folder = tmp_path_factory.mktemp('trust')
    write_training(folder, CONFIG)
    torch.save(hide(Payload(folder / 'ran'))['beside'], folder / 'bad.pth')
    return folder


PRETRAINED = [f'model.backbone.init_cfg.{key}' for key in ('type=Pretrained', 'checkpoint=bad.pth')]
WAYS_IN = {
    'test.py': ('tiny.py', 'bad.pth'),
    'test.py --data-root': ('tiny.py', 'bad.pth', '--data-root', 'data'),
    'train.py --resume': ('tiny.py', '--resume', 'bad.pth'),
    'train.py load_from': ('tiny.py', '--cfg-options', 'load_from=bad.pth'),
    'train.py Pretrained': ('tiny.py', '--cfg-options', *PRETRAINED),
    'detect.py': ('tiny.py', 'bad.pth', 'data/JPEGImages', '--out', 'out'),
    'show.py matches': ('matches', 'tiny.py', '--checkpoint', 'bad.pth'),
    'show.py errors': ('errors', 'tiny.py', 'bad.pth'),
    'export_onnx.py': ('tiny.py', 'bad.pth', 'bad.onnx'),
    'convert_checkpoint.py': ('auto', 'bad.pth', 'good.pth'),
}


@pytest.mark.parametrize('way', WAYS_IN)
def test_a_command_refuses_it_in_one_line(way, folder):
    tool = ROOT / 'tools' / way.split()[0]
    said = run_warm(tool, *WAYS_IN[way], cwd=folder, fails=True)
    assert not (folder / 'ran').exists()
    assert 'Traceback' not in said
    assert re.search(REFUSED + '$', said.strip())


def test_the_digest_of_it_is_refused(folder):
    run_warm(ROOT / 'tools' / 'state_digest.py', 'bad.pth', cwd=folder, fails=True)
    assert not (folder / 'ran').exists()


def test_it_is_a_file_that_runs_code(folder):
    torch.load(folder / 'bad.pth', weights_only=False)
    assert (folder / 'ran').exists()
    (folder / 'ran').unlink()


# --- by MMEngine ---------------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Where a server has the files of ``tmp_path``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'downloaded'))
    handler = partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join()


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'as before PyTorch 1.6'])
@pytest.mark.parametrize('place', hide(None))
@pytest.mark.parametrize('source', ['a file', 'an address'])
def test_mmengine_reads_no_code(source, place, zipped, address, tmp_path):
    payload = Payload(tmp_path / 'ran')
    path = tmp_path / 'bad.pth'
    torch.save(hide(payload)[place], path, _use_new_zipfile_serialization=zipped)
    name = str(path) if source == 'a file' else f'{address}/bad.pth'
    for _ in range(2):  # the second time it has been downloaded
        with pytest.raises(CheckpointError, match=REFUSED) as caught:
            CheckpointLoader.load_checkpoint(name, map_location='cpu')
        assert str(caught.value).startswith(name) and '\n' not in str(caught.value)
    assert not (tmp_path / 'ran').exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / 'ran').exists(), 'it is a file that runs code'


def test_mmengine_reads_weights_from_an_address(address, tmp_path):
    model = torch.nn.Linear(2, 1)
    history = HistoryBuffer([1.0], [1])
    torch.save(dict(state_dict=model.state_dict(), message_hub=history), tmp_path / 'good.pth')
    other = torch.nn.Linear(2, 1)
    load_checkpoint(other, f'{address}/good.pth')
    assert torch.equal(other.weight, model.weight)


def test_what_is_no_checkpoint_is_not_called_code(tmp_path):
    (tmp_path / 'text.pth').write_text('no checkpoint')
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'text.pth'))


# --- on PyTorch before 2.6 -----------------------------------------------------------------------


@pytest.fixture
def older_torch(monkeypatch):
    """``torch.load`` as the plugin has it there."""
    monkeypatch.setattr(torch, 'load', torch.load)  # put back after the test
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.5.1'))
    load = torch.load
    loading.read_no_code_on_older_pytorch()
    assert torch.load is not load


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('options', [{}, dict(weights_only=True), dict(weights_only=None)], ids=str)
@pytest.mark.parametrize('place', hide(None))
def test_older_pytorch_reads_no_code(older_torch, place, options, zipped, tmp_path):
    path = tmp_path / 'bad.pth'
    payload = Payload(tmp_path / 'ran')
    torch.save(hide(payload)[place], path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError) as caught:
        torch.load(path, map_location='cpu', **options)
    assert loading.code_asked_for(caught.value).endswith('open')
    with pytest.raises(CheckpointError, match=REFUSED):
        CheckpointLoader.load_checkpoint(str(path))
    assert not (tmp_path / 'ran').exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / 'ran').exists(), 'who asks for it gets it'


@pytest.mark.parametrize('zipped', [True, False])
def test_older_pytorch_reads_what_mmengine_writes(older_torch, zipped, tmp_path):
    written = dict(
        state_dict=torch.nn.BatchNorm2d(2).state_dict(),
        half=torch.ones(2, dtype=torch.bfloat16),
        history=HistoryBuffer([1.0, 3.0], [1, 1]),
        scores=[np.float64(0.5), np.int64(3), np.float32(2), np.bool_(True), np.arange(3.0)],
    )
    torch.save(written, tmp_path / 'good.pth', _use_new_zipfile_serialization=zipped)
    read = torch.load(tmp_path / 'good.pth')
    for name, value in written['state_dict'].items():
        assert torch.equal(read['state_dict'][name], value)
    assert torch.equal(read['half'], written['half'])
    assert read['history'].mean(2) == 2
    assert [type(score) for score in read['scores']] == [type(s) for s in written['scores']]
    assert read['scores'][:4] == written['scores'][:4]
    assert read['scores'][4].tolist() == [0, 1, 2]


def test_newer_pytorch_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.6.0'))
    load = torch.load
    loading.read_no_code_on_older_pytorch()
    assert torch.load is load


# --- the pickle ----------------------------------------------------------------------------------


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_restricted_pickle_knows_what_it_is_told(protocol, tmp_path):
    limited = RestrictedPickle({})
    plain = dict(numbers=[1, 2.5], text='x', nothing=None, pair=(True, 'y'))
    assert limited.loads(pickle.dumps(plain, protocol)) == plain
    with pytest.raises(pickle.UnpicklingError, match='open'):
        limited.loads(pickle.dumps([1, Payload(tmp_path / 'ran')], protocol))
    assert not (tmp_path / 'ran').exists()


def test_a_name_stands_for_what_it_is_told():
    limited = RestrictedPickle({'fractions.Fraction': dict})
    assert limited.loads(b'cfractions\nFraction\n)R.') == {}
