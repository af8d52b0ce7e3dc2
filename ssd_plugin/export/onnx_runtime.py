"""A file of ``tools/export_onnx.py`` in ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ssd_plugin.errors import InputError, MissingPackageError, one_line
from ssd_plugin.export.metadata import Metadata
from ssd_plugin.export.runtime import ExportedDetector

if TYPE_CHECKING:  # it is only needed to detect with such a file
    from onnxruntime import InferenceSession

PROVIDERS = ('CUDAExecutionProvider', 'CPUExecutionProvider')  # the first that is available
CPU_ONLY = PROVIDERS[-1:]
IN_JSON = 'classes', 'input_size', 'score_thr', 'test_cfg'  # needed here, besides config


class OnnxDetector(ExportedDetector):
    """Runs a file, and gives the detections of its detector.

    Args:
        path: The file.
        providers: ONNX Runtime's, by preference; by default CUDA if available, or else the CPU.
        test_cfg: The config's ``model.test_cfg``, for a file without NMS.

    Raises:
        MissingPackageError: If ONNX Runtime is not installed.
        InputError: If it is no file of ``tools/export_onnx.py``, or one without NMS and there is no
            ``test_cfg``.
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] = PROVIDERS,
        test_cfg: dict | None = None,
    ) -> None:
        session = open_session(path, providers)
        (images,) = session.get_inputs()
        dtype = np.uint8 if images.type == 'tensor(uint8)' else np.float32
        outputs = [output.name for output in session.get_outputs()]
        super().__init__(path, read_metadata(session, path), outputs, dtype, test_cfg)
        self.session = session
        if session.get_providers() == list(CPU_ONLY):
            self.cpu_only = (
                'this ONNX Runtime computes on the CPU alone; take --device cpu, or install '
                'onnxruntime-gpu in its place'
            )

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of the graph for images (B, 3, h, w) of its size and type."""
        return self.session.run(None, dict(images=images))


def read_metadata(session: InferenceSession, path: str | Path) -> Metadata:
    """The metadata of the file that a session is of.

    Raises:
        InputError: If the file is none of ``tools/export_onnx.py``.
    """
    meta = session.get_modelmeta().custom_metadata_map
    if 'ssd_plugin' not in meta:
        raise InputError(f'{path} was not written by tools/export_onnx.py')
    values = {name: json.loads(meta[name]) for name in IN_JSON if name in meta}
    return Metadata.of({**meta, **values})


def open_session(path: str | Path, providers: Sequence[str] = PROVIDERS) -> InferenceSession:
    """An ``onnxruntime.InferenceSession`` of a file, with those providers that are available.

    Raises:
        MissingPackageError: If ONNX Runtime is not installed.
        InputError: If there is no such file, or ONNX Runtime can't read it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError(
            "ONNX Runtime is not installed: pip install 'ssd-plugin[export]'"
        ) from error
    if not Path(path).is_file():
        raise InputError(f'no file {path}')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of its own optimisations
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait sleep: they would take the time of those that decode, draw and write.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    available = [name for name in providers if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=available)
    except Exception as error:  # its errors have no common class but this
        reason = one_line(error)
        raise InputError(f'{path} is no ONNX file that ONNX Runtime can run: {reason}') from error
