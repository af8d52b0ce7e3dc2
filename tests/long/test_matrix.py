"""The matrix's book-keeping, over a small suite and the interpreter that is here."""

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


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with a suite, and a set `here` whose environment is this interpreter's."""
    (tmp_path / 'tests').mkdir()
    for name, text in SUITE.items():
        (tmp_path / 'tests' / name).write_text(text)
    monkeypatch.setattr(matrix, 'ROOT', tmp_path)
    monkeypatch.setattr(matrix, 'FOLDER', tmp_path / '.matrix')
    monkeypatch.setattr(matrix, 'SETS', dict(here=matrix.VersionSet('3.1', (('a', 'b'), ('c',)))))
    monkeypatch.setattr(matrix, 'versions', lambda name: dict(torch='2.1.2'))
    (tmp_path / '.matrix/here').mkdir(parents=True)
    return tmp_path


def run(monkeypatch, *args):
    """The exit code of matrix.py."""
    monkeypatch.setattr(sys, 'argv', ['matrix.py', *args])
    with pytest.raises(SystemExit) as exit_info:
        matrix.main()
    return int(exit_info.value.code)


def test_each_outcome_is_told_with_its_reason_once(root, monkeypatch, capsys):
    monkeypatch.setattr(matrix, 'python_of', lambda name: Path(sys.executable))
    matrix.ready_mark('here').touch()
    for _ in range(2):
        assert run(monkeypatch) == 1
        said = capsys.readouterr().out
        assert re.search(r'here .* 2\.1\.2 .* 2 .* 3 .* 1 ', said)
        assert sorted(line for line in said.splitlines() if line.startswith('here: tests')) == [
            "here: tests.test_no_import failed: collection failure",
            'here: tests.test_two.test_elsewhere skipped: not here',
            "here: tests.test_two.test_of_a_broken_fixture failed: failed on setup with "
            '"OSError: no disk"',
            'here: tests.test_two.test_wrong failed: AssertionError: the sum',
        ]  # fmt: skip
        (root / 'tests/test_two.py').write_text('the second time, nothing is tested')


@pytest.mark.parametrize('only, code', [('test_elsewhere', 0), ('test_wrong', 1)])
def test_the_exit_code_tells_whether_a_test_failed(root, monkeypatch, only, code):
    monkeypatch.setattr(matrix, 'python_of', lambda name: Path(sys.executable))
    matrix.ready_mark('here').touch()
    assert run(monkeypatch, '--tests', 'tests/test_fine.py', f'tests/test_two.py::{only}') == code


def test_a_set_that_cannot_be_installed_is_told_and_tried_again(root, monkeypatch, capsys):
    commands = []

    def call(name, *command):
        commands.append([str(word) for word in command])
        if 'c' in commands[-1]:
            raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(matrix, 'call', call)
    for _ in range(2):
        assert run(monkeypatch) == 1
    assert 'not installed' in capsys.readouterr().out
    assert [command[-1] for command in commands] == [str(root / '.matrix/here'), 'b', 'c'] * 2


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
