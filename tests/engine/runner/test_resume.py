"""Runs that are killed, or told to leave, and resumed: they end with the same weights."""

import os
import random
import shutil
import signal
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader, Dataset

from ssd_plugin.engine.runner import checkpoint_files as files
from ssd_plugin.engine.runner.data_order import (
    EndlessBatchSampler,
    ResumableDataLoader,
    SeededBatchSampler,
)
from ssd_plugin.errors import DamagedCheckpointError
from tests.long.kill_and_resume import DIGEST, LAST, TRAIN, digest, train_with_kills
from tests.support.commands import run_warm, start_warm, wait_until
from tests.support.tiny_training import AVERAGED, BY_ITERATION, DYING, write_training
from tests.support.weights import assert_same, load


class Draws(Dataset):
    """Ten samples: the index, and a number of each of the three global generators."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index, random.random(), np.random.random(), torch.rand(()).item()


def loader(workers=0, sampler=DefaultSampler, kind=SeededBatchSampler, seed=3):
    order = sampler(Draws(), shuffle=True, seed=seed)
    plain = DataLoader(Draws(), 3, sampler=order, num_workers=workers, collate_fn=list)
    return ResumableDataLoader(plain, kind(plain.batch_sampler, seed, len(plain.dataset)))


def epoch(loader, number, first=0):
    loader.batch_sampler.go_to(number, first)
    return list(loader)


def test_samples_do_not_depend_on_the_number_of_workers():
    assert epoch(loader(0), 1) == epoch(loader(1), 1) == epoch(loader(2), 1)


def test_an_epoch_can_be_entered_anywhere():
    whole = epoch(loader(), 2)
    assert len(whole) == 4
    for first in range(5):
        assert epoch(loader(), 2, first) == whole[first:]


def test_every_epoch_seed_and_sample_draws_other_numbers():
    batches = [*epoch(loader(), 0), *epoch(loader(), 1), *epoch(loader(seed=4), 0)]
    for column in (1, 2, 3):
        assert len({sample[column] for batch in batches for sample in batch}) == 30


def test_the_order_is_that_of_mmengines_sampler():
    sampler = DefaultSampler(Draws(), shuffle=True, seed=3)
    sampler.set_epoch(2)
    assert [sample[0] for batch in epoch(loader(), 2) for sample in batch] == list(sampler)


def endless(first, number, sampler):
    """So many batches from a position on."""
    batches = loader(sampler=sampler, kind=EndlessBatchSampler)
    batches.batch_sampler.go_to(0, first)
    return list(islice(batches, number))


def test_an_endless_run_over_a_sampler_without_end_can_be_entered_anywhere():
    whole = endless(0, 12, InfiniteSampler)
    assert endless(7, 5, InfiniteSampler) == whole[7:]
    samples = [sample for batch in whole for sample in batch]
    assert len({sample[1] for sample in samples}) == 36, 'each pass draws other numbers'
    plain = iter(InfiniteSampler(Draws(), shuffle=True, seed=3))
    assert [sample[0] for sample in samples] == [next(plain) for _ in samples]


def test_an_endless_run_over_epochs_goes_through_them():
    assert endless(5, 3, DefaultSampler) == epoch(loader(), 1)[1:]


def generator_states():
    numpy = np.random.get_state()[1].tolist()
    return random.getstate(), numpy, torch.get_rng_state().tolist()


def test_loading_leaves_the_generators_of_the_training_process_alone():
    batches = iter(loader())
    next(batches)  # starting an epoch seeds them
    states = generator_states()
    next(batches)
    assert states == generator_states()


# ------------------------------------------------------------------------------------ files


def write_checkpoints(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for age, path in enumerate(reversed(paths)):
        torch.save(dict(state_dict=dict(weight=torch.rand(4000))), path)
        os.utime(path, (1e9 - age, 1e9 - age))
    (folder / 'last_checkpoint').write_text(str(paths[-1]))
    return paths


def find(folder):
    warnings = []
    return files.find_checkpoint(folder, warnings.append), warnings


def test_the_checkpoint_that_was_named_last_is_used(tmp_path):
    older, newer = write_checkpoints(tmp_path, 'iter_2.pth', 'iter_4.pth')
    assert find(tmp_path) == (newer, [])
    (tmp_path / 'last_checkpoint').write_text(str(older))
    assert find(tmp_path) == (older, [])


DAMAGES = {
    'cut off': lambda content: content[:-900],
    'empty': lambda content: b'',
    'changed': lambda content: content.replace(content[6000:6004], b'abcd', 1),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(damage, tmp_path):
    older, newer = write_checkpoints(tmp_path, 'iter_2.pth', 'iter_4.pth')
    write_checkpoints(tmp_path / '.', 'best_mAP_iter_4.pth')
    (tmp_path / 'last_checkpoint').write_text(str(newer))
    newer.write_bytes(DAMAGES[damage](newer.read_bytes()))  # the newest file of all
    found, warnings = find(tmp_path)
    assert found == older
    assert any(str(newer) in line and 'damaged' in line for line in warnings)
    older.write_bytes(b'PK')
    with pytest.raises(DamagedCheckpointError, match='none of the 2 checkpoints'):
        find(tmp_path)


@pytest.mark.parametrize('content', ['', '/nowhe', '/nowhere/iter_9.pth'])
def test_a_dead_last_checkpoint_file_costs_nothing_but_a_warning(content, tmp_path):
    _, newer = write_checkpoints(tmp_path, 'iter_2.pth', 'iter_4.pth')
    (tmp_path / 'last_checkpoint').write_text(content)
    found, warnings = find(tmp_path)
    assert found == newer
    assert len(warnings) == 1 and 'last_checkpoint' in warnings[0]


def test_a_copied_run_goes_on_from_its_own_checkpoint(tmp_path):
    """`last_checkpoint` has an absolute path."""
    (tmp_path / 'first').mkdir()
    older, newer = write_checkpoints(tmp_path / 'first', 'iter_2.pth', 'iter_4.pth')
    copy = tmp_path / 'copy'
    shutil.copytree(tmp_path / 'first', copy)
    assert find(copy) == (copy / newer.name, [])
    (copy / newer.name).write_bytes(b'PK')
    found, warnings = find(copy)
    assert found == copy / older.name and warnings


def test_files_of_other_names_are_no_checkpoints_of_a_training(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'pretrained.pth')
    assert find(tmp_path) == (None, []) and not files.has_checkpoints(tmp_path)


def test_where_there_is_no_checkpoint_none_is_found(tmp_path):
    (tmp_path / f'iter_2.pth{files.UNFINISHED}').write_bytes(b'half')
    assert find(tmp_path) == (None, [])
    files.remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------- runs


KINDS = {'epochs': '', 'iterations': BY_ITERATION, 'averaged': AVERAGED}
both_loops = pytest.mark.parametrize('whole', ['epochs', 'iterations'], indirect=True)


@pytest.fixture(scope='module', params=KINDS)
def whole(request, tmp_path_factory):
    """Config and work directory of a run that was not killed, and the seconds it took."""
    folder = tmp_path_factory.mktemp(request.param)
    config = write_training(folder, KINDS[request.param])
    run_warm(DIGEST, '--help', cwd=folder)  # the first command waits for the imports
    start = time.monotonic()
    train_with_kills(config, folder / 'whole', workers=0, kills=[])
    return config, folder / 'whole', time.monotonic() - start


def assert_ends_alike(work_dir, whole):
    one, other = load(work_dir / LAST), load(whole[1] / LAST)
    assert ('ema_state_dict' in one) == ('EMAHook' in whole[0].read_text())
    for part in ('state_dict', 'optimizer', 'param_schedulers', 'ema_state_dict'):
        assert_same(one.get(part), other.get(part))
    for key in ('best_score', 'keep_ckpt_ids'):
        hubs = [checkpoint['message_hub']['runtime_info'] for checkpoint in (one, other)]
        assert hubs[0][key] == hubs[1][key]
    names = [sorted(path.name for path in folder.glob('*.pth')) for folder in (work_dir, whole[1])]
    assert [name for name in names[0] if name != 'preempted.pth'] == names[1]
    assert not list(work_dir.glob(f'*{files.UNFINISHED}'))
    assert digest(work_dir / LAST) == digest(whole[1] / LAST)


@both_loops
@pytest.mark.parametrize('workers', [0, 2])
def test_a_killed_run_ends_as_one_that_was_not(whole, workers):
    config, folder, seconds = whole
    moments = random.Random(workers)
    work_dir = folder.with_name(f'killed_{workers}')
    kills = [moments.uniform(0.4, 1) * seconds for _ in range(2)]
    train_with_kills(config, work_dir, workers, kills)
    assert_ends_alike(work_dir, whole)


def test_a_run_that_is_killed_after_a_validation_that_was_made_up_for_knows_its_best(whole):
    """The checkpoint that it goes on from was written before the validation, both times."""
    config, folder, _ = whole
    dying, work_dir = config.with_name('dying.py'), folder.with_name('died')
    dying.write_text(config.read_text() + DYING)
    train_with_kills(dying, work_dir, workers=0, kills=[200, 200])
    assert len(list(work_dir.glob('died_*'))) == 2
    assert_ends_alike(work_dir, whole)


@both_loops
def test_sigterm_saves_and_leaves_and_the_run_ends_alike(whole):
    config, folder, _ = whole
    work_dir, output = folder.with_name('told'), folder.with_name('told.txt')
    process = start_warm(
        TRAIN, config, '--work-dir', work_dir, '--cfg-options', 'train_dataloader.num_workers=1',
        cwd=folder, output=output,
    )  # fmt: skip
    wait_until(lambda: list(work_dir.glob('iter_*.pth')))
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    for pid in (*map(int, children.read_text().split()), process.pid):  # a whole group is told
        os.kill(pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 0, output.read_text()
    assert 'SIGTERM: saved preempted.pth' in output.read_text()
    assert not (work_dir / LAST).exists()
    resumed = run_warm(TRAIN, config, '--work-dir', work_dir, '--resume', cwd=folder)
    assert f'Resumed from {work_dir}/preempted.pth after iteration ' in resumed
    assert_ends_alike(work_dir, whole)


@pytest.mark.parametrize('whole', ['epochs'], indirect=True)
def test_a_damaged_checkpoint_that_was_asked_for_is_one_line(whole, tmp_path):
    half = tmp_path / 'half.pth'
    half.write_bytes((whole[1] / LAST).read_bytes()[:5000])
    said = run_warm(TRAIN, whole[0], '--resume', half, cwd=tmp_path, fails=True)
    assert said.splitlines()[-1].startswith(f'{half} is damaged')
    assert 'Traceback' not in said
