"""What MMDetection 3.x needs on current PyTorch, NumPy and Python.

`apply()` runs when `ssd_plugin` is imported, before anything imports `mmcv.ops` or `mmdet`. Each
entry below says what is broken, in which versions, what we do about it and when to delete it,
and does nothing where it is not needed.

Not an entry, but a requirement in setup.py: MMEngine (all of 0.10) imports `pkg_resources` and
`distutils`; `setuptools<82` brings both, on every Python.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import sys
import types
import warnings
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from ssd_plugin.compat import torch_load as loading

_LITE = 'pip install "mmcv-lite>=2.0.0,<2.2.0"'
# With build isolation mmcv's setup.py finds neither torch nor pkg_resources. From Python 3.13 on
# it does not run at all.
_FULL = (
    'pip uninstall -y mmcv-lite; pip install --no-build-isolation "mmcv>=2.0.0,<2.2.0" '
    '(Python < 3.13)'
)
_REFERENCE = 'ssd_plugin::'


@functools.cache
def apply() -> None:
    """Apply every entry; a second call does nothing.

    Raises:
        ImportError: mmcv is not installed, or OpenCV cannot be loaded. One line says what to do.
    """
    _explain_opencv_without_display()
    _install_stand_in_for_mmcv_ops()
    _restore_find_loader()
    loading.allow_what_mmengine_checkpoints_hold()
    loading.read_no_code_on_older_pytorch()
    loading.read_no_code_from_addresses()
    loading.read_no_code_after_all()
    loading.name_what_is_refused()
    _have_one_process_write_the_metrics_of_a_test()
    _resolve_references_to_our_configs()


def _explain_opencv_without_display() -> None:
    """Say what to do when OpenCV misses the libraries of a screen.

    Broken: MMEngine and mmcv require `opencv-python`, whose Linux wheels need libGL; a server or
    a container often has none, and the error names only the library.
    Versions: all. Until: MMEngine accepts `opencv-python-headless`.

    Raises:
        ImportError: with the remedy, where `import cv2` fails.
    """
    try:
        importlib.import_module('cv2')
    except ImportError as error:
        raise ImportError(
            f'OpenCV cannot be loaded ({error}); on a machine without a screen: '
            'pip uninstall -y opencv-python; pip install opencv-python-headless'
        ) from error


# --- mmcv's compiled operations ------------------------------------------------------------------


def _install_stand_in_for_mmcv_ops() -> None:
    """Put a stand-in where the compiled module `mmcv._ext` is absent or cannot be loaded.

    Broken: `mmdet` imports `mmcv.ops`, which imports `mmcv._ext`. mmcv-lite has none, and there is
    no prebuilt mmcv for current PyTorch. SSD needs one operation of it, NMS.
    Versions: mmcv-lite, all; mmcv, where it was compiled for another PyTorch.
    We: serve NMS from torchvision; every other operation raises where it is *called*. It does not
    matter if `import mmdet` failed before: Python forgets the modules that failed, and importing
    them again succeeds.
    Until: MMDetection imports without mmcv's compiled operations.

    Raises:
        ImportError: neither mmcv nor mmcv-lite is installed.
    """
    if 'mmcv._ext' in sys.modules:
        return
    mmcv_spec = importlib.util.find_spec('mmcv')
    if mmcv_spec is None or mmcv_spec.origin is None:  # origin None: a folder left by uninstalling
        raise ImportError(f'ssd_plugin needs mmcv, compiled or not; the latter is: {_LITE}')

    remedy = f'mmcv-lite does not have it; install the compiled mmcv: {_FULL}'
    if PathFinder.find_spec('mmcv._ext', mmcv_spec.submodule_search_locations) is not None:
        importlib.import_module('mmcv')  # an error of mmcv's own is not about its operations
        try:
            importlib.import_module('mmcv._ext')
            return
        except ImportError as error:
            remedy = f'the installed mmcv does not fit PyTorch {torch.__version__}; rebuild it'
            warnings.warn(
                f"mmcv's compiled operations cannot be loaded ({error}): NMS comes from "
                f'torchvision, the others raise. Rebuild mmcv for PyTorch {torch.__version__}, or '
                f'replace it: pip uninstall -y mmcv; {_LITE}',
                RuntimeWarning,
                stacklevel=2,
            )
    sys.modules['mmcv._ext'] = _StandInOps(remedy)


class _StandInOps(types.ModuleType):
    """`mmcv._ext` without compiled code: `nms`, and a function that raises for any other name.

    Args:
        remedy: What the error of a missing operation tells the user to do.
    """

    def __init__(self, remedy: str) -> None:
        super().__init__('mmcv._ext', 'NMS from torchvision; every other operation raises.')
        # No loader: MMEngine asks for one, and rightly concludes that full mmcv is not here.
        self.__spec__ = ModuleSpec('mmcv._ext', loader=None)
        self.nms = _nms
        self._remedy = remedy

    def __getattr__(self, name: str) -> Callable:
        """Answer any operation's name with a function that raises NotImplementedError.

        Raises:
            AttributeError: for `__path__`, `__file__` and the like, which this module lacks.
        """
        if name.startswith('__'):
            raise AttributeError(f'module mmcv._ext has no attribute {name}')

        def missing(*args, **kwargs) -> NoReturn:
            raise NotImplementedError(f'mmcv operation "{name}": {self._remedy}')

        return missing


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """`mmcv._ext.nms`, computed by torchvision.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: A box that overlaps a better one by more than this is dropped.
        offset: 1 where x2, y2 name the last pixel inside the box, so that w = x2 - x1 + 1.

    Returns:
        Indices of the boxes kept, int64, by falling score.
    """
    from torchvision.ops import nms  # here: torchvision takes a second to import

    # torchvision wants one dtype, and on the CPU no half precision.
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    boxes = boxes.to(dtype)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    return nms(boxes, scores.to(dtype), iou_threshold)


def _restore_find_loader() -> None:
    """Give `pkgutil.find_loader` back to Python 3.14.

    Broken: MMEngine asks `pkgutil.find_loader('mmcv._ext')`; Python 3.14 removed the function.
    Versions: Python >= 3.14 with MMEngine 0.10. Until: MMEngine uses importlib.util.find_spec.
    """
    if hasattr(pkgutil, 'find_loader'):
        return

    def find_loader(name: str) -> Loader | None:
        spec = importlib.util.find_spec(name)
        return spec and spec.loader

    pkgutil.find_loader = find_loader


def _have_one_process_write_the_metrics_of_a_test() -> None:
    """Have the first of several processes alone write what a test has found.

    Broken: all write it to the same file at the same time, and now and then the end of one's
    stays behind the other's: no JSON.
    Versions: MMEngine, all of 0.10. Until: MMEngine lets one write.
    """
    from mmengine.dist import master_only
    from mmengine.hooks import LoggerHook

    LoggerHook.after_test_epoch = master_only(LoggerHook.after_test_epoch)


# --- references to our configs -------------------------------------------------------------------


def _resolve_references_to_our_configs() -> None:
    """Make 'ssd_plugin::ssd300_voc.py' a config's name, in `_base_` and `mmengine.hub.get_config`.

    Broken: MMEngine knows only OpenMMLab's own packages, demands a folder in the name, does not
    find packages installed in editable mode, and builds what it finds in a registry scope named
    after the package, where ours is `mmdet`.
    Versions: MMEngine, all of 0.10.
    We: answer for references that begin with 'ssd_plugin::', and leave the others to MMEngine.
    `ssd_plugin` must have been imported before such a config is read.
    Until: MMEngine lets a package announce its configs.
    """
    from mmengine.config import Config
    from mmengine.hub import hub  # where get_config looks names up, however it was imported

    get_cfg_path = Config._get_cfg_path
    get_package_and_cfg_path = hub._get_package_and_cfg_path
    get_cfg_metainfo = hub._get_cfg_metainfo

    def cfg_path(reference: str, filename: str) -> tuple[str, str | None]:
        if reference.startswith(_REFERENCE):
            return _config_file(reference), 'mmdet'
        return get_cfg_path(reference, filename)

    def package_and_cfg_path(reference: str) -> tuple[str, str]:
        if reference.startswith(_REFERENCE):
            return 'mmengine', _config_file(reference)  # whose folder the hub joins, see below
        return get_package_and_cfg_path(reference)

    def cfg_metainfo(package_path: str, cfg_path: str) -> dict:
        # Ours is an absolute path already: joining it to the package's folder has no effect.
        if Path(cfg_path).is_absolute():
            return {'Config': cfg_path}
        return get_cfg_metainfo(package_path, cfg_path)

    Config._get_cfg_path = staticmethod(cfg_path)
    hub._get_package_and_cfg_path = package_and_cfg_path
    hub._get_cfg_metainfo = cfg_metainfo


def _config_file(reference: str) -> str:
    """The path of the config that `reference`, 'ssd_plugin::NAME', names.

    Raises:
        FileNotFoundError: there is no such config; the message lists those there are.
    """
    name = reference[len(_REFERENCE) :]
    package = Path(__file__).resolve().parent.parent
    # An installed package carries its configs in .mim; a source tree has them beside the package.
    root = package / '.mim' if (package / '.mim').exists() else package.parent
    file = root / 'configs' / name
    if not file.is_file():
        known = ', '.join(sorted(path.name for path in (root / 'configs').glob('*.py')))
        raise FileNotFoundError(f'ssd_plugin has no config {name!r}; it has: {known}')
    return str(file)
