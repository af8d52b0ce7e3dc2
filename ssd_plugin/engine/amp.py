"""Mixed-precision training wherever the model runs: on an accelerator or on the CPU."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from ssd_plugin.models.head import SSDMultiBoxHead


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs the forward pass on the CPU in bfloat16.

    MMEngine's ``AmpOptimWrapper`` stops without an accelerator, since it is built around a loss
    scaler. bfloat16 needs none: it has the exponent of float32, so small gradients don't vanish,
    as they would in float16; only digits are lost. Weights, gradients and the optimizer's state
    stay float32.

    Checkpoints are those of ``OptimWrapper``, and pass from each of the three wrappers to each
    other: a loss scale in a checkpoint is dropped here, and ``AmpOptimWrapper`` starts with a
    fresh one where a checkpoint has none.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast to bfloat16 on the CPU, and accumulate gradients as ``OptimWrapper`` does."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the state of any of MMEngine's wrappers, without its loss scale."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != 'loss_scaler'})


def enable_amp(cfg: Config) -> None:
    """Turn on mixed precision in a config, in place: in training, and in its evaluations.

    - A CPU gets :class:`CPUAmpOptimWrapper`.
    - A GPU that has bfloat16 gets ``AmpOptimWrapper`` in that type, without a loss scale, and a
      fused optimizer where there is one; unless ``optim_wrapper`` says ``dtype='float16'``.
    - Then, and on another accelerator, it is ``AmpOptimWrapper`` with a dynamic loss scale.

    Other settings of ``optim_wrapper`` stay. The model is laid out with channels last.

    Warns where the CPU has no instructions for bfloat16, which makes it slower than float32.
    """
    wrapper = cfg.optim_wrapper
    if get_device() == 'cpu':
        wrapper.type = CPUAmpOptimWrapper.__name__
        for only_with_accelerator in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(only_with_accelerator, None)
    elif has_bfloat16() and wrapper.get('dtype', 'bfloat16') == 'bfloat16':
        # Nothing to scale: and the scaler would wait for the device in each iteration.
        wrapper.update(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
        if has_fused_form(wrapper.optimizer.type):
            wrapper.optimizer.setdefault('fused', True)
    else:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.loss_scale = 'dynamic'
    enable_amp_evaluation(cfg, 'val')


def has_bfloat16() -> bool:
    """Whether there is a GPU that computes in bfloat16, as NVIDIA's do from Ampere on."""
    return get_device() == 'cuda' and torch.cuda.get_device_capability() >= (8, 0)


def has_fused_form(optimizer: str) -> bool:
    """Whether an optimizer of PyTorch's can do a step on a GPU in one operation.

    Not to be used with a loss scaler: of an SGD whose first step the scaler skips, PyTorch 2.11
    leaves the momentum as it finds the memory.
    """
    if optimizer not in ('SGD', 'Adam', 'AdamW'):
        return False
    return 'fused' in inspect.signature(getattr(torch.optim, optimizer)).parameters


def enable_amp_evaluation(cfg: Config, split: str) -> None:
    """Turn on mixed precision in the evaluation of a split ('val' or 'test'), in place.

    On a CPU, another head than :class:`SSDMultiBoxHead` is evaluated in float32: MMDetection's
    place their anchors in the precision of the scores, which in bfloat16 is to two pixels from 256
    on, and NumPy, which metrics compute with, has no bfloat16. Warns of that, and where the CPU has
    no instructions for bfloat16.
    """
    on_cpu = get_device() == 'cpu'
    if on_cpu and torch.backends.cpu.get_cpu_capability() == 'AVX2':
        warnings.warn(
            'this CPU has no AVX-512: bfloat16 is emulated, and convolutions are many times '
            'slower than in float32; better go without --amp',
            RuntimeWarning,
            stacklevel=3,
        )
    if cfg.get(f'{split}_cfg'):
        if on_cpu and cfg.model.get('bbox_head', {}).get('type') != SSDMultiBoxHead.__name__:
            warnings.warn(
                'evaluation stays in float32: with --amp on a CPU, the boxes of other heads than '
                'SSDMultiBoxHead are too coarse',
                RuntimeWarning,
                stacklevel=3,
            )
        else:
            cfg[f'{split}_cfg'].fp16 = True
    hook = dict(type='ChannelsLastHook')
    if hook not in cfg.get('custom_hooks', []):
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]
