"""The stand-in for mmcv's compiled operations, of which SSD needs NMS alone."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from typing import NoReturn

import torch
from torch import Tensor
from torchvision import ops

from ssd_plugin.errors import (
    MissingOperationError,
    MissingPackageError,
    SSDPluginWarning,
)

MMCV_LITE = 'pip install "mmcv-lite>=2.0.0,<2.2.0"'
# With build isolation mmcv's setup.py finds neither torch nor pkg_resources. From Python 3.13 on
# it does not run at all.
_FULL = (
    'pip uninstall -y mmcv-lite; pip install --no-build-isolation "mmcv>=2.0.0,<2.2.0" '
    '(Python < 3.13)'
)


def install_mmcv_ops() -> None:
    """Put a stand-in where the compiled module `mmcv._ext` is absent or cannot be loaded.

    Broken: `mmdet` imports `mmcv.ops`, which imports `mmcv._ext`. mmcv-lite has none, and there is
    no prebuilt mmcv for current PyTorch. SSD needs one operation of it, NMS.
    Versions: mmcv-lite, all; mmcv, where it was compiled for another PyTorch.
    We: serve NMS from torchvision; every other operation raises where it is *called*. It does not
    matter if `import mmdet` failed before: Python forgets the modules that failed, and importing
    them again succeeds.
    Until: MMDetection imports without mmcv's compiled operations.

    Raises:
        MissingPackageError: Neither mmcv nor mmcv-lite is installed.
    """
    if 'mmcv._ext' in sys.modules:
        return
    mmcv_spec = importlib.util.find_spec('mmcv')
    if mmcv_spec is None or mmcv_spec.origin is None:  # origin None: a folder left by uninstalling
        raise MissingPackageError(
            f'ssd_plugin needs mmcv, compiled or not; the latter is: {MMCV_LITE}'
        )

    remedy = f'mmcv-lite does not have it; install the compiled mmcv: {_FULL}'
    if PathFinder.find_spec('mmcv._ext', mmcv_spec.submodule_search_locations) is not None:
        importlib.import_module('mmcv')  # outside the try: its own errors are not about operations
        try:
            importlib.import_module('mmcv._ext')
            return
        except ImportError as error:
            remedy = f'the installed mmcv does not fit PyTorch {torch.__version__}; rebuild it'
            warnings.warn(
                f"mmcv's compiled operations cannot be loaded ({error}): NMS comes from "
                f'torchvision, the others raise. Rebuild mmcv for PyTorch {torch.__version__}, or '
                f'replace it: pip uninstall -y mmcv; {MMCV_LITE}',
                SSDPluginWarning,
                stacklevel=2,
            )
    sys.modules['mmcv._ext'] = StandInOps(remedy)


class StandInOps(types.ModuleType):
    """`mmcv._ext` without compiled code: `nms`, and a function that raises for any other name.

    Its error ends with `remedy`, which tells the user what to do.
    """

    def __init__(self, remedy: str) -> None:
        super().__init__('mmcv._ext', 'NMS from torchvision; every other operation raises.')
        # Without a loader, MMEngine concludes, rightly, that the full mmcv is not installed.
        self.__spec__ = ModuleSpec('mmcv._ext', loader=None)
        self.nms = nms
        self._remedy = remedy

    def __getattr__(self, name: str) -> Callable:
        """Return a function that raises MissingOperationError, for any operation's name.

        Raises:
            AttributeError: For `__path__`, `__file__` and the like, which this module lacks.
        """
        if name.startswith('__'):
            raise AttributeError(f'module mmcv._ext has no attribute {name}')

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise MissingOperationError(f'mmcv operation "{name}": {self._remedy}')

        return missing


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """`mmcv._ext.nms`, computed by torchvision.

    `boxes` (N, 4) are x1, y1, x2, y2, and `scores` (N,). A box that overlaps a better one by more
    than `iou_threshold` is dropped. `offset` is 1 where x2, y2 name the last pixel inside the box,
    so that w = x2 - x1 + 1. Returns the indices of the boxes kept, int64, by descending score.
    """
    # torchvision wants one dtype for both, and on the CPU no half precision.
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    boxes = boxes.to(dtype)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    return ops.nms(boxes, scores.to(dtype), iou_threshold)
