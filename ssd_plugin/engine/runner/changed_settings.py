"""Resuming with other settings than a checkpoint's: the config's rates and schedule hold.

MMEngine takes the optimizer's settings and the schedule from the checkpoint, so that a lower rate
or a longer training in the config would change nothing.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

PROGRESS = ('last_step', '_global_step', '_last_value', 'verbose')  # of a scheduler, no settings


class Settings(NamedTuple):
    """The settings of a run's optimizer and schedule."""

    groups: list[dict[str, Any]]  # of the optimizer's parameters
    schedulers: list[dict[str, Any]]

    @classmethod
    def of(cls, runner: Runner) -> Settings:
        """Those that a runner has now."""
        groups = [
            {key: value for key, value in group.items() if key != 'params'}
            for group in runner.optim_wrapper.param_groups
        ]
        schedulers = [scheduler.state_dict() for scheduler in schedulers_of(runner)]
        return cls(copy.deepcopy(groups), copy.deepcopy(schedulers))

    def differ_from(self, others: Settings) -> bool:
        """Whether any does that both have, but for those that change in a run."""
        scheduled = [scheduler['param_name'] for scheduler in self.schedulers]
        pairs = [
            *((*pair, scheduled) for pair in zip(self.groups, others.groups)),
            *((*pair, PROGRESS) for pair in zip(self.schedulers, others.schedulers)),
        ]
        return list(map(len, self)) != list(map(len, others)) or any(
            one[key] != other[key]
            for one, other, changing in pairs
            for key in one.keys() & other.keys() - set(changing)
        )


def schedulers_of(runner: Runner) -> list[_ParamScheduler]:
    """A runner's schedulers, which it has built."""
    return list(runner.param_schedulers or ())


def can_change(runner: Runner) -> bool:
    """Whether a run's settings can be changed: it has one optimizer, and schedules know no scores.

    A schedule that follows an evaluation's scores is where it is because of them.
    """
    return isinstance(runner.optim_wrapper, OptimWrapper) and not any(
        getattr(scheduler, 'need_val_args', False) for scheduler in schedulers_of(runner)
    )


def keep_settings(runner: Runner, configured: Settings) -> None:
    """Give a runner that has been resumed the settings of before, if the checkpoint has others.

    The schedule goes through all iterations until the present one. What the optimizer has summed
    up, such as momentum, stays that of the checkpoint.
    """
    resumed = Settings.of(runner)
    if not configured.differ_from(resumed):
        return
    for group, values in zip(runner.optim_wrapper.param_groups, configured.groups, strict=True):
        group.update(copy.deepcopy(values))
    for scheduler, state in zip(schedulers_of(runner), configured.schedulers, strict=True):
        scheduler.load_state_dict(copy.deepcopy(state))
    replay(runner)
    before, now = (s.groups[0]['lr'] for s in (resumed, Settings.of(runner)))
    runner.logger.warning(
        "The config's optimizer and schedule hold, which are not those of the checkpoint: "
        f'the learning rate is {now:g} where it was {before:g}'
    )


def replay(runner: Runner) -> None:
    """Step the schedulers as in the iterations and epochs until the present one."""
    counts_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    length = len(runner.train_dataloader) if counts_epochs else runner.iter + 1
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that the optimizer has not stepped
        for done in range(1, runner.iter + 1):
            for scheduler in schedulers_of(runner):
                if not scheduler.by_epoch or done % length == 0:
                    scheduler.step()
