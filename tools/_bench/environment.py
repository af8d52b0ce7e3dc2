"""The device and the versions with which the figures were measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import packages_distributions
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
    """Device, threads and versions, as they are printed."""
    cpu = cpu_info('model name') or platform.processor() or platform.machine()
    facts = {
        'device': torch.cuda.get_device_name() if device == 'cuda' else cpu,
        'cores': str(os.cpu_count()),
        'threads': str(torch.get_num_threads()),
        'load before': f'{os.getloadavg()[0]:.1f} processes',  # 0 on an idle machine
        'CPU instructions': torch.backends.cpu.get_cpu_capability(),
        'bfloat16 in hardware': 'yes' if bfloat16_is_native(device) else 'no',
        'python': platform.python_version(),
    }
    if device == 'cuda':
        facts['CPU'] = cpu
        facts['CUDA, cuDNN'] = f'{torch.version.cuda}, {torch.backends.cudnn.version()}'
    for module in (torch, torchvision, mmengine, mmdet, mmcv, numpy, ssd_plugin):
        facts[module.__name__] = module.__version__
    facts['opencv'] = cv2.__version__
    is_lite = 'mmcv-lite' in packages_distributions().get('mmcv', [])
    facts['mmcv'] += ' (lite)' if is_lite else ' (compiled ops)'
    return facts


def bfloat16_is_native(device: str) -> bool:
    """Whether the device computes in bfloat16, rather than emulating it."""
    if device == 'cuda':
        return torch.cuda.get_device_capability() >= (8, 0)
    flags = cpu_info('flags').split() or cpu_info('Features').split()
    return bool({'avx512_bf16', 'amx_bf16', 'bf16'} & set(flags))


def cpu_info(key: str) -> str:
    """A field of the first core in Linux's /proc/cpuinfo; empty on other systems."""
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.is_file() else []
    fields = (line.partition(':') for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == key), '')
