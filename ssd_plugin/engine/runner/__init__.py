"""Training that may be killed at any moment: resumed, it ends with the same weights, bit by bit.

`data_order` makes the batches of a run, their order and their random numbers, a function of the
seed and the position in the run; `loops` start at a position; `checkpoint_files` writes checkpoints
completely or not at all, and finds the last complete one; `runner` puts them together.
"""

from ssd_plugin.engine.runner.runner import ResumableRunner

__all__ = ['ResumableRunner']
