"""An exported detector in place of the PyTorch model, whatever runtime it is for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ssd_plugin.checkpoints.classes import compare_classes, same_classes
from ssd_plugin.datasets.config import input_size, resize_of
from ssd_plugin.errors import InputError, SSDPluginWarning
from ssd_plugin.export.metadata import Metadata
from ssd_plugin.models.postprocess import detect


class ExportedDetector(nn.Module):
    """Runs an exported file and gives the detections of its detector.

    It is a module, without parameters, since that is what MMDetection's inferencer and MMEngine's
    runner expect. A file that was exported without NMS is followed by the detector's own
    post-processing.

    Attributes:
        dataset_meta: ``classes``, the names of the classes by label.
        input_size: (w, h) of the graph's input in pixels.
        input_dtype: uint8 or float32, the type of the graph's input.
        score_thr: Thresholds by class that the file carries, or None.
        test_cfg_inside: What the NMS in the graph does, if it has one and the file tells.
        cpu_only: Why no other device computes, if that is so.

    Args:
        path: The file.
        meta: What it says of itself.
        outputs: The names of the graph's outputs.
        input_dtype: As the attribute.
        test_cfg: The config's ``model.test_cfg``, for a file without NMS.

    Raises:
        InputError: The file's outputs are no detections, and there is no ``test_cfg`` or no way to
            make them from these outputs.
    """

    cpu_only: str | None = None

    def __init__(
        self,
        path: str | Path,
        meta: Metadata,
        outputs: Sequence[str],
        input_dtype: type[np.generic],
        test_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        self.path, self.test_cfg = path, test_cfg or {}
        if 'deltas' in outputs:
            raise InputError(f'{path} was exported with --raw: export it without, to detect')
        self.has_nms = 'labels' in outputs
        if not self.has_nms and test_cfg is None:
            raise InputError(f'{path} has no NMS, and there is no test_cfg that says which to use')
        self.dataset_meta: dict[str, Any] = dict(classes=meta.classes)
        self.config, self.input_size, self.score_thr = meta.config, meta.input_size, meta.score_thr
        self.test_cfg_inside = meta.test_cfg if self.has_nms else None
        self.labels = torch.arange(len(meta.classes))  # of the file's classes
        self.input_dtype = input_dtype

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of the graph for images (B, 3, h, w) of its size and type."""
        raise NotImplementedError

    def require_images_of(self, cfg: Config) -> None:
        """Require that a config's test pipeline makes images of the graph's size.

        Warns if the config asks for other post-processing than there is in the graph.

        Raises:
            InputError: It makes others.
        """
        size, resize = input_size(cfg), resize_of(cfg)
        if size != self.input_size or resize.get('keep_ratio', False):
            wanted = f'of up to {_pixels(size)}' if resize.get('keep_ratio') else _pixels(size)
            raise InputError(
                f'{self.path}, exported with {self.config}, takes images of '
                f"{_pixels(self.input_size)}, and the config's are {wanted}: use the config and "
                'the --size that it was exported with'
            )
        wanted = json.loads(json.dumps(cfg.model.get('test_cfg') or {}))
        inside = wanted if self.test_cfg_inside is None else self.test_cfg_inside
        differing = [key for key in {**inside, **wanted} if inside.get(key) != wanted.get(key)]
        if differing:
            found = ', '.join(f'{key}={inside.get(key)}' for key in differing)
            warnings.warn(
                f"{self.path} has NMS inside, with {found}: the config's model.test_cfg has no "
                'effect; to change it, export with it, or with --no-nms',
                SSDPluginWarning,
                stacklevel=2,
            )

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


class _Decoded:
    """A box coder for boxes that are decoded already."""

    def decode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        return boxes


def _pixels(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]} pixels'
