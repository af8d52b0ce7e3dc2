"""How training runs: hooks, the resumable runner, optimizers and mixed precision."""

from ssd_plugin.engine import hooks
from ssd_plugin.engine.optim import CPUAmpOptimWrapper, MergingOptimWrapperConstructor
from ssd_plugin.engine.runner import ResumableRunner

__all__ = ['CPUAmpOptimWrapper', 'MergingOptimWrapperConstructor', 'ResumableRunner', 'hooks']
