"""The soak, for a few rounds, and whether it finds what it looks for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.long import soak
from tests.long.soak import MIB, Meter, Sample, checks, children, open_files
from tests.support.commands import SERVER


def samples_of(rss=lambda i: 500, workers=lambda i: 0, seconds=lambda i: 0.1 * i):
    """A hundred samples, ten rounds apart, memory in MiB."""
    return [Sample(10 * i, 10 * seconds(i), rss(i) * MIB, workers(i) * MIB) for i in range(1, 101)]


def verdicts(samples):
    return {check.name: check.passed for check in checks(samples)}


def test_what_stays_as_it_is_passes():
    noise = np.random.default_rng(0).normal(0, 3, 101)
    found = verdicts(samples_of(lambda i: 500 + noise[i], lambda i: 900 + noise[i]))
    assert found == {
        'memory': True, "memory of the loader's workers": True, 'processor time of a round': True
    }  # fmt: skip


def test_memory_that_caches_fill_in_the_first_quarter_passes():
    assert verdicts(samples_of(lambda i: min(200 + 20 * i, 600)))['memory']


LEAK = lambda i: 500 + 0.25 * i  # noqa: E731 - a quarter of a MiB in ten rounds


@pytest.mark.parametrize(
    'figures, name',
    [
        (dict(rss=LEAK), 'memory'),
        (dict(workers=LEAK), "memory of the loader's workers"),
        (dict(seconds=lambda i: 0.1 * i + 0.001 * i**2), 'processor time of a round'),
    ],
    ids=['a leak', "the workers' leak", 'longer and longer rounds'],
)
def test_what_grows_is_found_and_nothing_else(figures, name):
    found = verdicts(samples_of(**figures))
    assert [what for what, passed in found.items() if not passed] == [name]


def test_memory_is_what_the_kernel_says():
    meter = Meter(1)
    kept = np.ones(64 * MIB, np.uint8)  # written to, so that it is resident
    meter(1)
    lines = Path('/proc/self/status').read_text().splitlines()  # another place and unit
    resident = next(int(line.split()[1]) for line in lines if line.startswith('VmRSS'))
    assert meter.samples[0].rss / 1024 == pytest.approx(resident, rel=0.02)
    assert meter.samples[0].rss > len(kept)


def test_files_and_processes_that_are_left_are_seen(tmp_path):
    files, processes = open_files(), children()
    with open(tmp_path / 'left', 'w') as left:
        assert open_files() - files == {left.name: 1}
    assert not open_files() - files
    child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    meter = Meter(1)
    meter(1)
    assert not meter.samples[0].workers_rss  # it was there before
    assert children() - processes == {child.pid}
    child.communicate(b'\n')
    assert not children() - processes


def memory_passes_with_a_leak():
    kept = []

    def leaking(images):
        kept.append(np.ones(4 * MIB, np.uint8))

    meter = Meter(40)
    soak.predict(leaking, 40, meter)
    # The others' figures are of processor time, of which the clock may not have seen any yet.
    return next(check.passed for check in checks(meter.samples) if check.name == 'memory')


def test_a_leak_of_the_detector_is_found():
    # In a new process: this one may have much memory that it has freed, for the leak to take.
    with SERVER.Pool(1) as pool:
        assert not pool.apply(memory_passes_with_a_leak)


def test_a_short_soak_reports_on_both_phases(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['soak.py', '--rounds', '20', '--out', str(tmp_path)])
    monkeypatch.setattr(soak, 'IMAGES', 12)
    with pytest.raises(SystemExit):  # too few rounds to tell what grows
        soak.main()
    report = json.loads((tmp_path / 'soak.json').read_text())
    for phase in ('training', 'detection'):
        samples = report['samples'][phase]
        assert [sample['round'] for sample in samples] == list(range(1, 21))
        assert all(sample['rss'] > 100 * MIB for sample in samples)
        times = [sample['cpu_seconds'] for sample in samples]
        assert times == sorted(times)
        assert report['checks'][phase][0]['name'] == 'memory'
    assert all(sample['workers_rss'] for sample in report['samples']['training'])
    assert not any(sample['workers_rss'] for sample in report['samples']['detection'])
    assert report['left'] == dict(files=[], processes=[])
    assert 'left behind' in capsys.readouterr().out


def test_too_few_rounds_are_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['soak.py', '--rounds', '3'])
    with pytest.raises(SystemExit, match='^--rounds 3: take at least 20'):
        soak.main()
