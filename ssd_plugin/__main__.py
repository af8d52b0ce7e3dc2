"""`python -m ssd_plugin`: the versions here, and whether what a detector needs works."""

from __future__ import annotations

import importlib
import platform
import sys
import warnings
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch
from mmengine.utils import is_installed
from rich import box
from rich.console import Console
from rich.table import Table

from ssd_plugin import __version__

PACKAGES = (
    'torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'onedl-mmengine',
    'onedl-mmcv', 'onedl-mmdetection', 'numpy', 'opencv-python', 'opencv-python-headless',
    'onnxruntime', 'tensorboard',
)  # fmt: skip


def main() -> None:
    """Print versions and checks; exit code 1 if a check fails."""
    console = Console()
    console.print(versions())
    failed = 0
    for check in (mmcv_operations, nms, components, detection, gpu):
        try:
            console.print(f'[green]ok[/]      {check()}', soft_wrap=True)
        except Exception as error:  # whatever is broken here, the other checks go on
            failed += 1
            problem = f'{check.__doc__} {type(error).__name__}: {error}'
            console.print(f'[red]FAILED[/]  {problem}', soft_wrap=True)
    sys.exit(bool(failed))


def versions() -> Table:
    """A row for each package that is installed."""
    table = Table('package', 'version', title=f'ssd_plugin {__version__}', box=box.SIMPLE_HEAD)
    table.add_row('python', platform.python_version())
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            table.add_row(name, version(name))
    return table


def mmcv_operations() -> str:
    """Where mmcv's operations come from."""
    if is_installed('mmcv._ext'):
        importlib.import_module('mmcv.ops')
        return "mmcv's operations are compiled: every model of MMDetection works"
    return "mmcv has no compiled operations: NMS is torchvision's, which is all that SSD needs"


def nms() -> str:
    """NMS through MMDetection's path."""
    from mmcv.ops import batched_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 0])
    _, kept = batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.5))
    if kept.tolist() != [0, 2, 3]:
        raise RuntimeError(f'kept boxes {kept.tolist()} of which [0, 2, 3] should stay')
    return 'NMS keeps the boxes that it should'


def components() -> str:
    """Components in MMDetection's registries."""
    from mmdet import registry

    roots = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
    found = {name: item for root in roots for name, item in root.module_dict.items()}
    names = [name for name, item in found.items() if item.__module__.startswith('ssd_plugin.')]
    if not names:
        raise RuntimeError("none of ssd_plugin's is registered")
    return f'registered: {", ".join(sorted(names))}'


def gpu() -> str:
    """A detector on a GPU."""
    if not torch.cuda.is_available():
        return 'no GPU: training and detection use the CPU'
    return f'{torch.cuda.get_device_name()}: {detection("cuda")}'


def detection(device: str = 'cpu') -> str:
    """A detector built from a config, one image through it."""
    from mmdet.apis import inference_detector, init_detector
    from mmengine.hub import get_config

    cfg = get_config('ssd_plugin::demo_shapes.py')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it has no checkpoint, and says so
        model = init_detector(cfg, device=device, palette='random')
    image = torch.zeros(64, 96, 3, dtype=torch.uint8).numpy()
    found = inference_detector(model, image).pred_instances
    if not (found.bboxes.isfinite().all() and found.scores.isfinite().all()):
        raise RuntimeError('detections are not finite')
    return f'a detector runs on {device}'


if __name__ == '__main__':
    main()
