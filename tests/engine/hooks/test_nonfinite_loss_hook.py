"""NonFiniteLossHook: a run with a non-finite loss stops, says where, and saves nothing of it."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.hooks import CheckpointHook
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ssd_plugin.engine.hooks.nonfinite_loss_hook import weights_are_finite
from ssd_plugin.errors import NonFiniteLossError
from tests.support.commands import ROOT, run_warm
from tests.support.in_processes import call_ranks
from tests.support.logs import logged_losses
from tests.support.tiny_training import BATCH_SIZE, write_training

NAN, INF = math.nan, math.inf


def make_hook(**options):
    return HOOKS.build(dict(type='NonFiniteLossHook', **options))


def make_runner(*hooks, max_iters=100, **changes):
    """As much of a runner as the hook uses."""
    runner = dict(
        iter=0, max_iters=max_iters, hooks=hooks, model=nn.BatchNorm1d(2),
        message_hub=SimpleNamespace(runtime_info={}), _load_from=None, _resume=False,
    )  # fmt: skip
    return SimpleNamespace(**runner | changes)


def iterate(hook, runner, *losses, rank=0):
    """Iterations with these losses; the images of the third are 3a and 3b of the rank."""
    for loss in losses:
        number = runner.iter + 1
        paths = [f'rank{rank}/{number}{letter}.jpg' for letter in 'ab']
        samples = [DetDataSample(metainfo=dict(img_path=path)) for path in paths]
        loss = torch.tensor(loss)
        outputs = dict(loss=loss, loss_cls=loss, loss_bbox=torch.ones(()))
        hook.after_train_iter(runner, 0, dict(data_samples=samples), outputs)
        runner.iter += 1


def test_a_run_with_finite_losses_goes_on():
    hook, runner = make_hook(interval=2), make_runner()
    hook.before_train(runner)
    iterate(hook, runner, 1.0, 0.0, 3e38, -1.0, 1e-45)
    hook.before_val(runner)
    hook.after_train_epoch(runner)
    hook.before_save_checkpoint(runner, {})


@pytest.mark.parametrize('bad', [NAN, INF, -INF])
def test_it_stops_at_the_next_check_and_names_the_first_bad_iteration(bad):
    hook, runner = make_hook(interval=5), make_runner()
    iterate(hook, runner, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, bad, 2.0)
    with pytest.raises(NonFiniteLossError) as error:
        iterate(hook, runner, NAN, NAN)
    assert runner.iter == 9  # the tenth did not end
    assert str(error.value) == (
        f'iteration 7: the loss is not finite (loss {bad}, loss_cls {bad}, loss_bbox 1) for the '
        'images rank0/7a.jpg, rank0/7b.jpg; no checkpoint was saved before; lower '
        'optim_wrapper.optimizer.lr'
    )


def test_an_iteration_waits_for_no_device():
    """Fake tensors have shapes and no values: to read one raises."""
    hook, runner = make_hook(interval=5), make_runner()
    with FakeTensorMode():
        iterate(hook, runner, 1.0, NAN, 1.0, 1.0)
        with pytest.raises(Exception, match='data-dependent|item|aten'):
            iterate(hook, runner, 1.0)


def test_it_remembers_the_batches_since_the_last_check_only():
    hook, runner = make_hook(interval=4), make_runner()
    iterate(hook, runner, *[1.0] * 6)
    assert list(hook._batches) == [5, 6]


EVENTS = dict(before_val=(), after_train_epoch=(), before_save_checkpoint=({},))


@pytest.mark.parametrize('event', EVENTS)
def test_it_checks_before_evaluations_and_checkpoints_and_at_the_end_of_epochs(event):
    """Whoever asks for the checkpoint."""
    hook, runner = make_hook(), make_runner()
    check = partial(getattr(hook, event), runner, *EVENTS[event])
    check()  # without training there is nothing to check
    iterate(hook, runner, 1.0, NAN)
    with pytest.raises(NonFiniteLossError, match='^iteration 2: .*rank0/2a.jpg'):
        check()


@pytest.mark.parametrize('due', [dict(interval=3), dict(interval=-1)], ids=['interval', 'last'])
def test_it_checks_before_a_checkpoint_is_due(due):
    hook, runner = make_hook(), make_runner(CheckpointHook(by_epoch=False, **due), max_iters=3)
    assert hook.priority == 'NORMAL' != CheckpointHook.priority == 'VERY_LOW'  # so it is first
    iterate(hook, runner, 1.0, NAN)
    with pytest.raises(NonFiniteLossError, match='^iteration 2: '):
        iterate(hook, runner, 1.0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('value', [NAN, INF, -INF])
def test_one_non_finite_weight_is_found(value, dtype):
    model = nn.Conv2d(3, 5, 3).to(dtype)
    assert weights_are_finite(model)
    model.weight.data[1, 2, 0, 1] = value
    assert not weights_are_finite(model)


@pytest.mark.parametrize('name', ['weight', 'running_var'])
def test_no_checkpoint_is_written_with_a_non_finite_weight(name):
    """A gradient may be non-finite though the loss is finite."""
    hook, runner = make_hook(interval=2), make_runner()
    iterate(hook, runner, 1.0)
    getattr(runner.model, name).data[1] = NAN
    said = rf'^iteration 2: the weights .*\({name}\)'
    with pytest.raises(NonFiniteLossError, match=said):
        hook.before_save_checkpoint(runner, {})
    with pytest.raises(NonFiniteLossError, match=said):
        iterate(hook, runner, 1.0)


def test_a_non_finite_gradient_is_left_to_the_loss_scaler():
    hook, runner = make_hook(interval=1), make_runner()
    runner.model.weight.grad = torch.tensor([INF, NAN])
    iterate(hook, runner, 1.0)


@pytest.mark.parametrize('resumed', [None, 'work/preempted.pth'])
def test_it_names_the_last_checkpoint_that_was_written(resumed):
    hook = make_hook()
    runner = make_runner(_load_from=resumed, _resume=resumed is not None)
    known = runner.message_hub.runtime_info
    known['last_ckpt'] = 'work/iter_4.pth' if resumed else None
    hook.before_train(runner)
    iterate(hook, runner, 1.0)
    assert hook._checkpoint == resumed
    known['last_ckpt'] = 'work/iter_6.pth'  # which is named before it is written
    iterate(hook, runner, NAN)
    known['last_ckpt'] = 'work/iter_8.pth'
    with pytest.raises(NonFiniteLossError, match=r'before is work/iter_6\.pth: go on .*--resume'):
        hook.before_save_checkpoint(runner, {})


def stop_on_rank(losses):
    """At which iteration the hook of one of several processes stops it, and what it says."""
    rank = torch.distributed.get_rank()
    hook, runner = make_hook(interval=4), make_runner()
    with pytest.raises(NonFiniteLossError) as error:
        iterate(hook, runner, *losses[rank], rank=rank)
    return runner.iter, str(error.value)


@pytest.mark.parametrize(
    'losses, number, images',
    [
        ([[1.0, 1.0, 1.0, 1.0], [1.0, NAN, 1.0, 1.0]], 2, ['rank1/2a.jpg, rank1/2b.jpg']),
        ([[1.0, 1.0, NAN, 1.0], [1.0, NAN, 1.0, 1.0]], 2, ['rank1/2a.jpg, rank1/2b.jpg']),
        ([[1.0, 1.0, INF, 1.0], [1.0, 1.0, NAN, 1.0]], 3, ['rank0/3a.jpg', 'rank1/3a.jpg']),
    ],
)
def test_all_ranks_stop_together_with_one_message(losses, number, images):
    (stopped, message), other = call_ranks(2, stop_on_rank, losses)
    assert (stopped, message) == other
    assert stopped == 3  # in the fourth, which both had
    assert message.startswith(f'iteration {number}: the loss is not finite')
    found = message.split(' for the images ')[1].split(';')[0]
    assert all(image in found for image in images)
    assert found.count('.jpg') == 2 * len(images)


EXPLODING = """
param_scheduler = [dict(type='MultiStepLR', milestones=[5], gamma=1e25, by_epoch=False)]
custom_hooks = [dict(type='NonFiniteLossHook', interval=50)]
visualizer['vis_backends'] = [dict(type='LocalVisBackend')]
"""


def test_a_run_that_explodes_ends_with_one_line(tmp_path):
    config = write_training(tmp_path, EXPLODING)
    said = run_warm(ROOT / 'tools/train.py', config, '--work-dir', 'work', cwd=tmp_path, fails=True)
    losses = logged_losses(tmp_path / 'work')
    first = min(number for number, loss in losses.items() if not math.isfinite(loss))
    assert 6 <= first < 10  # the sixth iteration is the first with a learning rate to explode
    last = said.strip().splitlines()[-1]
    assert last.startswith(f'iteration {first}: the loss is not finite (loss ')
    assert 'Traceback' not in said
    images = last.split(' for the images ')[1].split(';')[0].split(', ')
    assert len(images) == BATCH_SIZE
    assert all((tmp_path / image).is_file() for image in images)
    saved = sorted(int(path.stem[5:]) for path in (tmp_path / 'work').glob('iter_*.pth'))
    assert saved[-1] < first
    assert f'the last checkpoint before is {tmp_path}/work/iter_{saved[-1]}.pth: go on' in last
    weights = torch.load(tmp_path / f'work/iter_{saved[-1]}.pth', weights_only=True)['state_dict']
    assert all(value.isfinite().all() for value in weights.values())
