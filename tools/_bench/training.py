"""Training as the commands do it, but step by step: MMEngine's runner, stopped before its loop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn

from ssd_plugin.engine.amp import enable_amp
from ssd_plugin.engine.launch import build_runner

from .configs import OUR_CONFIG, mmdet_config, our_config, with_images

MANY = 10**6


@LOOPS.register_module()
class SteppedTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop over iterations, which whoever holds it takes when it likes."""

    def run(self) -> nn.Module:
        """Prepare as training does, and take no iteration."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        return self.runner.model

    def take(self, count: int) -> None:
        """Train for some iterations; between the calls the loader's workers stand still.

        What they have loaded ahead waits for the next call, as it would for the next iteration.
        """
        resume(self.workers)
        for _ in range(count):
            self.run_iter(next(self.dataloader_iterator))
        pause(self.workers)

    @property
    def workers(self) -> list:
        """The loader's processes; none where the loader does without."""
        return getattr(self.dataloader_iterator._iterator, '_workers', [])


def pause(processes: list) -> None:
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)


def resume(processes: list) -> None:
    for process in processes:
        os.kill(process.pid, signal.SIGCONT)


class Trainer:
    """A runner that is ready to train, from files or on a batch in memory.

    Args:
        cfg: From :func:`recipe`.
        build: From a config to a runner.
    """

    def __init__(self, cfg: Config, build: Callable[[Config], Runner]) -> None:
        self.runner = build(cfg)
        self.runner.train()  # builds everything, and returns before the first iteration
        self.loop = self.runner.train_loop
        pause(self.loop.workers)

    def collate(self, samples: list[dict]) -> dict:
        """A batch as this trainer's loader gives it."""
        loader = self.runner.train_dataloader
        batch = loader.collate_fn(samples)
        if loader.pin_memory:
            batch['inputs'] = batch['inputs'].pin_memory()
        return batch

    def step_on(self, batch: dict) -> dict[str, Tensor]:
        """Forward, backward and optimiser on a batch as a loader gives it."""
        return self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)

    def observed_format(self, batch: dict) -> tuple[torch.dtype, torch.memory_format]:
        """In which type and memory format this trainer's convolutions get their features."""
        seen = []
        second = [m for m in self.runner.model.modules() if isinstance(m, nn.Conv2d)][1]
        hook = second.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        self.step_on(batch)
        hook.remove()
        features = seen[0]
        last = features.is_contiguous(memory_format=torch.channels_last)
        return features.dtype, torch.channels_last if last else torch.contiguous_format

    def close(self) -> None:
        """End the loader's workers."""
        resume(self.loop.workers)
        if self.loop.workers:
            # Left to the garbage collector, each takes five seconds to notice.
            self.loop.dataloader_iterator._iterator._shutdown_workers()


def our_trainer(
    root: Path, work_dir: Path, batch: int, workers: int, amp: bool, config: Path = OUR_CONFIG
) -> Trainer:
    """One of the plugin's models on VOC, as ``tools/train.py`` trains it."""
    cfg = recipe(our_config(config), root, work_dir, batch, workers)
    if amp:
        enable_amp(cfg)
    return Trainer(cfg, build_runner)


def mmdet_trainer(root: Path, work_dir: Path, batch: int, workers: int) -> Trainer:
    """MMDetection's SSD300 on VOC, as its ``tools/train.py`` trains it."""
    setup_cache_size_limit_of_dynamo()
    return Trainer(recipe(mmdet_config(), root, work_dir, batch, workers), Runner.from_cfg)


def recipe(cfg: Config, root: Path, work_dir: Path, batch: int, workers: int) -> Config:
    """A recipe for VOC07+12, on the images under ``root`` and from random weights.

    Batch, workers and an endless order of images are the benchmark's; model, transforms,
    optimiser, hooks and the loader's other settings are the recipe's.
    """
    cfg.model.backbone.init_cfg = None
    loader = cfg.train_dataloader
    loader.dataset = with_images(cfg, root)
    loader.batch_size, loader.num_workers = batch, workers
    loader.sampler = dict(type='InfiniteSampler', shuffle=True)
    if workers == 0:
        for of_workers in ('persistent_workers', 'prefetch_factor'):
            loader.pop(of_workers, None)
    cfg.train_cfg = dict(type='SteppedTrainLoop', max_iters=MANY)
    for split in ('val', 'test'):
        for part in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{split}_{part}'] = None
    cfg.work_dir = str(work_dir)
    cfg.visualizer.name = work_dir.name  # MMEngine keeps one of each name
    cfg.log_level = 'ERROR'
    cfg.launcher = 'none'
    return cfg
