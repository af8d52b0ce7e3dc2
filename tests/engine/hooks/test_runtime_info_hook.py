"""Losses for the log: the same history as MMEngine's, read less often."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ssd_plugin.engine.runner import ResumableRunner


class OnDevice(torch.Tensor):
    """A tensor that says that it is on an accelerator."""

    is_cpu = False


@pytest.fixture
def runner():
    """As much of a runner as the hook sees: ten batches an epoch, a line every fourth."""
    hub, logger = MessageHub.get_instance('runtime_info'), LoggerHook(interval=4)
    hub._log_scalars.clear()
    return SimpleNamespace(message_hub=hub, hooks=[logger], train_dataloader=range(10))


@pytest.fixture
def deferring():
    return HOOKS.build(dict(type='DeferredRuntimeInfoHook'))


def history(runner):
    scalars = runner.message_hub.log_scalars
    return {name: scalar.data[0].tolist() for name, scalar in scalars.items()}


def train(hook, runner, first, last, kind=OnDevice):
    for i in range(first, last):
        loss = torch.tensor(0.1 * i, requires_grad=True).as_subclass(kind) * 1
        hook.after_train_iter(runner, i, outputs=dict(loss=loss, rate=i))


def test_losses_are_read_when_a_line_of_the_log_is_due(deferring, runner):
    train(deferring, runner, 0, 3)
    assert history(runner) == {'train/rate': [0, 1, 2]}
    train(deferring, runner, 3, 4)
    expected = [torch.tensor(0.1 * i).item() for i in range(10)]
    assert history(runner)['train/loss'] == expected[:4]
    train(deferring, runner, 4, 9)
    assert history(runner)['train/loss'] == expected[:8]
    train(deferring, runner, 9, 10)  # the last of the epoch
    assert history(runner)['train/loss'] == expected


@pytest.mark.parametrize('moment', ['after_train_epoch', 'before_val'])
def test_nothing_is_left_unread(deferring, runner, moment):
    train(deferring, runner, 0, 2)
    runner.message_hub.update_info('loop_stage', 'train')
    getattr(deferring, moment)(runner)
    assert len(history(runner)['train/loss']) == 2


def test_a_checkpoint_has_every_loss(deferring, runner, tmp_path, monkeypatch):
    train(deferring, runner, 0, 3)
    saving = ResumableRunner.__new__(ResumableRunner)
    saving.message_hub, saving._hooks = runner.message_hub, [*runner.hooks, deferring]
    saved = []

    def save(self, out_dir, filename, *args, **kwargs):
        saved.append(history(self))
        (tmp_path / filename).touch()

    monkeypatch.setattr(Runner, 'save_checkpoint', save)
    saving.save_checkpoint(str(tmp_path), 'iter_3.pth')
    assert len(saved[0]['train/loss']) == 3


def test_the_history_is_mmengines(deferring, runner):
    train(deferring, runner, 0, 10)
    found = history(runner)
    runner.message_hub._log_scalars.clear()
    train(RuntimeInfoHook(), runner, 0, 10)
    assert found == history(runner)


def test_on_a_cpu_each_loss_is_read_at_once(deferring, runner):
    train(deferring, runner, 0, 1, torch.Tensor)
    assert history(runner)['train/loss'] == [0]
