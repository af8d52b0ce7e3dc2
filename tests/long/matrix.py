"""The test suite on several sets of versions: the oldest, the newest, with and without a compiler.

    python -m tests.long.matrix
    python -m tests.long.matrix --only oldest-full newest-lite --tests tests/test_head.py

For each set `uv` makes an environment in .matrix/NAME, which takes 5 to 7 GB with PyTorch's CUDA
libraries; the Pythons of the sets must be on PATH. What has been installed and which files have
been tested is kept there: a run that was ended goes on. To test changed code again, remove
.matrix/*.results. .matrix/NAME.log has all that was printed. The exit code is 1 if a test failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.long.matrix_record import FILE_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / '.matrix'
UV = (sys.executable, '-m', 'uv')
PACKAGES = ('torch', 'torchvision', 'numpy', 'mmcv', 'mmengine', 'mmdet')
OUTCOMES = ('passed', 'failed', 'skipped')
# Distributions of these packages that are not called like them.
OTHER_NAMES = {
    'mmcv-lite': 'mmcv',
    'onedl-mmcv': 'mmcv',
    'onedl-mmengine': 'mmengine',
    'onedl-mmdetection': 'mmdet',
}


class VersionSet(NamedTuple):
    """Versions to test with.

    ``installs`` are the arguments of `uv pip install`, of one call after the other.
    """

    python: str
    installs: tuple[tuple[str, ...], ...]


# Oldest: what setup.py and the README promise. setuptools, wheel and ninja build mmcv.
OLDEST = ('torch==2.1.*', 'torchvision==0.16.*', 'numpy==1.26.*')
OLDEST_MMDET = ('mmengine==0.10.4', 'mmdet==3.2.0')
BUILD = ('setuptools<81', 'wheel', 'ninja', 'psutil')
# mmcv is compiled as C++17, and on Pythons before 3.13; PyTorch 2.15 wants C++20.
NEWEST_FOR_MMCV = ('torch==2.11.*', 'torchvision==0.26.*')
# A wheel that was built before may be for another PyTorch.
COMPILED_MMCV = ('--no-build-isolation', '--refresh-package', 'mmcv', 'mmcv==2.1.0')
# The forks have other names, so that setup.py's requirements of MMDetection are not met.
FORKS = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'torch', 'torchvision')
WHAT_ELSE_IS_REQUIRED = (
    'setuptools>=70.1,<82', 'matplotlib', 'opencv-python', 'pillow', 'rich', 'pytest',
    'pytest-xdist', 'hypothesis', 'ruff', 'tensorboard', 'onnx', 'onnxruntime',
)  # fmt: skip
PLUGIN = ('--editable', '.[test]')

SETS = {
    'oldest-lite': VersionSet('3.10', ((*OLDEST, *OLDEST_MMDET, 'mmcv-lite==2.1.0', *PLUGIN),)),
    'oldest-full': VersionSet(
        '3.10', ((*OLDEST, *BUILD), COMPILED_MMCV, (*OLDEST, *OLDEST_MMDET, *PLUGIN))
    ),
    'newest-lite': VersionSet('3.13', (('--editable', '.[lite,test]'),)),
    'newest-full': VersionSet(
        '3.12', ((*NEWEST_FOR_MMCV, *BUILD), COMPILED_MMCV, (*NEWEST_FOR_MMCV, *PLUGIN))
    ),
    'onedl': VersionSet(
        '3.12', ((*FORKS, *WHAT_ELSE_IS_REQUIRED), ('--no-deps', '--editable', '.'))
    ),
}


def python_of(name: str) -> Path:
    """The interpreter of a set's environment."""
    return FOLDER / name / 'bin' / 'python'


def ready_mark(name: str) -> Path:
    """A file that is there when all of the set has been installed."""
    return FOLDER / name / 'ready'


