"""Between a config and MMEngine's runner: processes on CPUs, and the runner itself."""

from __future__ import annotations

import atexit
import gc

import torch.distributed as dist
from mmdet.registry import RUNNERS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from torch import nn

from ssd_plugin.checkpoints.files import read
from ssd_plugin.engine.amp import has_ssd_head
from ssd_plugin.engine.hooks.strict_load_hook import StrictLoadHook, unwrap
from ssd_plugin.engine.runner import ResumableRunner
from ssd_plugin.errors import ConfigError
from ssd_plugin.models.preprocessor import SSDDataPreprocessor


def join_cpu_processes(cfg: Config) -> None:
    """Join the processes of ``cfg.launcher`` over gloo, and have the model wrapped for the CPU.

    Does nothing without a launcher, and with an accelerator, where MMEngine does all of this. On
    CPUs MMEngine can't: before it joins the processes it chooses a GPU for each, and then one for
    each copy of the model. It does neither if the process group exists and the config names the
    devices.

    Raises:
        ConfigError: If the launcher is one that needs an accelerator.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise ConfigError(f'without a GPU, use torchrun with --launcher pytorch, not {launcher}')
    dist.init_process_group('gloo')
    atexit.register(_leave_processes)
    cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        **cfg.get('model_wrapper_cfg', {}),
        'device_ids': None,
    }


def _leave_processes() -> None:
    """Destroy the process group, and with it gloo's threads, before Python ends.

    A thread of gloo frees the tensors of the last collective at a time of its own, and the process
    aborts if Python is ending by then. The threads end with the last reference to the group. The
    model's wrapper holds one, in a reference cycle with the runner: hence the garbage collection.
    """
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def fit_loaders(cfg: Config) -> None:
    """Fit a config's loaders to the machine and to each other's settings.

    Where there is an accelerator, they pin batches in memory, so that it copies them while it
    computes, unless ``pin_memory`` is set. The model's ``data_preprocessor`` waits for the copy
    unless it has ``non_blocking=True``. Without workers, none of them persists, which PyTorch
    refuses.
    """
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader') or {}
        if loader and get_device() != 'cpu':
            loader.setdefault('pin_memory', True)
        if loader.get('num_workers') == 0:
            loader['persistent_workers'] = False


def check_preprocessor(cfg: Config) -> None:
    """Refuse a model whose images and annotations would be on different devices.

    Raises:
        ConfigError: If ``SSDDataPreprocessor`` serves another head than ``SSDMultiBoxHead``, where
            there is an accelerator.
    """
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if get_device() == 'cpu' or preprocessor.get('type') != SSDDataPreprocessor.__name__:
        return
    if not has_ssd_head(cfg):
        name = cfg.model.get('bbox_head', {}).get('type')
        raise ConfigError(
            'model.data_preprocessor.type=SSDDataPreprocessor leaves annotations on the host, for '
            f'SSDMultiBoxHead; the head is {name}: set it to DetDataPreprocessor'
        )


def build_runner(cfg: Config) -> Runner:
    """Build the runner that a config's ``runner_type`` names, by default a ``ResumableRunner``.

    It has a ``StrictLoadHook``, whether the config names one or not. A detector that is trained
    from ``load_from`` has all of its backbone from there, and needs no other file for it.

    Raises:
        CheckpointError: The file ``load_from``, or that of the backbone, is no checkpoint.
        OSError: There is no such file.
        ConfigError: See :func:`check_preprocessor`.
    """
    check_preprocessor(cfg)
    checkpoint = None if cfg.get('resume') else cfg.get('load_from')
    if checkpoint and '://' not in checkpoint:
        read(checkpoint)  # MMEngine's errors on files that are none are long, and of any type
    fit_loaders(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else ResumableRunner.from_cfg(cfg)
    if not any(isinstance(hook, StrictLoadHook) for hook in runner.hooks):
        runner.register_hook(StrictLoadHook())
    if isinstance(runner, Runner):  # FlexibleRunner builds its model later
        detector = unwrap(runner.model)
        if checkpoint and hasattr(detector, 'bbox_head'):
            detector.backbone.is_init = True
        elif cfg.get('train_cfg'):
            for path in pretrained_files(getattr(detector, 'backbone', None)):
                read(path)
    return runner


def pretrained_files(backbone: nn.Module | None) -> list[str]:
    """The files that MMEngine will initialise a backbone from."""
    init_cfg = getattr(backbone, 'init_cfg', None) or []
    init_cfgs = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    paths = [cfg['checkpoint'] for cfg in init_cfgs if cfg.get('type') == 'Pretrained']
    return [path for path in paths if '://' not in path]
