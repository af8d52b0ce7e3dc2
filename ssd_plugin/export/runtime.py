"""An exported detector in place of the PyTorch model, run by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ssd_plugin.errors import InputError, MissingPackageError

if TYPE_CHECKING:  # detecting with a checkpoint does without it
    from onnxruntime import InferenceSession

OUTPUTS = ['boxes', 'scores', 'labels']
PROVIDERS = ('CUDAExecutionProvider', 'CPUExecutionProvider')  # the first that is available
CPU_ONLY = PROVIDERS[-1:]


class OnnxDetector(nn.Module):
    """Runs a file of ``tools/export_onnx.py`` and gives the detections of its detector.

    It is a module, without parameters, since that is what MMDetection's inferencer expects.

    Attributes:
        dataset_meta: ``classes``, the names of the classes.
        input_size: (w, h) of the graph's input in pixels.
        input_dtype: uint8 or float32, the type of the graph's input.

    Args:
        path: The file.
        providers: ONNX Runtime's, by preference; by default CUDA if available, or else the CPU.

    Raises:
        MissingPackageError: If ONNX Runtime is not installed.
        InputError: If it is no file of ``tools/export_onnx.py``, or one without NMS.
    """

    def __init__(self, path: str | Path, providers: Sequence[str] = PROVIDERS) -> None:
        super().__init__()
        self.session = open_session(path, providers)
        names = [output.name for output in self.session.get_outputs()]
        meta = self.session.get_modelmeta().custom_metadata_map
        if 'ssd_plugin' not in meta:
            raise InputError(f'{path} was not written by tools/export_onnx.py')
        if names != OUTPUTS:
            raise InputError(f'{path} was exported with --no-nms: export it without, to detect')
        self.dataset_meta: dict[str, Any] = dict(classes=tuple(json.loads(meta['classes'])))
        self.input_size: tuple[int, int] = tuple(json.loads(meta['input_size']))
        (images,) = self.session.get_inputs()
        self.input_dtype = np.uint8 if images.type == 'tensor(uint8)' else np.float32

    def test_step(self, data: dict) -> list[DetDataSample]:
        """Detect, as ``model.test_step`` of MMDetection does.

        Args:
            data: ``inputs``, B images (3, h, w) of the graph's size, uint8 or float, and
                ``data_samples``, as many with ``scale_factor`` (w, h).

        Returns:
            The samples with ``pred_instances``: ``bboxes`` (n, 4) xyxy in pixels of the original
            image, ``scores`` (n,) and ``labels`` (n,), the highest score first.

        Raises:
            InputError: If an image does not have the graph's size.
        """
        samples = data['data_samples']
        for sample, found in zip(samples, self.detect(data['inputs']), strict=True):
            found.bboxes /= found.bboxes.new_tensor(tuple(sample.scale_factor) * 2)
            sample.pred_instances = found
        return samples

    def detect(self, images: Sequence[Tensor]) -> list[InstanceData]:
        """Detections of B images (3, h, w), boxes in pixels of the graph's input."""
        width, height = self.input_size
        for image in images:
            if tuple(image.shape) != (3, height, width):
                raise InputError(
                    f'the exported detector takes images of {width} x {height} pixels with 3 '
                    f'channels, this one is {tuple(image.shape)}'
                )
        batch = torch.stack(tuple(images)).cpu().numpy()
        if self.input_dtype == np.uint8 and batch.dtype != np.uint8:
            batch = batch.round().clip(0, 255)
        outputs = self.session.run(OUTPUTS, dict(images=batch.astype(self.input_dtype)))
        return [
            InstanceData(bboxes=boxes, scores=scores, labels=labels)[labels >= 0]
            for boxes, scores, labels in zip(*map(torch.from_numpy, outputs))
        ]


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
    available = [name for name in providers if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=available)
    except Exception as error:  # its errors have no common class but this
        reason = str(error).splitlines()[0]
        raise InputError(f'{path} is no ONNX file that ONNX Runtime can run: {reason}') from error
