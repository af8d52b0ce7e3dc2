"""How training runs: hooks, the resumable runner, optimizers and mixed precision."""

from ssd_plugin.engine import hooks
from ssd_plugin.engine.amp import CPUAmpOptimWrapper
from ssd_plugin.engine.optim import MergingOptimWrapperConstructor
from ssd_plugin.engine.runner import ResumableRunner

__all__ = ['CPUAmpOptimWrapper', 'MergingOptimWrapperConstructor', 'ResumableRunner', 'hooks']
