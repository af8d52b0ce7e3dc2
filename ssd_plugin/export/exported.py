"""Exported files by their names: which they are, and what runs them."""

from __future__ import annotations

from pathlib import Path

from mmdet.registry import MODELS

from ssd_plugin.export.litert import LiteRTDetector
from ssd_plugin.export.onnx_runtime import CPU_ONLY, PROVIDERS, OnnxDetector
from ssd_plugin.export.runtime import ExportedDetector

EXPORTED = '.onnx', '.tflite'  # suffixes of files that take the place of a checkpoint


def is_exported(path: str | Path) -> bool:
    """Whether a file that a command takes for a detector is an exported one, by its suffix."""
    return str(path).lower().endswith(EXPORTED)


@MODELS.register_module()
def open_exported(
    path: str | Path, test_cfg: dict | None = None, on_cpu: bool = False
) -> ExportedDetector:
    """A file of ``tools/export_onnx.py`` or ``tools/export_tflite.py`` in its runtime.

    Args:
        path: The file.
        test_cfg: The config's ``model.test_cfg``, for a file without NMS.
        on_cpu: Leave a GPU alone.

    Raises:
        MissingPackageError: If the runtime is not installed.
        InputError: If it is no such file, or can't be used to detect.
    """
    if str(path).lower().endswith('.tflite'):
        return LiteRTDetector(path, test_cfg)
    return OnnxDetector(path, CPU_ONLY if on_cpu else PROVIDERS, test_cfg)
