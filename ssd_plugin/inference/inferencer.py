"""MMDetection's inferencer, for a stream of decoded images and for exported detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn

from ssd_plugin.checkpoints.load import load_detector
from ssd_plugin.datasets.config import plain_test_set


class StreamInferencer(DetInferencer):
    """A ``DetInferencer`` that keeps no results, and refuses weights that do not fit.

    Called as MMDetection's is, it does the same. It differs where that goes on after a warning:

    1. A checkpoint that lacks parameters of the model, or has them in other shapes, is an error.
    2. Class names are those of the checkpoint, or else those of the config's test data set, in
       place of COCO's for a checkpoint that has none.
    3. It draws with a visualizer that logs nowhere, whatever backends the config names.

    Args:
        cfg: Of the detector.
        checkpoint: Path or address of the weights.
        device: Where to compute; by default where MMEngine would.

    Raises:
        ValueError: The config, the checkpoint and the device don't go together.
        OSError: The checkpoint can't be read.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str | None = None) -> None:
        super().__init__(_for_inference(cfg), checkpoint, device, show_progress=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return tuple(self.model.dataset_meta['classes'])

    def detect(self, images: Sequence[np.ndarray]) -> list[InstanceData]:
        """Detect on a batch.

        Args:
            images: B images (h, w, 3) uint8 BGR, of any sizes.

        Returns:
            Of each image ``bboxes`` (n, 4) xyxy in its pixels, ``scores`` (n,) and ``labels``
            (n,), as NumPy arrays.
        """
        ((_, data),) = self.preprocess(list(images), batch_size=len(images))
        return [sample.pred_instances.cpu().numpy() for sample in self.forward(data)]

    def _init_model(self, cfg: ConfigDict, weights: str, device: str) -> nn.Module:
        model, classes = load_detector(cfg, weights)
        model.cfg, model.dataset_meta = cfg, dict(classes=classes)
        return model.to(device)

    def _init_collate(self, cfg: ConfigDict) -> Callable:
        # MMEngine's inferencer looks one up by name, where its runner takes a dict with a type.
        # Images to detect on have no annotations that another function would be for.
        return pseudo_collate

    def _init_visualizer(self, cfg: ConfigDict) -> DetLocalVisualizer:
        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = self.model.dataset_meta
        return visualizer


class ExportedInferencer(StreamInferencer):
    """The same for a file of ``tools/export_onnx.py``; the config says how images are read.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """

    @property
    def providers(self) -> list[str]:
        """Where ONNX Runtime computes."""
        return self.model.detector.session.get_providers()

    def _init_model(self, cfg: ConfigDict, weights: str, device: str) -> nn.Module:
        from ssd_plugin.export.runtime import PROVIDERS, OnnxDetector

        on_cpu = torch.device(device).type == 'cpu'
        return _Exported(OnnxDetector(weights, PROVIDERS[-1:] if on_cpu else PROVIDERS))


class _Exported(nn.Module):
    """An exported detector as the module that MMDetection's inferencer expects."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector, self.dataset_meta = detector, detector.dataset_meta

    def test_step(self, data: dict) -> list[DetDataSample]:
        return self.detector.test_step(data)


def build_inferencer(cfg: Config, checkpoint: str, device: str | None = None) -> StreamInferencer:
    """The inferencer for a checkpoint, or for an exported detector by its suffix ``.onnx``.

    Raises:
        ValueError, OSError, ImportError: As the classes do, and where there is no such device; the
            message is one line.
    """
    if device:
        _require_device(device)
    if not checkpoint.lower().endswith('.onnx'):
        return StreamInferencer(cfg, checkpoint, device)
    inferencer = ExportedInferencer(cfg, checkpoint, device)
    if device and torch.device(device).type != 'cpu' and len(inferencer.providers) == 1:
        raise ValueError(
            f'device {device}: this ONNX Runtime computes on the CPU alone; take --device cpu, or '
            'install onnxruntime-gpu in its place'
        )
    return inferencer


def _require_device(device: str) -> None:
    """Make sure that PyTorch can compute there.

    Raises:
        ValueError: There is no device of this name, or none here.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device {device}: {str(error).splitlines()[0]}') from error


def _for_inference(cfg: Config) -> Config:
    """A copy whose test data set is a plain one, where ``DetInferencer`` looks for the pipeline."""
    dataset = plain_test_set(cfg)
    loader = cfg.get('test_dataloader') or cfg.val_dataloader
    plain = Config(cfg.to_dict(), filename=cfg.filename)
    plain.test_dataloader = dict(loader.to_dict(), dataset=dataset.to_dict())
    return plain
