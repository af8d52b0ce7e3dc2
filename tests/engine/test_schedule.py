"""Any config's schedule as a number of epochs, against the shape that the config gives it."""

import math

import pytest
import torch
from mmdet.registry import PARAM_SCHEDULERS
from mmengine.config import Config, ConfigDict
from torch.utils.data import DataLoader

from ssd_plugin.engine.schedule import (
    choose_epochs,
    describe_scaled_batch,
    epoch_length,
    fit_batch,
    fit_schedule,
    set_epochs,
)
from ssd_plugin.errors import ConfigError
from tests.support.commands import ROOT, run_warm
from tests.support.tiny_training import BY_ITERATION, write_training
from tests.support.weights import load

ALL_CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
NUM_IMAGES, EPOCHS = 200, 24


def read(name):
    return Config.fromfile(ROOT / 'configs' / f'{name}.py', import_custom_modules=False)


def learning_rates(cfg, length):
    """The learning rate of each iteration, by MMEngine's schedulers on a parameter of no use."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    args = dict(optimizer=optimizer, epoch_length=length)
    schedulers = [PARAM_SCHEDULERS.build(dict(s), default_args=args) for s in cfg.param_scheduler]
    rates = []
    for iteration in range(1, cfg.train_cfg.max_epochs * length + 1):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or iteration % length == 0:
                scheduler.step()
    return rates


def naive_rate(original, iteration, length):
    """What a config's own schedule has at the same share of the training."""
    total = EPOCHS * length
    old_total = original.train_cfg.get('max_iters') or original.train_cfg.max_epochs
    rate, floor = 1.0, 0.0
    for scheduler in original.param_scheduler:
        if 'milestones' in scheduler:
            for milestone in scheduler.milestones:
                epoch = round(milestone / old_total * EPOCHS)
                rate *= scheduler.gamma ** (iteration // length >= epoch)
        elif 'Cosine' in scheduler.type:
            smooth = scheduler.get('convert_to_iter_based')
            done = iteration / total if smooth else iteration // length / EPOCHS
            rate, floor = rate * (1 + math.cos(math.pi * done)) / 2, scheduler.get('eta_min', 0)
    return rate * (1 - floor) + floor


@pytest.mark.parametrize('path', ALL_CONFIGS, ids=lambda path: path.stem)
def test_every_config_keeps_the_shape_of_its_learning_rate(path):
    original, cfg = (Config.fromfile(path, import_custom_modules=False) for _ in range(2))
    set_epochs(cfg, EPOCHS, NUM_IMAGES, 1)
    assert (cfg.train_cfg.type, cfg.train_cfg.max_epochs) == ('EpochBasedTrainLoop', EPOCHS)
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    length = epoch_length(cfg, NUM_IMAGES, 1)
    assert length == len(DataLoader(range(NUM_IMAGES), cfg.train_dataloader.batch_size))
    rates = learning_rates(cfg, length)
    warm_up = next(s.end for s in original.param_scheduler if s.type == 'LinearLR')
    warm_up = min(warm_up, math.ceil(EPOCHS * length / 10))
    start = next(s.start_factor for s in original.param_scheduler if s.type == 'LinearLR')
    assert rates[0] == pytest.approx(start)
    assert rates[warm_up // 2] < 0.7
    naive = [naive_rate(original, i, length) for i in range(len(rates))]
    # A scheduler multiplies what the others have left, except what it adds (eta_min).
    assert rates[warm_up:] == pytest.approx(naive[warm_up:], rel=0.02, abs=5e-3)


@pytest.mark.parametrize('path', ALL_CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_evaluated_and_saved_some_times_and_at_the_end(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    for epochs in (1, 7, 300):
        set_epochs(cfg, epochs, NUM_IMAGES, 1)
        checkpoint, interval = cfg.default_hooks.checkpoint, cfg.train_cfg.val_interval
        assert math.ceil(epochs / interval) <= 10
        assert (checkpoint.by_epoch, checkpoint.interval) == (True, interval)
        assert checkpoint.save_best == 'auto' and checkpoint.max_keep_ckpts >= 2
        assert cfg.log_processor.by_epoch is True
        assert 'max_iters' not in cfg and cfg.get('max_epochs', epochs) == epochs


def test_a_number_of_epochs_that_is_set_twice_is_set_once():
    cfg = read('ssd300_voc')
    set_epochs(cfg, 30, NUM_IMAGES, 1)
    again = Config(cfg.to_dict())
    set_epochs(again, 30, NUM_IMAGES, 1)
    assert again.to_dict() == cfg.to_dict()


@pytest.mark.parametrize('config, num_images, expected', [
    ('ssd300_voc', 6, 100),
    ('ssd300_voc', 205, 59),
    ('ssd300_voc', 800, 15),
    ('ssd300_voc', 100_000, 12),
    ('demo_shapes', 205, 26),  # as it says itself
    ('demo_shapes', 100_000, 12),
])  # fmt: skip
def test_the_smaller_the_data_the_more_passes(config, num_images, expected):
    assert choose_epochs(read(config), num_images) == expected


def test_what_is_chosen_and_what_was_said():
    sentence = fit_schedule(read('ssd300_voc'), 3200, 2, None)
    assert sentence == (
        'Schedule: 12 epochs of 50 iterations, chosen for 3200 images; --epochs N changes it.'
    )
    assert '26 epochs of 25 iterations, as the con' in fit_schedule(
        read('demo_shapes'), 200, 1, None
    )
    assert fit_schedule(read('ssd300_voc'), 3200, 1, 1).endswith(
        ': 1 epoch of 100 iterations, as you said.'
    )


@pytest.mark.parametrize('num_images', [5, 32, 33, 64, 65, 80])
def test_the_length_of_an_epoch_is_that_of_the_loader(num_images):
    cfg = read('ssd300_voc')
    cfg.train_dataloader.sampler.type = 'DefaultSampler'
    length = epoch_length(cfg, num_images, 1)
    fit_batch(cfg, num_images, 1)
    loader = cfg.train_dataloader
    drop_last = loader.get('drop_last', False)
    assert length == len(DataLoader(range(num_images), loader.batch_size, drop_last=drop_last))


def test_a_scheduler_that_counts_something_else_is_refused():
    cfg = read('demo_shapes')
    cfg.param_scheduler.append(ConfigDict(type='MultiStepLR', by_epoch=False, milestones=[9]))
    with pytest.raises(ConfigError, match='MultiStepLR with by_epoch=False, .* counts epochs'):
        set_epochs(cfg, 3, NUM_IMAGES, 1)


def test_a_larger_batch_is_told_to_be_more_passes():
    cfg = read('ssd300_voc')
    sentence = describe_scaled_batch(cfg, 4)
    assert 'Learning rate: 0.004 for batches of 128' in sentence
    assert '120000 iterations stay: 4 times the passes' in sentence and '30000' in sentence
    assert cfg.auto_scale_lr.enable
    assert 'iterations' not in describe_scaled_batch(read('ssd300_vgg16'), 4)


def test_a_config_that_counts_iterations_trains_for_the_epochs_asked_for(tmp_path):
    config = write_training(tmp_path, BY_ITERATION, num_train=6)
    options = ['--epochs', 2, '--work-dir', tmp_path / 'work', '--cfg-options', 'randomness.seed=3']
    said = run_warm(ROOT / 'tools/train.py', config, *options, cwd=tmp_path)
    assert 'Schedule: 2 epochs of 3 iterations, as you said.' in said
    meta = load(tmp_path / 'work' / 'epoch_2.pth')['meta']
    assert (meta['epoch'], meta['iter']) == (2, 6)
    assert 'max_epochs=2' in (tmp_path / 'work' / config.name).read_text()
