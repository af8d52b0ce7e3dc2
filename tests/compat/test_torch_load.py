"""A checkpoint is data: MMEngine's are read, and what one asks to run is not run."""

import functools
import http.server
import io
import pickle
import re
import threading
import zipfile

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from mmengine.testing.runner_test_case import ToyDataset, ToyMetric, ToyModel
from torch.torch_version import TorchVersion

from ssd_plugin.compat import torch_load
from ssd_plugin.errors import CheckpointError
from tests.support.weights import Payload, assert_same

REFUSED = r'bad\.pth is refused: to read it would run (_?io\.)?open'


# --- what MMEngine writes ------------------------------------------------------------------------


class NumPyMetric(ToyMetric):
    """Results in NumPy's types, as metrics compute; `save_best` writes one into the checkpoint."""

    def compute_metrics(self, results):
        kinds = (np.float16, np.float32, np.float64, np.int64, np.bool_, np.atleast_1d)
        return {kind.__name__: kind(1) for kind in kinds}


def make_runner(work_dir, epochs, **kwargs):
    """Of MMEngine's smallest training, of two iterations an epoch."""
    points = ToyDataset()
    points.METAINFO = dict(classes=('a', 'b'), palette=[(1, 2, 3), (4, 5, 6)])
    sampler = DefaultSampler(points, shuffle=False)
    loader = dict(batch_size=6, num_workers=0, dataset=points, sampler=sampler)
    best = dict(type='CheckpointHook', save_best='float64', rule='greater')
    return Runner(
        ToyModel(),
        str(work_dir),
        train_dataloader=loader,
        val_dataloader=dict(loader),
        val_evaluator=Evaluator(NumPyMetric()),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='MultiStepLR', milestones=[1]),
            dict(type='OneCycleLR', eta_max=0.1, total_steps=10),
        ],
        default_hooks=dict(checkpoint=best),
        experiment_name=f'{work_dir.name}-{epochs}',
        **kwargs,
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder in which MMEngine left the checkpoints of two epochs and of the best one."""
    work_dir = tmp_path_factory.mktemp('trained')
    make_runner(work_dir, epochs=2).train()
    return work_dir


@pytest.mark.parametrize('name', ['epoch_2.pth', 'best_float64_epoch_1.pth'])
def test_a_checkpoint_of_mmengine_loads_with_weights_only(trained, name):
    file = trained / name
    if torch.__version__ >= (2, 6):
        assert torch.serialization.get_unsafe_globals_in_checkpoint(file) == []
    checkpoint = torch.load(file)  # the default, weights_only, is the one under test
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert history.mean(2) == pytest.approx(np.mean(history.data[0][-2:]))
    assert checkpoint['message_hub']['runtime_info']['best_score'] == 1


def test_training_resumes_from_a_checkpoint_of_mmengine(trained):
    runner = make_runner(trained, epochs=3, resume=True)
    runner.train()
    assert runner.epoch == 3
    history, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(history) == 3 * 2  # of all epochs, not only of those after resuming


@pytest.mark.parametrize('module', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_a_checkpoint_of_either_numpy_loads(trained, tmp_path, module):
    either, asked = rb'cnumpy\._?core\.multiarray\n', f'c{module}\n'.encode()
    source, target = zipfile.ZipFile(trained / 'epoch_2.pth'), tmp_path / 'other.pth'
    with source, zipfile.ZipFile(target, 'w') as changed:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith('data.pkl'):
                data, count = re.subn(either, asked, data)
                assert count >= 2
            changed.writestr(name, data)
    checkpoint = torch.load(target)
    assert isinstance(checkpoint['message_hub']['log_scalars']['train/loss'], HistoryBuffer)


# --- files that run code -------------------------------------------------------------------------


class Call:
    """Unpickles as the result of calling `function`, which may be a Call itself."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args

    def __call__(self):  # pickle asks that what it calls be callable
        raise NotImplementedError


MODULE_GLOBALS = Call(getattr, Call(getattr, HistoryBuffer, '__init__'), '__globals__')
BUILTINS = Call(Call(getattr, MODULE_GLOBALS, 'get'), '__builtins__')


@pytest.mark.parametrize('function', [exec, Call(Call(getattr, BUILTINS, 'get'), 'eval')])
def test_a_malicious_checkpoint_is_refused_before_its_payload_runs(tmp_path, function):
    victim, checkpoint = tmp_path / 'victim', tmp_path / 'checkpoint.pth'
    victim.touch()
    attack = Call(function, f'__import__("os").remove({str(victim)!r})')
    torch.save(dict(state_dict=attack), checkpoint)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(checkpoint)
    assert victim.exists()
    torch.load(checkpoint, weights_only=False)  # the attack is real
    assert not victim.exists()


@pytest.mark.parametrize('owner', [HistoryBuffer, HistoryBuffer.mean, [], 'text'])
@pytest.mark.parametrize('name', ['__init__', '__globals__', 'statistics', '__class__'])
def test_checkpoints_reach_no_other_attributes(owner, name):
    with pytest.raises(pickle.UnpicklingError, match=f"attribute '{name}'"):
        torch_load.checkpoint_attribute(owner, name)


