"""A plugin of pytest that writes each outcome to a file as soon as it is known, for matrix.py.

One line of JSON for each: ``{"test": ID, "outcome": "passed", "why": ""}``, and ``{"done": FILE}``
after the last test of a file. A run that is killed leaves what it has found out. With xdist a line
is there twice, from the process that ran the test and from the one that started it.
"""

from __future__ import annotations

import json
import os

import pytest

FILE_VARIABLE = 'MATRIX_RESULTS'


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test that has passed says so when called; one that has not, wherever it stopped."""
    if report.when == 'call' or report.outcome != 'passed':
        _write(test=report.nodeid, outcome=report.outcome, why=_reason(report))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported is a failure, and is done with; so is one that is skipped."""
    if report.outcome != 'passed':
        _write(test=report.nodeid, outcome=report.outcome, why=_reason(report))
        _write(done=report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The last test of a file ends it."""
    file = item.nodeid.split('::')[0]
    if nextitem is None or nextitem.nodeid.split('::')[0] != file:
        _write(done=file)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped or has failed, in a line; nothing where it has passed."""
    if report.outcome == 'passed':
        return ''
    if isinstance(report.longrepr, tuple):  # (file, line, 'Skipped: reason')
        return report.longrepr[2]
    crash = getattr(report.longrepr, 'reprcrash', None)
    text = crash.message if crash else report.longreprtext.strip().splitlines()[-1]
    return text.splitlines()[0] if text else ''


def _write(**entry: str) -> None:
    with open(os.environ[FILE_VARIABLE], 'a', encoding='utf-8') as file:
        file.write(json.dumps(entry) + '\n')
