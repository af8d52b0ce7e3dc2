"""Checkpoint files are read whatever wraps the weights, run no code, and are written whole."""

import argparse
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer

from ssd_plugin.checkpoints.files import read, save
from ssd_plugin.errors import CheckpointError
from tests.support.weights import Payload

STATE = {'weight': torch.arange(3.0)}


@pytest.mark.parametrize(
    'contents, meta',
    [
        (STATE, {}),
        (dict(state_dict=STATE, meta=dict(epoch=3)), dict(epoch=3)),
        (dict(model=STATE, args=argparse.Namespace(lr=0.1), epoch=7), {}),
        (dict(state_dict=STATE, message_hub=HistoryBuffer([1.0], [1])), {}),
        (dict(state_dict={'module.weight': STATE['weight']}), {}),
    ],
    ids=['bare', 'MMEngine', "torchvision's training script", "MMEngine's training", 'wrapped'],
)
def test_a_state_dict_is_found_in_what_wraps_it(contents, meta, tmp_path):
    torch.save(contents, tmp_path / 'in.pth')
    state, found = read(tmp_path / 'in.pth')
    assert state.keys() == STATE.keys()
    assert torch.equal(state['weight'], STATE['weight'])
    assert found == meta


def test_a_file_that_would_run_code_is_refused(tmp_path):
    marker, path = tmp_path / 'ran', tmp_path / 'in.pth'
    torch.save(dict(state_dict=STATE, meta=Payload(marker)), path)
    with pytest.raises(CheckpointError, match=r'is refused: to read it would run \w*\.?open'):
        read(path)
    path.write_bytes(pickle.dumps(Payload(marker)))
    reason = 'is not a checkpoint of PyTorch' if torch.__version__ >= (2, 6) else 'is refused'
    with pytest.raises(CheckpointError, match=reason):
        read(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists(), 'it is a file that runs code'


@pytest.mark.parametrize('content', [b'', b'no checkpoint\n', b'PK\x03\x04', b'\x80\x02}q\x00.'])
def test_what_is_no_checkpoint_is_said_in_one_line(content, tmp_path):
    (tmp_path / 'in.pth').write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read(tmp_path / 'in.pth')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', [[1], {}, dict(state_dict={}), dict(epoch=3), torch.zeros(1)])
def test_a_file_without_weights_is_not_taken(content, tmp_path):
    torch.save(content, tmp_path / 'in.pth')
    with pytest.raises(CheckpointError, match='holds no state dict'):
        read(tmp_path / 'in.pth')


def test_a_file_is_replaced_by_a_complete_one_only(tmp_path):
    path = tmp_path / 'out.pth'
    save(STATE, path)
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save(dict(STATE, broken=lambda: None), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ['out.pth']
    save({'weight': torch.zeros(2)}, path)
    assert torch.load(path, weights_only=True)['weight'].tolist() == [0, 0]
