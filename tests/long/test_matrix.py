"""The matrix's book-keeping, over a made suite and the interpreter that is here."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.long import matrix

SUITE = {
    'test_two.py': """
import pytest
def test_right(): pass
def test_wrong(): assert 1 + 1 == 3, 'the sum'
@pytest.mark.skip(reason='not here')
def test_elsewhere(): pass
@pytest.fixture
def broken(): raise OSError('no disk')
def test_of_a_broken_fixture(broken): pass
""",
    'test_no_import.py': 'import there_is_no_such_module\n',
    'test_fine.py': 'def test_fine(): pass\n',
}
FILES = [f'tests/{name}' for name in SUITE]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with a made suite, and a set `here` whose environment is this interpreter's."""
    (tmp_path / 'tests').mkdir()
    for name, text in SUITE.items():
        (tmp_path / 'tests' / name).write_text(text)
    monkeypatch.setattr(matrix, 'ROOT', tmp_path)
    monkeypatch.setattr(matrix, 'FOLDER', tmp_path / '.matrix')
    monkeypatch.setattr(matrix, 'SETS', dict(here=matrix.VersionSet('3.1', (('a', 'b'), ('c',)))))
    matrix.FOLDER.mkdir()
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """The commands that would have been run; those that have 'c' in them fail."""
    found = []

    def call(name, *command, **environment):
        found.append([str(word) for word in command])
        if 'c' in found[-1]:
            raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(matrix, 'call', call)
    return found


def run(monkeypatch, *args):
    """The exit code of matrix.py."""
    monkeypatch.setattr(sys, 'argv', ['matrix.py', *args])
    with pytest.raises(SystemExit) as exit_info:
        matrix.main()
    return int(exit_info.value.code)


def test_each_outcome_is_kept_with_its_reason(root, monkeypatch):
    monkeypatch.setattr(matrix, 'python_of', lambda name: Path(sys.executable))
    matrix.run_tests('here', FILES)
    found = {test: (entry['outcome'], entry['why'])
             for test, entry in matrix.outcomes('here').items()}  # fmt: skip
    assert found == {
        'tests/test_two.py::test_right': ('passed', ''),
        'tests/test_two.py::test_wrong': ('failed', 'AssertionError: the sum'),
        'tests/test_two.py::test_elsewhere': ('skipped', 'Skipped: not here'),
        'tests/test_two.py::test_of_a_broken_fixture': ('failed', 'OSError: no disk'),
        'tests/test_no_import.py': (
            'failed', "E   ModuleNotFoundError: No module named 'there_is_no_such_module'"
        ),
        'tests/test_fine.py::test_fine': ('passed', ''),
    }  # fmt: skip


def test_a_run_that_was_killed_goes_on_with_the_file_it_was_at(root, calls):
    matrix.results_file('here').write_text(
        '{"test": "tests/test_two.py::test_right", "outcome": "passed", "why": ""}\n'
        '{"done": "tests/test_two.py"}\n'
        '{"test": "tests/test_fine.py::test_fine", "outcome": "failed", "why": "killed"}\n'
        '{"test": "tests/test_fi'
    )
    matrix.run_tests('here', FILES)
    assert calls[0][-2:] == FILES[1:] and FILES[0] not in calls[0]
    assert matrix.outcomes('here')['tests/test_fine.py::test_fine']['why'] == 'killed'


def test_what_has_been_tested_is_not_tested_again(root, calls):
    matrix.results_file('here').write_text(''.join(f'{{"done": "{file}"}}\n' for file in FILES))
    matrix.run_tests('here', FILES)
    assert not calls


def test_a_set_that_cannot_be_installed_is_told_and_tried_again(root, calls, monkeypatch, capsys):
    for _ in range(2):
        assert run(monkeypatch, '--tests', *FILES) == 1
    assert 'not installed' in capsys.readouterr().out
    assert [command[-1] for command in calls] == [str(root / '.matrix/here'), 'b', 'c'] * 2


@pytest.mark.parametrize('outcome', ['passed', 'skipped', 'failed'])
def test_the_exit_code_tells_whether_a_test_failed(root, calls, monkeypatch, capsys, outcome):
    (root / '.matrix/here').mkdir()
    matrix.ready_mark('here').touch()
    monkeypatch.setattr(matrix, 'versions', lambda name: dict(torch='2.1.2'))
    entries = dict(test='tests/test_fine.py::test_fine', outcome=outcome, why='of a kind')
    matrix.results_file('here').write_text(
        f'{json.dumps(entries)}\n{{"done": "tests/test_fine.py"}}\n'
    )
    assert run(monkeypatch, '--tests', 'tests/test_fine.py') == (outcome == 'failed')
    said = capsys.readouterr().out
    assert '2.1.2' in said
    line = f'here: tests/test_fine.py::test_fine {outcome}: of a kind'
    assert (line in said) == (outcome != 'passed')


@pytest.mark.parametrize('name', ['oldest-lite', 'oldest-full'])
def test_the_oldest_set_has_the_least_versions_that_the_package_takes(name):
    least = {}
    for requirement in metadata.requires('ssd-plugin'):
        match = re.match(r'(torch|mmengine|mmdet)\b[^;]*>=([0-9.]+)', requirement)
        if match:
            least[match[1]] = match[2]
    assert set(least) == {'torch', 'mmengine', 'mmdet'}
    words = [word for words in matrix.SETS[name].installs for word in words]
    for package, version in least.items():
        assert any(word.startswith(f'{package}=={version}') for word in words)
