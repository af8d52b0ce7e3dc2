"""An exported detector in place of the PyTorch model, run by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ssd_plugin.checkpoints.classes import compare_classes, same_classes
from ssd_plugin.errors import InputError, MissingPackageError
from ssd_plugin.models.postprocess import detect

if TYPE_CHECKING:  # detecting with a checkpoint does without it
    from onnxruntime import InferenceSession

EXPORTED = '.onnx'  # the suffix of a file that takes the place of a checkpoint
PROVIDERS = ('CUDAExecutionProvider', 'CPUExecutionProvider')  # the first that is available
CPU_ONLY = PROVIDERS[-1:]


def is_exported(path: str | Path) -> bool:
    """Whether a file that a command takes for a detector is an exported one, by its suffix."""
    return str(path).lower().endswith(EXPORTED)


@MODELS.register_module()
class OnnxDetector(nn.Module):
    """Runs a file of ``tools/export_onnx.py`` and gives the detections of its detector.

    It is a module, without parameters, since that is what MMDetection's inferencer and MMEngine's
    runner expect. A file that was exported with ``--no-nms`` is followed by the detector's own
    post-processing.

    Attributes:
        dataset_meta: ``classes``, the names of the classes by label.
        input_size: (w, h) of the graph's input in pixels.
        input_dtype: uint8 or float32, the type of the graph's input.
        score_thr: Thresholds by class that the file carries, or None.

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
        super().__init__()
        self.path, self.test_cfg = path, test_cfg or {}
        self.session = open_session(path, providers)
        meta = read_metadata(self.session, path)
        outputs = [output.name for output in self.session.get_outputs()]
        if 'deltas' in outputs:
            raise InputError(f'{path} was exported with --raw: export it without, to detect')
        self.has_nms = 'labels' in outputs
        if not self.has_nms and test_cfg is None:
            raise InputError(f'{path} was exported with --no-nms: export it without, to detect')
        self.dataset_meta: dict[str, Any] = dict(classes=meta.classes)
        self.config, self.input_size, self.score_thr = meta.config, meta.input_size, meta.score_thr
        self.labels = torch.arange(len(meta.classes))  # of the file's classes
        (images,) = self.session.get_inputs()
        self.input_dtype = np.uint8 if images.type == 'tensor(uint8)' else np.float32

    def number_labels_by(self, classes: Sequence[str]) -> None:
        """Have labels count these names, such as a data set's, in place of the file's own.

        Raises:
            InputError: They are not the file's classes, in any order.
        """
        known = self.dataset_meta['classes']
        order = same_classes(known, classes)
        if order is None:
            raise InputError(
                f'{compare_classes(str(self.path), known, classes)}: use the config that it was '
                f'exported with, {self.config}'
            )
        self.labels = torch.tensor(order)
        self.dataset_meta = dict(classes=tuple(classes))

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
        outputs = [*map(torch.from_numpy, self.run(batch.astype(self.input_dtype)))]
        if self.has_nms:
            results = [
                InstanceData(bboxes=boxes, scores=scores, labels=labels)[labels >= 0]
                for boxes, scores, labels in zip(*outputs)
            ]
        else:
            boxes, scores = outputs  # (B, P, 4), (B, P, C)
            results = detect(scores, boxes, boxes[0], _Decoded(), self.test_cfg)
        for found in results:
            found.labels = self.labels[found.labels]
        return results

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of the graph for images (B, 3, h, w) of its size and type."""
        return self.session.run(None, dict(images=images))


class _Decoded:
    """A box coder for boxes that are decoded already."""

    def decode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        return boxes


class Metadata(NamedTuple):
    """What an exported file says of itself."""

    classes: tuple[str, ...]  # names, by label
    input_size: tuple[int, int]  # (w, h) in pixels
    config: str  # the file name of the config that it was exported with
    score_thr: dict[str, float] | None  # of each class: the least score of a detection to keep


def read_metadata(session: InferenceSession, path: str | Path) -> Metadata:
    """The metadata of the file that a session is of.

    Raises:
        InputError: If the file is none of ``tools/export_onnx.py``.
    """
    meta = session.get_modelmeta().custom_metadata_map
    if 'ssd_plugin' not in meta:
        raise InputError(f'{path} was not written by tools/export_onnx.py')
    width, height = json.loads(meta['input_size'])
    classes, score_thr = json.loads(meta['classes']), json.loads(meta.get('score_thr', 'null'))
    return Metadata(tuple(classes), (width, height), meta['config'], score_thr)


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
        reason = str(error).splitlines()[0]
        raise InputError(f'{path} is no ONNX file that ONNX Runtime can run: {reason}') from error
