"""Training that may be killed at any moment: resumed, it ends with the same weights, bit by bit.

`data_order` makes the batches of a run, their order and what is random in them, a function of the
seed and the position; `loops` begin at a position; `files` writes checkpoints whole or not at
all, and finds the last that is whole; `preemption` answers SIGTERM; `runner` puts them together.
"""

from .checkpoint_hook import KeepingCheckpointHook
from .files import DamagedCheckpointError
from .runner import ResumableRunner

__all__ = ['DamagedCheckpointError', 'KeepingCheckpointHook', 'ResumableRunner']
