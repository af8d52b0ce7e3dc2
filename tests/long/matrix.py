"""The test suite on several sets of versions: the oldest, the newest, with and without a compiler.

    python -m tests.long.matrix
    python -m tests.long.matrix --only oldest-full newest-lite --tests tests/models

For each set `uv` makes an environment in .matrix/NAME, which takes 5 to 7 GB with PyTorch's CUDA
libraries; the Pythons of the sets must be on PATH. A set that has been installed is not installed
again, and one that has been tested to the end is not tested again: remove .matrix/NAME.xml to
repeat it. .matrix/NAME.log has all output. The exit code is 1 if a test failed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / '.matrix'
UV = (sys.executable, '-m', 'uv')
PACKAGES = ('torch', 'torchvision', 'numpy', 'mmcv', 'mmengine', 'mmdet')
# The outcomes of a test, by the elements of pytest's report that stand for them.
OUTCOMES = {'skipped': 'skipped', 'failure': 'failed', 'error': 'failed'}
# Distributions of these packages that are not called like them.
OTHER_NAMES = {
    'mmcv-lite': 'mmcv', 'onedl-mmcv': 'mmcv', 'onedl-mmengine': 'mmengine',
    'onedl-mmdetection': 'mmdet',
}  # fmt: skip


class VersionSet(NamedTuple):
    """Versions to test with."""

    python: str
    installs: tuple[tuple[str, ...], ...]  # arguments of one `uv pip install` after the other
    tests: tuple[str, ...] = ()  # the only ones that it is for; all if there are none


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
    # OpenCV 5 no longer runs Caffe's networks.
    'opencv4': VersionSet(
        '3.12',
        (('--editable', '.[lite,caffe]', 'opencv-python<5', 'pytest', 'pytest-xdist'),),
        ('tests/checkpoints/test_caffe.py',),
    ),
    # litert-torch pins packages, so that it has an environment of its own.
    'litert': VersionSet(
        '3.12',
        (('--editable', '.[lite,litert,export,timm]', 'pytest', 'pytest-xdist', 'hypothesis'),),
        ('tests/export/test_litert.py', 'tests/tools/test_export_tflite.py'),
    ),
}


def python_of(name: str) -> Path:
    """The interpreter of a set's environment."""
    return FOLDER / name / 'bin' / 'python'


def ready_mark(name: str) -> Path:
    """A file that is there when all of the set has been installed."""
    return FOLDER / name / 'ready'


def report_file(name: str) -> Path:
    """pytest's report in JUnit's format, which it writes at its end."""
    return FOLDER / f'{name}.xml'


def install(name: str) -> None:
    """Make a set's environment, unless it is there and complete."""
    if ready_mark(name).exists():
        return
    chosen = SETS[name]
    if not python_of(name).exists():
        call(name, *UV, 'venv', '--python', chosen.python, FOLDER / name)
    for arguments in chosen.installs:
        call(name, *UV, 'pip', 'install', '--python', python_of(name), *arguments)
    ready_mark(name).touch()


def run_tests(name: str, paths: Sequence[str]) -> None:
    """Run the tests in those files and folders, unless the set has been tested to the end."""
    if report_file(name).exists():
        return
    paths = SETS[name].tests or paths
    try:
        call(
            name, python_of(name), '-m', 'pytest', '--tb=short', '--numprocesses', '2',
            '--dist', 'loadfile', '--continue-on-collection-errors',
            '--junit-xml', report_file(name), *paths,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # 1: tests failed, as the report says
            raise


def call(name: str, *command: str | Path) -> None:
    """Run a command at the root of the project, with its output in the set's log.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    with open(FOLDER / f'{name}.log', 'ab') as log:
        streams = dict(stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        subprocess.run(command, cwd=ROOT, check=True, **streams)


def outcomes(name: str) -> Iterator[tuple[str, str, str]]:
    """Of each test of a set: its name, 'passed', 'failed' or 'skipped', and the reason."""
    if not report_file(name).exists():
        return
    for case in ElementTree.parse(report_file(name)).iter('testcase'):
        test = f'{case.get("classname")}.{case.get("name")}'.strip('.')
        for part in [part for part in case if part.tag in OUTCOMES] or [case]:
            reason = (part.get('message') or '').partition('\n')[0]
            yield test, OUTCOMES.get(part.tag, 'passed'), reason


def versions(name: str) -> dict[str, str]:
    """The versions of the environment's packages, under the names by which they are imported."""
    listed = subprocess.run(
        [*UV, 'pip', 'list', '--format', 'json', '--python', python_of(name)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {
        OTHER_NAMES.get(package['name'], package['name']): package['version']
        for package in json.loads(listed.stdout)
    }


def row(name: str) -> tuple[str, ...]:
    """A set's row of the table."""
    if not ready_mark(name).exists():
        return name, SETS[name].python, 'not installed'
    found = versions(name)
    counts = Counter(outcome for _, outcome, _ in outcomes(name))
    numbers = [str(counts[outcome]) for outcome in ('passed', 'failed', 'skipped')]
    return name, SETS[name].python, *(found.get(package, '') for package in PACKAGES), *numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=SETS, default=list(SETS), metavar='NAME',
                        help=f'sets: {", ".join(SETS)}')  # fmt: skip
    parser.add_argument('--tests', nargs='+', metavar='PATH', default=['tests'],
                        help='files or folders, all unless given')  # fmt: skip
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    console = Console() if sys.stdout.isatty() else Console(width=110)  # a file has no width
    table = Table('set', 'Python', *PACKAGES, 'passed', 'failed', 'skipped')
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
        for test, outcome, reason in outcomes(name):
            complete &= outcome != 'failed'
            if outcome != 'passed':
                line = f'{name}: {test} {outcome}: {reason}'
                console.print(line, markup=False, highlight=False, soft_wrap=True)
    sys.exit(not complete)


if __name__ == '__main__':
    main()