def install(name: str) -> None:
    """Make a set's environment, unless it is there and complete.

    Raises:
        subprocess.CalledProcessError: a step failed; the set's log has what it printed.
    """
    if ready_mark(name).exists():
        return
    chosen = SETS[name]
    if not python_of(name).exists():
        call(name, *UV, 'venv', '--python', chosen.python, FOLDER / name)
    for arguments in chosen.installs:
        call(name, *UV, 'pip', 'install', '--python', python_of(name), *arguments)
    ready_mark(name).touch()


def call(name: str, *command: str | Path, **environment: str) -> None:
    """Run a command at the root of the project, with what it prints in the set's log."""
    with open(FOLDER / f'{name}.log', 'ab') as log:
        subprocess.run(
            command, cwd=ROOT, env=dict(os.environ, **environment), check=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def run_tests(name: str, files: Sequence[str]) -> None:
    """Run the tests in those files that the set has not been tested with yet."""
    results = results_file(name)
    done = {entry['done'] for entry in read(results) if 'done' in entry}
    left = [file for file in files if file not in done]
    if not left:
        return
    try:
        call(
            name, python_of(name), '-m', 'pytest', '-p', 'matrix_record', '--tb=short',
            '--numprocesses', '2', '--dist', 'loadfile', '--continue-on-collection-errors', *left,
            PYTHONPATH=str(Path(__file__).resolve().parent), **{FILE_VARIABLE: str(results)},
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # 1 says that tests failed, which the results say, too
            raise


def results_file(name: str) -> Path:
    return FOLDER / f'{name}.results'


def read(results: Path) -> list[dict]:
    """What matrix_record.py has written; of a killed run, without a line that was cut off."""
    text = results.read_text(encoding='utf-8') if results.exists() else ''
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith('\n')]


def outcomes(name: str) -> dict[str, dict]:
    """The last outcome of each test of the set, by its id."""
    return {entry['test']: entry for entry in read(results_file(name)) if 'test' in entry}


def versions(name: str) -> dict[str, str]:
    """The versions of the environment's packages, under the names by which they are imported."""
    listed = subprocess.run(
        [*UV, 'pip', 'list', '--format', 'json', '--python', python_of(name)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = {package['name']: package['version'] for package in json.loads(listed.stdout)}
    for distribution, module in OTHER_NAMES.items():
        if distribution in found:
            found[module] = found[distribution]
    return found


def row(name: str) -> tuple[str, ...]:
    """A set's row of the table."""
    if not ready_mark(name).exists():
        return name, SETS[name].python, 'not installed'
    found = versions(name)
    counts = Counter(entry['outcome'] for entry in outcomes(name).values())
    return (
        name,
        SETS[name].python,
        *(found.get(package, '') for package in PACKAGES),
        *(str(counts[outcome]) for outcome in OUTCOMES),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=SETS, default=list(SETS), metavar='NAME',
                        help=f'sets: {", ".join(SETS)}')  # fmt: skip
    parser.add_argument('--tests', nargs='+', metavar='FILE', help='all unless given', default=[
        str(file.relative_to(ROOT)) for file in sorted(ROOT.glob('tests/test_*.py'))])  # fmt: skip
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    console = Console() if sys.stdout.isatty() else Console(width=110)  # a file has no width
    table = Table('set', 'Python', *PACKAGES, *OUTCOMES)
    complete = True
    for name in args.only:
        console.print(f'{name}: .matrix/{name}.log')
        try:
            install(name)
            run_tests(name, args.tests)
        except subprocess.CalledProcessError as error:
            complete = False
            command = shlex.join(map(str, error.cmd))
            console.print(f'{name}: failed: {command}', markup=False, soft_wrap=True)
        table.add_row(*row(name))
    console.print(table)
    for name in args.only:
        for test, entry in outcomes(name).items():
            if entry['outcome'] != 'passed':
                complete &= entry['outcome'] == 'skipped'
                line = f'{name}: {test} {entry["outcome"]}: {entry["why"]}'
                console.print(line, markup=False, highlight=False, soft_wrap=True)
    sys.exit(not complete)


if __name__ == '__main__':
    main()
