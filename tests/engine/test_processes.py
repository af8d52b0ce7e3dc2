"""Training and evaluating with several processes comes to what one process does."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support import in_processes
from tests.support.commands import ROOT, clean_environment, run_script, wait_until
from tests.support.in_processes import BATCH, HEADS, OBJECTS, call_ranks, join, run_ranks, start
from tests.support.tiny_training import BY_ITERATION, write_training
from tests.support.weights import assert_same, load

TRAIN, TEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'test.py'
PAGE = (ROOT / 'docs' / 'processes.md').read_text()
TWO_LAST = 'iter_9.pth'  # of two processes with two images each
FIVE_STEPS = f"""{BY_ITERATION}
model.pop('neck')  # which draws from each process's own generator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=5, val_interval=5)
default_hooks['checkpoint'] = dict(type='CheckpointHook', by_epoch=False, interval=1)
custom_hooks = [dict(type='NormStatsHook'), dict(type='NonFiniteLossHook')]
"""
FROZEN_NORM = "model['backbone'].update(norm_eval=True)\n"  # else each part has its own statistics
CLOSE = 1e-6
several = pytest.mark.parametrize('world_size', [2, 4])


# --- the loss ------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def heads():
    """By number of processes: what each of them has of each head."""
    return {number: call_ranks(number, in_processes.train_heads) for number in (1, 2, 4)}


@several
@pytest.mark.parametrize('name', HEADS)
def test_five_steps_have_the_gradients_weights_and_mean_loss_of_one_process(
    heads, name, world_size
):
    alone = heads[1][0][name]
    assert sum(g.abs().sum() for g in alone['gradients'][0].values()) > 0.1
    for rank in heads[world_size]:
        for part in ('gradients', 'weights'):
            assert_same(rank[name][part], alone[part], CLOSE)
    losses = torch.stack([rank[name]['losses'] for rank in heads[world_size]])
    assert_same(losses.mean(0), alone['losses'], CLOSE)
    without_objects = losses[0, 1]
    assert name != 'as the paper' or without_objects == 0 < losses[-1, 1]


@several
def test_a_step_takes_one_collective_of_one_number(heads, world_size):
    for rank in heads[world_size]:
        for head in rank.values():
            assert head['reduced'] == [1] * len(OBJECTS)


# --- whole runs ----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Work directories of runs with one, two and four processes and the same batches."""
    folder = tmp_path_factory.mktemp('trained')
    config = write_training(folder, FIVE_STEPS + FROZEN_NORM)
    for world_size in (1, 2, 4):
        run_ranks(
            world_size, TRAIN, config, '--launcher', 'pytorch',
            '--work-dir', folder / f'{world_size}', '--cfg-options',
            f'train_dataloader.batch_size={BATCH // world_size}', cwd=folder,
        )  # fmt: skip
    return folder


@several
@pytest.mark.parametrize('iteration', [1, 5])
def test_a_run_with_augmentation_has_the_weights_of_one_process(trained, iteration, world_size):
    """And the momentum, which after the first iteration is the gradient."""
    alone, together = (load(trained / f'{n}/iter_{iteration}.pth') for n in (1, world_size))
    assert_same(together['state_dict'], alone['state_dict'], CLOSE)
    states = alone['optimizer']['state']
    assert max(state['momentum_buffer'].abs().max() for state in states.values()) > 0.1
    assert_same(together['optimizer']['state'], states, CLOSE)


def test_a_run_whose_processes_are_killed_ends_as_one_that_was_not(tmp_path):
    config, killed = write_training(tmp_path), tmp_path / 'killed'
    argv = [str(TRAIN), str(config), '--launcher', 'pytorch', '--work-dir']
    run_ranks(2, *argv, 'whole', cwd=tmp_path)
    processes = start(
        2, lambda rank: (run_script, [*argv, 'killed'], str(tmp_path), str(tmp_path / f'{rank}'))
    )
    wait_until((killed / 'iter_4.pth').exists)
    for process in processes:
        process.kill()
    join(processes, timeout=10)
    assert (killed / 'iter_4.pth').exists() and not (killed / TWO_LAST).exists()
    said = run_ranks(2, *argv, 'killed', '--resume', '--verbose', cwd=tmp_path)
    # At 2 if they were killed before the checkpoint at 4 was named the last.
    assert re.search(r'resumed epoch: [0-2], iter: [2-8]\n', said[0])
    one, other = load(killed / TWO_LAST), load(tmp_path / 'whole' / TWO_LAST)
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(one[part], other[part])


def test_running_statistics_become_their_mean_over_processes():
    (before, after), (other_before, other_after) = call_ranks(2, in_processes.average_norm_stats)
    for name in ('1.running_mean', '1.running_var'):
        assert not torch.allclose(before[name], other_before[name])
        assert_same(after[name], (before[name] + other_before[name]) / 2, CLOSE)
        assert torch.equal(after[name], other_after[name])
    unchanged = before.keys() - {'1.running_mean', '1.running_var'}
    assert all(torch.equal(after[name], before[name]) for name in unchanged)
    assert after['2.running_mean'].tolist() == [0] * 3
    assert other_after['2.running_mean'].tolist() == [1] * 3


