"""Training as the commands do it, but step by step: MMEngine's runner, stopped before its loop."""

from __future__ import annotations

import os
import signal
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn

from ssd_plugin.engine.amp import enable_amp
from ssd_plugin.engine.launch import build_runner

from .contestants import OUR_CONFIG, mmdet_config, our_config, with_images


class Settings(NamedTuple):
    """How to train."""

    batch: int  # images a step
    workers: int  # processes of each loader
    iterations: int = 1  # steps from files in a round
    amp: bool = False  # whether the plugin trains in mixed precision
    config: Path = OUR_CONFIG  # the plugin's recipe; only that of SSD300-VGG has peers

    @property
    def has_peers(self) -> bool:
        return self.config.resolve() == OUR_CONFIG


def our_loop(root: Path, work_dir: Path, settings: Settings) -> SteppedTrainLoop:
    """One of the plugin's models on VOC as ``tools/train.py`` trains it, before its first step."""
    cfg = recipe(our_config(settings.config), root, work_dir, settings)
    if settings.amp:
        enable_amp(cfg)
    runner = build_runner(cfg)
    runner.train()
    return runner.train_loop


def mmdet_loop(root: Path, work_dir: Path, settings: Settings) -> SteppedTrainLoop:
    """MMDetection's SSD300 on VOC as its ``tools/train.py`` trains it, before its first step."""
    setup_cache_size_limit_of_dynamo()
    runner = Runner.from_cfg(recipe(mmdet_config(), root, work_dir, settings))
    runner.train()
    return runner.train_loop


def recipe(cfg: Config, root: Path, work_dir: Path, settings: Settings) -> Config:
    """A recipe for VOC07+12, on the images under ``root`` and from random weights.

    Batch, workers and an endless order of images are the benchmark's; model, transforms,
    optimizer, hooks and the loader's other settings are the recipe's.
    """
    cfg.model.backbone.init_cfg = None
    loader = cfg.train_dataloader
    loader.dataset = with_images(cfg, root)
    loader.batch_size, loader.num_workers = settings.batch, settings.workers
    loader.sampler = dict(type='InfiniteSampler', shuffle=True)
    if not settings.workers:
        for only_with_workers in ('persistent_workers', 'prefetch_factor'):
            loader.pop(only_with_workers, None)
    cfg.train_cfg = dict(type='SteppedTrainLoop', max_iters=10**6)  # more than are ever taken
    for split, part in product(('val', 'test'), ('cfg', 'dataloader', 'evaluator')):
        cfg[f'{split}_{part}'] = None
    cfg.visualizer.name = work_dir.name  # MMEngine keeps one of each name
    cfg.update(work_dir=str(work_dir), log_level='ERROR', launcher='none')
    return cfg


@LOOPS.register_module()
class SteppedTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop over iterations, which waits to be told when to take some of them.

    In between, the processes of its loader stand still, so as not to disturb other contestants.
    """

    def run(self) -> nn.Module:
        """Prepare as training does, and take no iteration."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.signal_workers(signal.SIGSTOP)
        return self.runner.model

    def take(self, count: int) -> None:
        """Train for ``count`` iterations; what is loaded beyond them waits for the next call."""
        self.signal_workers(signal.SIGCONT)
        for _ in range(count):
            self.run_iter(next(self.dataloader_iterator))
        self.signal_workers(signal.SIGSTOP)

    def collate(self, samples: list[dict]) -> dict:
        """A batch as this loop's loader makes it."""
        batch = self.dataloader.collate_fn(samples)
        if self.dataloader.pin_memory:
            batch['inputs'] = batch['inputs'].pin_memory()
        return batch

    def step_on(self, batch: dict) -> dict[str, Tensor]:
        """Forward, backward and optimizer step on a batch from :meth:`collate`."""
        return self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)

    def observed_format(self, batch: dict) -> tuple[torch.dtype, torch.memory_format]:
        """The dtype and the memory format of the features within the model."""
        seen: list[Tensor] = []
        second = [m for m in self.runner.model.modules() if isinstance(m, nn.Conv2d)][1]
        with second.register_forward_pre_hook(lambda module, args: seen.append(args[0])):
            self.step_on(batch)
        last = seen[0].is_contiguous(memory_format=torch.channels_last)
        return seen[0].dtype, torch.channels_last if last else torch.contiguous_format

    @property
    def workers(self) -> list:
        """The loader's processes, if it has any."""
        return getattr(self.dataloader_iterator._iterator, '_workers', [])

    def signal_workers(self, number: signal.Signals) -> None:
        """Pause the loader's processes by SIGSTOP, or let them go on by SIGCONT."""
        for process in self.workers:
            os.kill(process.pid, number)

    def close(self) -> None:
        """End the loader's processes."""
        self.signal_workers(signal.SIGCONT)
        if self.workers:
            # Left to the garbage collector, each takes five seconds to notice.
            self.dataloader_iterator._iterator._shutdown_workers()
