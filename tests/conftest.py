"""What every test starts from."""

import signal

import pytest

import ssd_plugin  # noqa: F401 - before MMDetection, which it makes importable without full mmcv

# isort: split
from mmdet.visualization import DetLocalVisualizer
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import init_default_scope

import tests.support.plain_configs  # noqa: F401
from ssd_plugin.visualization.visualizer import DetectionVisualizer
from tests.support.signal_stack import signal_stack_is_there


@pytest.fixture(autouse=True)
def _what_a_test_before_left_behind_is_gone():
    """Tests pass in any order: whatever scope was set last, and in whosever folder one drew.

    Loggers are named by the second of their making, and write to what was standard output then.
    """
    init_default_scope('mmdet')
    for kind in (DetectionVisualizer, DetLocalVisualizer, MessageHub, MMLogger):
        kind._instance_dict.clear()


@pytest.fixture(autouse=True)
def _sigterm_ends_a_process_again():
    """A handler that a test left behind, as a training that broke off does, is gone.

    MMDetection's metrics end their pools by SIGTERM, and wait forever for a worker that inherited
    a handler.
    """
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True, scope='module')
def _signals_find_their_stack():
    """A native library can leave one that is gone; the next signal then ends the process."""
    yield
    assert signal_stack_is_there()