# --- evaluation ----------------------------------------------------------------------------------

SEVEN = """
custom_imports = dict(imports=['ssd_plugin', 'tests.support.shifted_truth'])
default_scope = 'mmdet'
model = dict(type='ShiftedTruth')
test_pipeline[-1]['meta_keys'] += ('instances',)  # of which CocoMetric makes COCO's json
test_dataloader = dict(val_dataloader, batch_size=2, dataset=dict(
    val_dataloader['dataset'], ann_file='ImageSets/Main/trainval.txt', indices=7))
test_evaluator = [
    dict(type='VOCDetMetric', metric='mAP'),
    dict(type='CocoMetric', metric='bbox', prefix='coco')]
"""


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
    """Results and detections of seven images, by number of processes."""
    folder = tmp_path_factory.mktemp('evaluated')
    config = write_training(folder, FIVE_STEPS + SEVEN)
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), folder / 'none.pth')
    found = {}
    for world_size in (1, 2, 4):
        work_dir = folder / f'{world_size}'
        run_ranks(
            world_size, TEST, config, folder / 'none.pth', '--launcher', 'pytorch',
            '--work-dir', work_dir, '--out', f'{work_dir}.pkl', cwd=folder,
        )  # fmt: skip
        (results,) = work_dir.glob('*/*.json')
        found[world_size] = json.loads(results.read_text()), read_detections(f'{work_dir}.pkl')
    return found


def read_detections(path):
    """Name of the image and detections of each, in order."""
    samples = pickle.loads(Path(path).read_bytes())
    return [(Path(sample['img_path']).name, sample['pred_instances']) for sample in samples]


@several
def test_evaluation_of_images_that_do_not_divide_is_that_of_one_process(evaluated, world_size):
    (alone, detections), (together, also) = evaluated[1], evaluated[world_size]
    timeless = [key for key in alone if 'time' not in key]
    assert {key: together[key] for key in timeless} == {key: alone[key] for key in timeless}
    assert 0.1 < alone['pascal_voc/mAP'] < 0.9 and 0.1 < alone['coco/bbox_mAP'] < 0.9
    assert len(detections) == len({name for name, _ in detections}) == 7
    assert_same(also, detections)


# --- the scripts ---------------------------------------------------------------------------------

OWN_STATISTICS = """
model['backbone'].update(norm_eval=False)
train_dataloader['batch_size'] = 2
train_cfg.update(max_iters=3, val_interval=3)
val_evaluator = [val_evaluator, dict(type='DumpDetResults', out_file_path='in_training.pkl')]
"""


# Imported by each Python that has it on its path. What is registered first is called last.
SITECUSTOMIZE = """
import atexit, glob, os

def report():
    names = [open(path).read() for path in glob.glob('/proc/self/task/*/comm')]
    count = sum('gloo' in name for name in names)
    # In one piece: both processes write to the same pipe, without buffers.
    os.write(1, f'threads of gloo at the end: {count}\\n'.encode())

atexit.register(report)
"""


@pytest.fixture(scope='module')
def bash_runs(tmp_path_factory):
    """A folder in which the scripts have trained and tested, each with two processes."""
    folder = tmp_path_factory.mktemp('scripts')
    config = write_training(folder, FIVE_STEPS + OWN_STATISTICS)
    (folder / 'site').mkdir()
    (folder / 'site/sitecustomize.py').write_text(SITECUSTOMIZE)
    train = bash('dist_train.sh', config, 2, '--work-dir', 'run', '--verbose', cwd=folder)
    test = bash(
        'dist_test.sh', config, 'run/iter_3.pth', 2, '--work-dir', 'tested', '--out', 'after.pkl',
        '--verbose', cwd=folder, PYTHONPATH=f'{folder}/site:{ROOT}',
    )  # fmt: skip
    run_ranks(
        1, TEST, config, 'run/iter_3.pth', '--work-dir', 'alone', '--out', 'alone.pkl', cwd=folder
    )
    return folder, train, test


