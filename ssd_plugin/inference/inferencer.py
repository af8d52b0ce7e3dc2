"""MMDetection's inferencer for a stream of decoded images, and for exported detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn

from ssd_plugin.checkpoints.load import load_detector
from ssd_plugin.datasets.config import plain_test_set
from ssd_plugin.errors import InputError
from ssd_plugin.export.runtime import CPU_ONLY, PROVIDERS, OnnxDetector


def build_inferencer(cfg: Config, checkpoint: str, device: str | None = None) -> StreamInferencer:
    """The inferencer for a checkpoint, or for an exported detector if its suffix is ``.onnx``.

    Args:
        cfg: Config of the detector.
        checkpoint: Path or URL of the weights, or the path of an exported detector.
        device: Where to compute; by default where MMEngine would.

    Raises:
        SSDPluginError: The config, the checkpoint and the device don't go together, there is no
            such device, or ONNX Runtime is not installed.
        OSError: The checkpoint can't be read.
    """
    if device:
        _require_device(device)
    if not checkpoint.lower().endswith('.onnx'):
        return StreamInferencer(cfg, checkpoint, device)
    inferencer = ExportedInferencer(cfg, checkpoint, device)
    if device and torch.device(device).type != 'cpu' and len(inferencer.providers) == 1:
        raise InputError(
            f'device {device}: this ONNX Runtime computes on the CPU alone; take --device cpu, or '
            'install onnxruntime-gpu in its place'
        )
    return inferencer


def _require_device(device: str) -> None:
    """Make sure that PyTorch can compute on a device.

    Raises:
        InputError: There is no device of this name, or none here.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'device {device}: {str(error).splitlines()[0]}') from error


class StreamInferencer(DetInferencer):
    """A ``DetInferencer`` that keeps no results, and refuses weights that do not fit.

    Called as MMDetection's is, it does the same. It differs in three respects:

    1. A checkpoint that lacks parameters of the model, or has them in other shapes, is an error.
       MMDetection's goes on after a warning.
    2. If the checkpoint has no class names, those of the config's test data set are taken.
       MMDetection's takes COCO's.
    3. It draws with a visualizer that logs nowhere, whatever backends the config names.

    Args:
        cfg: Config of the detector.
        checkpoint: Path or URL of the weights.
        device: Where to compute; by default where MMEngine would.

    Raises:
        SSDPluginError: The config and the checkpoint don't go together.
        OSError: The checkpoint can't be read.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str | None = None) -> None:
        super().__init__(_for_inference(cfg), checkpoint, device, show_progress=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return tuple(self.model.dataset_meta['classes'])

    def detect(self, images: Sequence[np.ndarray]) -> list[InstanceData]:
        """Detect on a batch of images.

        Args:
            images: B images (h, w, 3) uint8 BGR, of any sizes.

        Returns:
            For each image ``bboxes`` (n, 4) xyxy in its pixels, ``scores`` (n,) and ``labels``
            (n,), as NumPy arrays.
        """
        ((_, data),) = self.preprocess(list(images), batch_size=len(images))
        return [sample.pred_instances.cpu().numpy() for sample in self.forward(data)]

    def _init_model(self, cfg: ConfigDict, weights: str, device: str) -> BaseDetector:
        model, classes = load_detector(cfg, weights)
        model.cfg, model.dataset_meta = cfg, dict(classes=classes)
        return model.to(device)

    def _init_collate(self, cfg: ConfigDict) -> Callable:
        # MMEngine's inferencer takes a name where its runner takes a dict with a type. The config's
        # function is not needed: it collates annotations, which images to detect on lack.
        return pseudo_collate

    def _init_visualizer(self, cfg: ConfigDict) -> DetLocalVisualizer:
        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = self.model.dataset_meta
        return visualizer


class ExportedInferencer(StreamInferencer):
    """The same for a file of ``tools/export_onnx.py``; the config says how images are read.

    Raises:
        SSDPluginError: The file can't be used, or ONNX Runtime is not installed.
    """

    @property
    def providers(self) -> list[str]:
        """Where ONNX Runtime computes."""
        return self.model.detector.session.get_providers()

    def _init_model(self, cfg: ConfigDict, weights: str, device: str) -> BaseDetector:
        on_cpu = torch.device(device).type == 'cpu'
        return _Exported(OnnxDetector(weights, CPU_ONLY if on_cpu else PROVIDERS))


class _Exported(nn.Module):
    """An exported detector as the module that MMDetection's inferencer expects."""

    def __init__(self, detector: OnnxDetector) -> None:
        super().__init__()
        self.detector, self.dataset_meta = detector, detector.dataset_meta

    def test_step(self, data: dict) -> list[DetDataSample]:
        return self.detector.test_step(data)


def _for_inference(cfg: Config) -> Config:
    """A copy whose test data set has no wrappers, as ``DetInferencer`` needs it."""
    dataset = plain_test_set(cfg)
    loader = cfg.get('test_dataloader') or cfg.val_dataloader
    plain = Config(cfg.to_dict(), filename=cfg.filename)
    plain.test_dataloader = dict(loader.to_dict(), dataset=dataset.to_dict())
    return plain
