"""Freed memory is kept: allocating it again takes no page faults, unless a user says otherwise."""

import os
import subprocess
import sys

import pytest

from ssd_plugin.engine import host_memory

# Prints the page faults of using 64 MB that were allocated, used and freed just before.
PROGRAM = """
import resource
{prepare}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b'x' * (64 << 20)
before = faults()
b'x' * (64 << 20)
print(faults() - before)
"""
# The module alone: importing the plugin takes seconds.
KEEP = f"import runpy; print(runpy.run_path({host_memory.__file__!r})['keep_freed_memory']())"
glibc = pytest.mark.skipif(
    not (sys.platform == 'linux' and os.confstr('CS_GNU_LIBC_VERSION')), reason='of glibc'
)


def run(prepare, **environment):
    """What the program prints, in a process of its own: the setting is the process's."""
    command = [sys.executable, '-c', PROGRAM.format(prepare=prepare)]
    told = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return told.stdout.split()


@glibc
def test_keeps_memory():
    kept, faults = run(KEEP)
    assert kept == 'True'
    assert int(faults) < 100


@glibc
def test_switched_off():
    kept, faults = run(KEEP, SSD_PLUGIN_KEEP_MEMORY='0')
    assert kept == 'False'
    assert int(faults) > 1000  # of 16,384 pages; fewer where the kernel gives large ones
    assert int(run('')[0]) > 1000


@glibc
def test_the_commands_keep_it():
    prepare = (
        "import sys; sys.path.insert(0, 'tools'); import _common; "
        "from mmengine.config import Config; _common.set_up(Config(dict(launcher='none')))"
    )
    *_, faults = run(prepare)
    assert int(faults) < 100


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(host_memory.sys, 'platform', 'darwin')
    assert host_memory.keep_freed_memory() is False
