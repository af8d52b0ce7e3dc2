"""A file of ``tools/export_tflite.py`` in LiteRT, which TensorFlow Lite is called now."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING

import numpy as np
import torch

from ssd_plugin.errors import InputError, MissingPackageError, one_line
from ssd_plugin.export.metadata import Metadata
from ssd_plugin.export.runtime import ExportedDetector

if TYPE_CHECKING:  # it is only needed to detect with such a file
    from ai_edge_litert.interpreter import Interpreter

OUTPUTS = ['boxes', 'scores']
METADATA, LABELS = 'metadata.json', 'labels.txt'  # in the zip archive at the end of the file


class LiteRTDetector(ExportedDetector):
    """Runs a file, image by image, and gives the detections of its detector.

    Args:
        path: The file.
        test_cfg: The config's ``model.test_cfg``.

    Raises:
        MissingPackageError: If LiteRT is not installed.
        InputError: If it is no file of ``tools/export_tflite.py``, or there is no ``test_cfg``.
    """

    cpu_only = 'LiteRT computes on the CPU alone; take --device cpu'

    def __init__(self, path: str | Path, test_cfg: dict | None = None) -> None:
        meta = read_metadata(path)
        super().__init__(path, meta, OUTPUTS, np.float32, test_cfg)
        self.threads = torch.get_num_threads()  # of PyTorch, which may have fewer later
        self.of_thread = local()  # an interpreter serves one thread
        self.of_thread.run = open_interpreter(path, self.threads).get_signature_runner()

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Boxes (B, P, 4) and scores (B, P, C) for images (B, 3, h, w) float32 BGR."""
        if not hasattr(self.of_thread, 'run'):
            self.of_thread.run = open_interpreter(self.path, self.threads).get_signature_runner()
        rgb = np.ascontiguousarray(images[:, ::-1].transpose(0, 2, 3, 1))
        results = [self.of_thread.run(images=image[None]) for image in rgb]
        return [np.concatenate([result[name] for result in results]) for name in OUTPUTS]


def read_metadata(path: str | Path) -> Metadata:
    """What a file says of itself.

    Raises:
        InputError: If the file is none of ``tools/export_tflite.py``.
    """
    if not Path(path).is_file():
        raise InputError(f'no file {path}')
    try:
        with zipfile.ZipFile(path) as archive:
            return Metadata.of(json.loads(archive.read(METADATA)))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(f'{path} was not written by tools/export_tflite.py') from error


def open_interpreter(path: str | Path, threads: int) -> Interpreter:
    """LiteRT's interpreter of a file, with so many threads.

    Raises:
        MissingPackageError: If LiteRT is not installed.
        InputError: If LiteRT can't read the file.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingPackageError('LiteRT is not installed: pip install ai-edge-litert') from error
    try:
        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = one_line(error)
        raise InputError(f'{path} is no file that LiteRT can run: {reason}') from error
    return interpreter
