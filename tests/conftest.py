"""What every test starts from."""

import pytest

import ssd_plugin  # noqa: F401 - before MMDetection, which it makes importable without full mmcv

# isort: split
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True)
def _components_are_looked_up_in_mmdet():
    """Whatever scope a test before left behind: tests pass in any order."""
    init_default_scope('mmdet')
