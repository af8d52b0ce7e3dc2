"""Which half precision the hardware computes in."""

from __future__ import annotations

import torch

from ssd_plugin.errors import InputError


def half_precision(device: torch.device) -> torch.dtype:
    """The type for mixed precision on a device: bfloat16, or float16 on GPUs before Ampere.

    bfloat16 comes first since it has the range of float32: the maps of VGG-16 may leave float16's.

    Raises:
        InputError: The hardware would only emulate it.
    """
    if device.type == 'cuda':
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 0):
            return torch.bfloat16
        if capability >= (7, 0):
            return torch.float16
        raise InputError(f'--half: {torch.cuda.get_device_name(device)} has no Tensor Cores')
    # PyTorch 2.6 and later say it; with an earlier one it counts as missing.
    names = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    if device.type == 'cpu' and any(getattr(torch.cpu, name, bool)() for name in names):
        return torch.bfloat16
    what = 'this CPU' if device.type == 'cpu' else f'device {device.type}'
    raise InputError(f'--half: {what} has no instructions for bfloat16 that PyTorch knows of')