def bash(script, *args, cwd, path=(), fails=False, **environment):
    """Output of a script of tools/."""
    environment = clean_environment(PYTHON=sys.executable, **environment)
    environment['PATH'] = os.pathsep.join([*map(str, path), os.environ['PATH']])
    done = subprocess.run(
        ['bash', ROOT / 'tools' / script, *map(str, args)], cwd=cwd, text=True, timeout=300,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert bool(done.returncode) == fails, done.stdout
    return done.stdout


def test_dist_scripts_train_and_test_with_as_many_processes_as_asked_for(bash_runs):
    folder, train, test = bash_runs
    assert 'GPU number: 2' in train and 'GPU number: 2' in test
    assert 'Iter(train) [3/3]' in train and 'Iter(val)' in train
    assert 'Iter(test)' in test


def test_evaluation_in_training_is_that_of_the_checkpoint(bash_runs):
    """Though BatchNorm of each process has seen other images."""
    folder, _, _ = bash_runs
    in_training, after, alone = (
        read_detections(folder / f'{name}.pkl') for name in ('in_training', 'after', 'alone')
    )
    assert len(in_training) == 2, 'one for each process'
    assert all(len(found['scores']) > 0 for _, found in in_training)
    assert_same(in_training, after)
    assert_same(in_training, alone)


def test_gloo_has_no_threads_left_when_python_ends(bash_runs):
    """One that frees a tensor while Python ends aborts the process, after a sound evaluation."""
    counts = re.findall(r'threads of gloo at the end: (\d+)', bash_runs[2])
    assert len(counts) >= 3, 'the two processes and their launcher'
    assert set(counts) == {'0'}, bash_runs[2]


def test_one_process_writes_the_metrics_of_a_test(tmp_path):
    call_ranks(2, in_processes.write_metrics, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ['0.json']
    assert json.loads((tmp_path / '0.json').read_text()) == dict(mAP=0.5)


SCRIPTS = sorted(path.name for path in (ROOT / 'tools').glob('*.sh'))


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_are_sound_bash(script):
    subprocess.run(['bash', '-n', ROOT / 'tools' / script], check=True)


@pytest.mark.parametrize('script', [name for name in SCRIPTS if not name.startswith('_')])
def test_a_script_without_arguments_says_which_it_takes(script, tmp_path):
    said = bash(script, cwd=tmp_path, fails=True)
    assert re.search(rf'bash tools/{script} [A-Z_ ]+ \[', said)


@pytest.fixture
def slurm(tmp_path):
    """Runs a script where ``srun`` prints its arguments: its own, and those of Python."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)

    def call(*args, **env):
        said = bash(*args, cwd=tmp_path, path=[tmp_path], **env).splitlines()
        at = said.index(sys.executable)
        return said[:at], said[at + 1 :]

    return call


def test_slurm_runs_a_task_for_each_gpu(slurm):
    asked, command = slurm(
        'slurm_train.sh', 'debug', 'a job', 'my config.py', 'out', '--amp', GPUS='16'
    )
    assert asked == [
        '--partition=debug', '--job-name=a job', '--ntasks=16', '--ntasks-per-node=8',
        '--gres=gpu:8', '--cpus-per-task=5', '--kill-on-bad-exit=1',
    ]  # fmt: skip
    options = ['--work-dir', 'out', '--launcher', 'slurm', '--amp']
    assert command == ['-u', str(TRAIN), 'my config.py', *options]


def test_slurm_tests_with_fewer_gpus_than_a_machine_has(slurm):
    env = dict(GPUS='2', CPUS_PER_TASK='3', SRUN_ARGS='--qos=low --time=1:00')
    asked, command = slurm('slurm_test.sh', 'p', 'j', 'c.py', 'w.pth', '--out', 'o.pkl', **env)
    assert {'--ntasks=2', '--ntasks-per-node=2', '--gres=gpu:2', '--cpus-per-task=3'} < set(asked)
    assert asked[-2:] == ['--qos=low', '--time=1:00']
    options = ['--launcher', 'slurm', '--out', 'o.pkl']
    assert command == ['-u', str(TEST), 'c.py', 'w.pth', *options]


# --- sharded models ------------------------------------------------------------------------------


def sharded(base):
    """The config on the page, with what the page says it takes on CPUs."""
    section = PAGE.partition('## FSDP')[2]
    on_gpus, on_cpus = re.findall(r'```python\n(.*?)```', section, re.DOTALL)[:2]
    assert "_base_ = 'configs/ssd300_voc.py'" in on_gpus
    text = (on_gpus + on_cpus).replace('configs/ssd300_voc.py', str(base))
    path = base.with_name('sharded.py')
    path.write_text(text.replace('min_num_params=1_000_000', 'min_num_params=1000'))
    return path


@pytest.mark.skipif(
    torch.__version__ < (2, 2), reason='FSDP of PyTorch 2.1 needs the streams of an accelerator'
)
def test_fsdp_trains_as_ddp_does_and_its_checkpoint_is_an_ordinary_one(tmp_path):
    base = write_training(tmp_path, FIVE_STEPS + FROZEN_NORM)
    for config, extra in ((base, ['runner_type=Runner']), (sharded(base), [])):
        run_ranks(
            2, TRAIN, config, '--launcher', 'pytorch', '--work-dir', tmp_path / config.stem,
            '--cfg-options', 'train_cfg.max_iters=3', 'train_cfg.val_interval=3', *extra,
            cwd=tmp_path,
        )  # fmt: skip
    whole, shards = (load(tmp_path / name / 'iter_3.pth') for name in ('tiny', 'sharded'))
    assert_same(shards['state_dict'], whole['state_dict'], CLOSE)
    run_ranks(
        2, TRAIN, tmp_path / 'sharded.py', '--launcher', 'pytorch', '--work-dir', tmp_path / 'on',
        '--cfg-options', 'train_cfg.max_iters=1', f'load_from={tmp_path}/tiny/iter_3.pth',
        'optim_wrapper.optimizer.lr=0', cwd=tmp_path,
    )  # fmt: skip
    assert_same(load(tmp_path / 'on' / 'iter_1.pth')['state_dict'], whole['state_dict'])
