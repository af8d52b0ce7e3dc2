"""Progress and metrics on the console, in few lines; everything else is in the log file."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import EpochBasedTrainLoop, Runner

LINES = 10  # of a training run, and those of its evaluations
PATIENCE = 600  # seconds without a line


@HOOKS.register_module()
class ConsoleHook(Hook):
    """Print how training goes and what an evaluation gives, with one process.

    1. Before training, print where the log is and, of a resumed run, where it goes on.
    2. Print a line after the first interval of the ``LoggerHook``, which shows that it runs; after
       each tenth of the training, at the end of an epoch if the loop counts epochs; after each
       evaluation; and wherever ten minutes have passed without one. It has the losses, averaged
       since the line before, the metric and the time left.
    3. After a test, print the average precision of each class, and the other metrics.
    """

    priority = 'LOWEST'  # after the hooks that log, evaluate and save

    def __init__(self) -> None:
        self._pending: str | None = None  # a line that an evaluation may complete
        self._begin = self._last = (0.0, 0)  # time and iterations done: at the start, at a line

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Say where the log is, and begin to measure time."""
        say(f'Log: {log_file(runner)}')
        if runner.iter:
            source = runner._load_from or 'a checkpoint'
            say(f'Resumed from {source} after iteration {runner.iter} of {runner.max_iters}')
        self._begin = self._last = (time.monotonic(), runner.iter)

    @master_only
    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Print a line that no evaluation has completed."""
        self._flush()

    @master_only
    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Make a line if it is time to; DeferredRuntimeInfoHook has read the losses by then."""
        done = runner.iter + 1
        if any(self._is_due(runner, hook.interval, done) for hook in runner.hooks
               if isinstance(hook, LoggerHook)):  # fmt: skip
            self._pending = self._line(runner, done)

    @master_only
    def after_train_epoch(self, runner: Runner) -> None:
        """Make the line of an epoch; loops that count iterations have one epoch."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            every = math.ceil(runner.max_epochs / LINES)
            if (runner.epoch + 1) % every == 0 or runner.epoch + 1 == runner.max_epochs:
                self._pending = self._line(runner, runner.iter)

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Print a line with the metric; ``metrics`` are numbers by name."""
        line = self._pending or self._line(runner, runner.iter)
        self._pending = '   '.join([line, headline(metrics or {})])
        self._flush()

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Print the last line."""
        self._flush()

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Print all metrics; ``metrics`` are numbers by name."""
        say(metric_table(metrics or {}))
        say(f'Log: {log_file(runner)}')

    def _is_due(self, runner: Runner, interval: int, done: int) -> bool:
        if done % interval:
            return False
        is_first = done - self._begin[1] <= interval and self._last == self._begin
        waited = time.monotonic() - self._last[0] > PATIENCE
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            return is_first or waited
        every = interval * math.ceil(runner.max_iters / LINES / interval)
        return is_first or waited or done % every == 0

    def _line(self, runner: Runner, done: int) -> str:
        """Position, losses since the last line and time left, after so many iterations."""
        now = time.monotonic()
        scalars = runner.message_hub.log_scalars
        number = max(1, done - self._last[1])
        losses = {
            name.removeprefix('train/'): scalars[name].mean(number)
            for name in scalars
            if name.startswith('train/loss')
        }
        parts = [f'{name.removeprefix("loss_")} {losses[name]:.3f}' for name in losses]
        spent = (now - self._begin[0]) / max(1, done - self._begin[1])
        left = timedelta(seconds=round(spent * (runner.max_iters - done)))
        self._last = (now, done)
        return '   '.join([position(runner, done), ', '.join(parts), f'{left} left'])

    def _flush(self) -> None:
        if self._pending:
            say(self._pending)
        self._pending = None


def position(runner: Runner, done: int) -> str:
    """Where a run is after so many iterations, such as ``epoch  3/26``."""
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        return f'iteration {done:{len(str(runner.max_iters))}}/{runner.max_iters}'
    length = len(runner.train_dataloader)
    epoch, rest = math.ceil(done / length), done % length
    text = f'epoch {epoch:{len(str(runner.max_epochs))}}/{runner.max_epochs}'
    return f'{text}, iteration {rest}/{length}' if rest else text


def headline(metrics: Mapping[str, Any]) -> str:
    """The first metric and, of COCO's, that at IoU 0.5: ``mAP 0.253, mAP_50 0.431``."""
    names = list(metrics)[:1] + [name for name in metrics if name.endswith('bbox_mAP_50')]
    return ', '.join(f'{short(name)} {metrics[name]:.3f}' for name in names)


def short(name: str) -> str:
    """The name of a metric without its prefix, such as ``pascal_voc/`` or ``coco/bbox_``."""
    return name.partition('/')[2].removeprefix('bbox_') or name


def metric_table(metrics: Mapping[str, Any]) -> str:
    """A line for the average precision of each class, and one for the other numbers."""
    classes, others = {}, []
    for name, value in metrics.items():
        name = short(name)
        if name.startswith('AP/') or name.endswith('_precision'):  # VOCDetMetric, CocoMetric
            classes[name.removeprefix('AP/').removesuffix('_precision')] = float(value)
        elif isinstance(value, (int, float)):
            others.append(f'{name} {value:.3f}')
    width = max(map(len, classes), default=0)
    lines = [f'{name:{width}}  {value:.3f}' for name, value in classes.items()]
    return '\n'.join([*lines, ', '.join(others)])


def log_file(runner: Runner) -> str:
    """The path of the log, from the current directory if it is below that."""
    path = os.path.relpath(runner.logger.log_file)
    return runner.logger.log_file if path.startswith(os.pardir) else path


def say(text: str) -> None:
    """Print at once, also into a file."""
    print(text, flush=True)