@pytest.mark.skipif(torch.__version__ < (2, 6), reason='PyTorch has no list of what is allowed')
def test_nothing_that_reaches_attributes_or_code_is_allowed():
    allowed = torch.serialization.get_safe_globals()
    functions = {item[0] if isinstance(item, tuple) else item for item in allowed}
    assert functions.isdisjoint({getattr, setattr, eval, exec, compile, __import__, open})


@pytest.fixture(params=[True, False], ids=['zip', 'as before PyTorch 1.6'])
def zipped(request):
    return request.param


@pytest.fixture(params=['weights', 'beside', 'history'])
def bad(request, zipped, tmp_path):
    """A checkpoint that would make a file named 'ran'; afterwards, it is shown that it does.

    What makes it is with the weights, beside them, or among a run's own data.
    """
    path, payload = tmp_path / 'bad.pth', Payload(tmp_path / 'ran')
    weight = {'backbone.conv1.weight': torch.zeros(1)}
    scalars = {'train/loss': HistoryBuffer([1.0], [1]), 'more': payload}
    checkpoint = dict(
        weights=dict(state_dict=dict(weight, more=payload)),
        beside=dict(state_dict=weight, meta=dict(dataset_meta=payload)),
        history=dict(state_dict=weight, message_hub=dict(log_scalars=scalars)),
    )[request.param]
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    yield path
    assert not (tmp_path / 'ran').exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / 'ran').exists(), 'it is a file that runs code, and who asks for it gets it'


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Where a server has the files of ``tmp_path``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'downloaded'))
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join()


@pytest.mark.parametrize('source', ['a file', 'an address'])
def test_mmengine_reads_no_code(source, bad, address):
    name = str(bad) if source == 'a file' else f'{address}/bad.pth'
    for _ in range(2):  # the second time it has been downloaded
        with pytest.raises(CheckpointError, match=REFUSED) as caught:
            CheckpointLoader.load_checkpoint(name, map_location='cpu')
        assert str(caught.value).startswith(name) and '\n' not in str(caught.value)


def test_mmengine_reads_weights_from_an_address(address, tmp_path):
    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    history = HistoryBuffer([1.0], [1])
    torch.save(dict(state_dict=model.state_dict(), message_hub=history), tmp_path / 'good.pth')
    load_checkpoint(other, f'{address}/good.pth')
    assert torch.equal(other.weight, model.weight)


def test_what_is_no_checkpoint_is_not_called_code(tmp_path):
    (tmp_path / 'text.pth').write_text('no checkpoint')
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'text.pth'))


# --- PyTorch before and after 2.6 ----------------------------------------------------------------


@pytest.fixture
def older_torch(monkeypatch):
    """``torch.load`` as the plugin has it there."""
    monkeypatch.setattr(torch, 'load', torch.load)  # put back after the test
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.5.1'))
    load = torch.load
    torch_load.restrict_older_pytorch()
    assert torch.load is not load


@pytest.mark.parametrize('options', [{}, dict(weights_only=True), dict(weights_only=None)], ids=str)
def test_older_pytorch_reads_no_code(older_torch, bad, options):
    with pytest.raises(pickle.UnpicklingError, match='open'):
        torch.load(bad, map_location='cpu', **options)
    with pytest.raises(CheckpointError, match=REFUSED):
        CheckpointLoader.load_checkpoint(str(bad))


def test_older_pytorch_reads_what_mmengine_writes(older_torch, zipped, tmp_path):
    written = dict(
        state_dict=torch.nn.BatchNorm2d(2).state_dict(),
        half=torch.ones(2, dtype=torch.bfloat16),
        history=HistoryBuffer([1.0, 3.0], [1, 1]),
        scores=[np.float64(0.5), np.int64(3), np.float32(2), np.bool_(True), np.arange(3.0)],
    )
    torch.save(written, tmp_path / 'good.pth', _use_new_zipfile_serialization=zipped)
    read = torch.load(tmp_path / 'good.pth')
    assert_same([read['state_dict'], read['half']], [written['state_dict'], written['half']])
    assert read['history'].mean(2) == 2
    assert [type(score) for score in read['scores']] == [type(s) for s in written['scores']]
    assert read['scores'][:4] == written['scores'][:4]
    assert read['scores'][4].tolist() == [0, 1, 2]


def test_each_pytorch_gets_what_it_needs_and_no_more(monkeypatch):
    listed, load = [], torch.load
    monkeypatch.setattr(torch.serialization, 'add_safe_globals', listed.extend, raising=False)
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.5.1'))
    torch_load.allow_mmengine_types()
    assert not listed
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.6.0'))
    torch_load.allow_mmengine_types()
    assert listed
    torch_load.restrict_older_pytorch()
    assert torch.load is load


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_restricted_pickle_knows_what_it_is_told(protocol, tmp_path):
    limited = torch_load.restricted_pickle({'fractions.Fraction': dict})
    loads = lambda data: limited.load(io.BytesIO(data))  # noqa: E731
    plain = dict(numbers=[1, 2.5], text='x', nothing=None, pair=(True, 'y'))
    assert loads(pickle.dumps(plain, protocol)) == plain
    assert loads(b'cfractions\nFraction\n)R.') == {}
    with pytest.raises(pickle.UnpicklingError, match='open'):
        loads(pickle.dumps([1, Payload(tmp_path / 'ran')], protocol))
    assert not (tmp_path / 'ran').exists()
