"""Training that may be killed at any moment: resumed, it ends with the same weights, bit by bit.

`data_order` makes the batches of a run, their order and what is random in them, a function of the
seed and the position; `loops` begin at a position; `checkpoint_files` writes checkpoints whole or
not at all, and finds the last that is whole; `runner` puts them together.
"""

from ssd_plugin.engine.runner.runner import ResumableRunner

__all__ = ['ResumableRunner']
