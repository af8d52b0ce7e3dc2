"""What every test starts from."""

import pytest

import ssd_plugin  # noqa: F401 - before MMDetection, which it makes importable without full mmcv

# isort: split
from mmdet.visualization import DetLocalVisualizer
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import init_default_scope

import tests.support.plain_configs  # noqa: F401
from ssd_plugin.visualization.visualizer import DetectionVisualizer


@pytest.fixture(autouse=True)
def _what_a_test_before_left_behind_is_gone():
    """Tests pass in any order: whatever scope was set last, and in whosever folder one drew.

    Loggers are named by the second of their making, and write to what was standard output then.
    """
    init_default_scope('mmdet')
    for kind in (DetectionVisualizer, DetLocalVisualizer, MessageHub, MMLogger):
        kind._instance_dict.clear()
