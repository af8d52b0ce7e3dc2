"""MMDetection's inferencer for a stream of decoded images, and for exported detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.models.detectors.base import BaseDetector
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.structures import InstanceData

from ssd_plugin.checkpoints.load import load_detector
from ssd_plugin.datasets.config import plain_test_set
from ssd_plugin.datasets.large_images import LargeJpeg
from ssd_plugin.datasets.transforms.deferred_decoding import (
    LoadOrDefer,
    ResizeLargeByArea,
    defer_decoding,
)
from ssd_plugin.engine.device import require_device
from ssd_plugin.errors import InputError
from ssd_plugin.export.exported import is_exported, open_exported
from ssd_plugin.export.runtime import ExportedDetector
from ssd_plugin.inference.folding import fold_batch_norm
from ssd_plugin.inference.packing import pack_convolutions
from ssd_plugin.inference.precision import half_precision


def build_inferencer(
    cfg: Config, checkpoint: str, device: str | None = None, half: bool = False
) -> StreamInferencer:
    """The inferencer for a checkpoint, or for an exported detector if its suffix says so.

    Args:
        cfg: Config of the detector.
        checkpoint: Path or URL of the weights, or the path of an exported detector.
        device: Where to compute; by default where MMEngine would.
        half: Compute in mixed precision, with bfloat16 or float16 as the hardware has it.

    Raises:
        SSDPluginError: The config, the checkpoint and the device don't go together, there is no
            such device, it has no half precision, or the file's runtime is not installed.
        OSError: The checkpoint can't be read.
    """
    require_device(device)
    if half and is_exported(checkpoint):
        raise InputError(f'{checkpoint} has the precision that it was exported with: no --half')
    inferencer = StreamInferencer(cfg, checkpoint, device)
    model = inferencer.model
    if half:
        inferencer.dtype = half_precision(inferencer.device)
    elif inferencer.device.type == 'cpu':
        pack_convolutions(model)
    cpu_only = isinstance(model, ExportedDetector) and model.cpu_only
    if cpu_only and device and torch.device(device).type != 'cpu':
        raise InputError(f'device {device}: {cpu_only}')
    return inferencer


class StreamInferencer(DetInferencer):
    """A ``DetInferencer`` that keeps no results, and refuses weights that do not fit.

    Called as MMDetection's is, it does the same. It differs in these respects:

    1. A checkpoint that lacks parameters of the model, or has them in other shapes, is an error.
       MMDetection's goes on after a warning.
    2. If the checkpoint has no class names, those of the config's test data set are taken.
       MMDetection's takes COCO's.
    3. An exported file, ``.onnx`` or ``.tflite``, may take the place of the checkpoint; the config
       then says how images are read.
    4. Batch normalisation is folded into the convolutions, which have channels last in memory: on a
       CPU, SSDLite's take a fifth less time, VGG-16's as well.
    5. Its visualizer logs nowhere, whatever backends the config names.

    Its arguments and what it raises are those of :func:`build_inferencer`.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str | None = None) -> None:
        super().__init__(cfg, checkpoint, device, show_progress=False)
        self.device = torch.device(device or get_device())
        self.dtype: torch.dtype | None = None  # of mixed precision

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return tuple(self.model.dataset_meta['classes'])

    @property
    def shrink(self) -> Callable[[LargeJpeg], np.ndarray] | None:
        """Makes of a large JPEG an image in the size of the network input, to detect on.

        None if the pipeline needs all pixels.
        """
        for step in self.pipeline.transforms:
            if isinstance(step, ResizeLargeByArea) and step.scale:
                return lambda image: step(dict(img=image))['img']
        return None

    def detect(self, images: Sequence[np.ndarray]) -> list[InstanceData]:
        """Detect on images (h, w, 3) uint8 BGR of any sizes, as one batch.

        For each there are ``bboxes`` (n, 4) xyxy in its pixels, ``scores`` (n,) and ``labels``
        (n,), as NumPy arrays.
        """
        ((_, data),) = self.preprocess(list(images), batch_size=len(images))
        return [sample.pred_instances.cpu().numpy() for sample in self.forward(data)]

    def forward(self, inputs: dict | tuple, **kwargs: Any) -> Any:
        """Detect on a collated batch."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return super().forward(inputs, **kwargs)

    def _init_model(
        self, cfg: Config, weights: str, device: str
    ) -> BaseDetector | ExportedDetector:
        if is_exported(weights):
            on_cpu = torch.device(device).type == 'cpu'
            detector = open_exported(weights, cfg.model.get('test_cfg'), on_cpu)
            detector.require_images_of(cfg)
            # What PyTorch still computes is too little for several threads, and waiting ones would
            # take the time of the runtime's.
            torch.set_num_threads(1)
            return detector
        model, classes = load_detector(cfg, weights)
        fold_batch_norm(model)
        model.cfg, model.dataset_meta = cfg, dict(classes=classes)
        return model.to(device, memory_format=torch.channels_last)

    def _init_pipeline(self, cfg: Config) -> Compose:
        # MMDetection's looks for it in a test data set without wrappers. This is a copy of the
        # caller's config.
        loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
        dataset = plain_test_set(cfg)
        dataset = dict(dataset, pipeline=defer_decoding(dataset.pipeline))
        cfg.test_dataloader = dict(loader, dataset=dataset)
        return super()._init_pipeline(cfg)

    def _get_transform_idx(self, pipeline_cfg: Sequence, name: tuple) -> int:
        # What loads the images, which is replaced by what also takes arrays.
        return super()._get_transform_idx(pipeline_cfg, (*name, LoadOrDefer))

    def _init_collate(self, cfg: Config) -> Callable:
        # MMEngine's inferencer takes a name where its runner takes a dict with a type. The config's
        # function is not needed: it collates annotations, which images to detect on lack.
        return pseudo_collate

    def _init_visualizer(self, cfg: Config) -> DetLocalVisualizer:
        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = self.model.dataset_meta
        return visualizer
