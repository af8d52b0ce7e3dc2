"""Runs that are resumed with other settings, from other checkpoints, or in other folders."""

import shutil

import pytest
import torch

from tests.support.commands import ROOT, run_warm
from tests.support.logs import logged
from tests.support.tiny_training import BY_ITERATION, write_training
from tests.support.weights import load

TRAIN = ROOT / 'tools' / 'train.py'
EXTRA = """
default_hooks['checkpoint']['max_keep_ckpts'] = 20
visualizer['vis_backends'] = [dict(type='LocalVisBackend')]
"""


@pytest.fixture(scope='module', params=['', BY_ITERATION], ids=['epochs', 'iterations'])
def before(request, tmp_path_factory):
    """Config and work directory of a training of 15 iterations."""
    folder = tmp_path_factory.mktemp('before')
    config = write_training(folder, EXTRA + request.param)
    run_warm(TRAIN, config, '--work-dir', folder / 'run', cwd=folder)
    return config, folder / 'run'


epochs = pytest.mark.parametrize('before', [''], ids=['epochs'], indirect=True)


def train(config, work_dir, *options, fails=False):
    return run_warm(
        TRAIN, config, '--work-dir', work_dir, *options, cwd=work_dir.parent, fails=fails
    )


def rates(work_dir):
    """The learning rate of each iteration, by its number."""
    return logged(work_dir, 'lr')


CHANGES = {  # of 15 iterations, three epochs
    'a lower rate': ['optim_wrapper.optimizer.lr=0.001'],
    'another schedule': ['param_scheduler.0.end=9'],
    'nothing': [],
}


@pytest.mark.parametrize('change', CHANGES)
def test_rates_follow_the_config_from_where_the_run_goes_on(change, before, tmp_path):
    config, done = before
    options = ['--cfg-options', 'randomness.seed=0', *CHANGES[change]]
    said = train(config, tmp_path / 'resumed', '--resume', done / 'iter_6.pth', *options)
    assert ("The config's optimizer and schedule hold" in said) == (change != 'nothing')
    train(config, tmp_path / 'fresh', *options)
    fresh, resumed = rates(tmp_path / 'fresh'), rates(tmp_path / 'resumed')
    assert sorted(resumed) == list(range(7, 16)) and sorted(fresh) == list(range(1, 16))
    assert resumed == pytest.approx({step: fresh[step] for step in resumed})
    assert (resumed == pytest.approx({s: rates(done)[s] for s in resumed})) == (change == 'nothing')


@epochs
def test_a_longer_training_goes_on_by_the_longer_schedule(before, tmp_path):
    config, done = before
    shutil.copytree(done, tmp_path / 'longer')
    train(config, tmp_path / 'longer', '--resume', '--epochs', 5)
    train(config, tmp_path / 'fresh', '--epochs', 5)
    longer, fresh = rates(tmp_path / 'longer'), rates(tmp_path / 'fresh')
    assert [longer[step] for step in range(16, 26)] == pytest.approx([
        fresh[step] for step in range(16, 26)
    ])  # fmt: skip
    assert load(tmp_path / 'longer' / 'epoch_5.pth')['meta']['iter'] == 25


@epochs
def test_another_batch_goes_on_at_the_checkpoint_s_epoch(before, tmp_path):
    """Ten images: five batches of two, or four of three, whose gradients are summed over two."""
    config, done = before
    said = train(
        config, tmp_path / 'run', '--resume', done / 'iter_10.pth', '--verbose', '--cfg-options',
        'train_dataloader.batch_size=3', 'optim_wrapper.accumulative_counts=2',
    )  # fmt: skip
    assert 'Epoch(train) [3][1/4]' in said and 'Epoch(train) [4]' not in said
    assert sorted(rates(tmp_path / 'run')) == [9, 10, 11, 12]
    assert load(tmp_path / 'run' / 'iter_12.pth')['meta']['iter'] == 12


@epochs
def test_the_best_checkpoint_of_another_run_stays(before, tmp_path):
    config, done = before
    best = sorted(done.glob('best_*.pth'))
    assert best
    train(config, tmp_path / 'next', '--resume', done / 'iter_6.pth')
    assert sorted(done.glob('best_*.pth')) == best
    assert list((tmp_path / 'next').glob('best_*.pth'))


def test_where_there_is_no_checkpoint_a_line_says_so_and_other_files_are_none(before, tmp_path):
    config, done = before
    weights = tmp_path / 'run' / 'pretrained.pth'
    weights.parent.mkdir()
    torch.save(dict(state_dict=load(done / 'iter_6.pth')['state_dict']), weights)
    said = train(config, weights.parent, '--resume', '--load-from', weights)
    assert f'No checkpoint in {weights.parent}: training begins at its start' in said
    assert f'Warm start from {weights}' in said
    assert sorted(rates(weights.parent)) == list(range(1, 16))


REFUSED = {
    'weights alone': ([], 'has no epoch, so no training can go on from it'),
    'the best, without an optimizer': ([], 'has no optimizer, so no training can go on'),
    'another head': (['model.bbox_head.anchor_generator.ratios=[[2],[2],[2,3]]'], 'does not fit'),
    'another optimizer': (['optim_wrapper.paramwise_cfg.bias_lr_mult=2.0'], 'parameter groups'),
    'other classes': ([], 'has the classes star, circle, square, triangle, cross, the training'),
}


@epochs
@pytest.mark.parametrize('case', REFUSED)
def test_what_a_training_can_not_go_on_from_is_one_line(case, before, tmp_path):
    config, done = before
    changes, message = REFUSED[case]
    file = tmp_path / 'other.pth'
    checkpoint = load(done / 'iter_6.pth')
    if case == 'weights alone':
        checkpoint = dict(state_dict=checkpoint['state_dict'])
    if case.startswith('the best'):
        checkpoint = load(next(done.glob('best_*.pth')))
    if case == 'other classes':
        names = checkpoint['meta']['dataset_meta']['classes']
        checkpoint['meta']['dataset_meta']['classes'] = (names[3], *names[:3], names[4])
    torch.save(checkpoint, file)
    options = ['--cfg-options', *changes] if changes else []
    said = train(config, tmp_path / 'run', '--resume', file, *options, fails=True)
    assert 'Traceback' not in said
    assert str(file) in said.splitlines()[-1] and message in said.splitlines()[-1]
    assert ('--load-from' in said.splitlines()[-1]) == (case != 'another head')


@epochs
def test_the_advice_after_a_loss_that_is_not_finite_works(before, tmp_path):
    config, done = before
    wild = tmp_path / 'wild.py'
    wild.write_text(config.read_text() + "custom_hooks = [dict(type='NonFiniteLossHook')]\n")
    resume = '--resume', done / 'iter_6.pth', '--cfg-options'
    said = train(wild, tmp_path / 'run', *resume, 'optim_wrapper.optimizer.lr=1e12', fails=True)
    assert 'not finite' in said and 'lower optim_wrapper.optimizer.lr' in said
    train(wild, tmp_path / 'run', *resume, 'optim_wrapper.optimizer.lr=0.001')
    assert max(rates(tmp_path / 'run').values()) <= 0.001
