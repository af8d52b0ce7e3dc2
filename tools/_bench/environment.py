"""On what the figures were measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import mmcv
import mmdet
import mmengine
import numpy
import torch
import torchvision

import ssd_plugin


def describe(device: str) -> dict[str, str]:
    """Device, threads and versions, as they are to be printed."""
    facts = {
        'device': torch.cuda.get_device_name() if device == 'cuda' else _cpu_name(),
        'cores': str(os.cpu_count()),
        'threads': str(torch.get_num_threads()),
        'load before': f'{os.getloadavg()[0]:.1f} processes',  # of others: idle is 0
        'CPU instructions': torch.backends.cpu.get_cpu_capability(),
        'bfloat16 in hardware': 'yes' if bfloat16_is_native(device) else 'no',
        'python': platform.python_version(),
    }
    if device == 'cuda':
        facts['CPU'] = _cpu_name()
        facts['CUDA, cuDNN'] = f'{torch.version.cuda}, {torch.backends.cudnn.version()}'
    modules = (torch, torchvision, mmengine, mmdet, mmcv, cv2, numpy, ssd_plugin)
    facts.update({module.__name__: module.__version__ for module in modules})
    facts['opencv'] = facts.pop('cv2')
    facts['mmcv'] += ' (lite)' if _is_installed('mmcv-lite') else ' (compiled ops)'
    return facts


def bfloat16_is_native(device: str) -> bool:
    """Whether the device computes in bfloat16, rather than emulating it."""
    if device == 'cuda':
        return torch.cuda.get_device_capability() >= (8, 0)
    flags = _cpu_info('flags').split() or _cpu_info('Features').split()
    return bool({'avx512_bf16', 'amx_bf16', 'bf16'} & set(flags))


def _cpu_name() -> str:
    return _cpu_info('model name') or platform.processor() or platform.machine()


def _cpu_info(key: str) -> str:
    """A field of the first core in Linux's list; empty elsewhere."""
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.is_file() else []
    fields = (line.partition(':') for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == key), '')


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
