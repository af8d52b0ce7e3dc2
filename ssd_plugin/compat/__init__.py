"""What MMDetection 3.x needs on current PyTorch, NumPy and Python.

`apply()` runs when `ssd_plugin` is imported, before anything imports `mmcv.ops` or `mmdet`. Each
entry says what is broken, in which versions, what we do about it and when to delete it, and does
nothing where it is not needed.

Not an entry, but a requirement in setup.py: MMEngine (all of 0.10) imports `pkg_resources` and
`distutils`; `setuptools<82` brings both, on every Python.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
from importlib.abc import Loader

from ssd_plugin.compat import torch_load
from ssd_plugin.compat.config_names import resolve_config_names
from ssd_plugin.compat.mmcv_ops import MMCV_LITE, install_mmcv_ops
from ssd_plugin.errors import MissingPackageError


@functools.cache
def apply() -> None:
    """Apply every entry, in this order; a second call does nothing.

    Raises:
        MissingPackageError: mmcv is not installed or too new, or OpenCV cannot be loaded. One line
            says what to do.
    """
    explain_opencv_without_display()  # first: importing MMEngine imports OpenCV
    install_mmcv_ops()
    restore_find_loader()
    explain_new_mmcv()
    torch_load.allow_mmengine_types()
    torch_load.restrict_older_pytorch()
    torch_load.restrict_downloads()
    torch_load.forbid_pickle_fallback()
    torch_load.explain_weights_only_errors()
    write_test_metrics_once()
    resolve_config_names()


def explain_opencv_without_display() -> None:
    """Say what to do when OpenCV lacks the libraries of a screen.

    Broken: MMEngine and mmcv require `opencv-python`, whose Linux wheels need libGL; a server or
    a container often has none, and the error names only the library.
    Versions: all. Until: MMEngine accepts `opencv-python-headless`.

    Raises:
        MissingPackageError: With the remedy, where `import cv2` fails.
    """
    try:
        importlib.import_module('cv2')
    except ImportError as error:
        raise MissingPackageError(
            f'OpenCV cannot be loaded ({error}); on a machine without a screen: '
            'pip uninstall -y opencv-python; pip install opencv-python-headless'
        ) from error


def explain_new_mmcv() -> None:
    """Say what to install when MMDetection refuses the version of mmcv.

    Broken: `pip install mmcv-lite` without this package's limits gives 2.2.0; MMDetection takes
    only older ones, and ends with an AssertionError.
    Versions: MMDetection 3.0 to 3.3. Until: MMDetection takes mmcv 2.2.

    Raises:
        MissingPackageError: With MMDetection's reason and the remedy.
    """
    try:
        importlib.import_module('mmdet')
    except AssertionError as error:
        raise MissingPackageError(f'{error} For mmcv-lite: {MMCV_LITE}') from error


def restore_find_loader() -> None:
    """Give `pkgutil.find_loader` back to Python 3.14.

    Broken: MMEngine calls `pkgutil.find_loader('mmcv._ext')`; Python 3.14 removed the function.
    Versions: Python >= 3.14 with MMEngine 0.10. Until: MMEngine uses importlib.util.find_spec.
    """
    if hasattr(pkgutil, 'find_loader'):
        return

    def find_loader(fullname: str) -> Loader | None:
        spec = importlib.util.find_spec(fullname)
        return spec.loader if spec else None

    pkgutil.find_loader = find_loader


def write_test_metrics_once() -> None:
    """Have only the first of several processes write the metrics of a test.

    Broken: all of them write to the same file at the same time, and now and then the end of one's
    text stays behind another's, which is no JSON.
    Versions: MMEngine, all of 0.10. Until: MMEngine lets one process write.
    """
    # Imported here: MMEngine can only be imported once OpenCV is known to load.
    from mmengine.dist import master_only
    from mmengine.hooks import LoggerHook

    LoggerHook.after_test_epoch = master_only(LoggerHook.after_test_epoch)
