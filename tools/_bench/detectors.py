"""Who detects: a model of the user's in its file, MMDetection's inferencer, torchvision's SSD."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torchvision
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn
from torchvision.io import ImageReadMode, read_image

from ssd_plugin.datasets.config import input_size
from ssd_plugin.export.exported import is_exported
from ssd_plugin.export.onnx_runtime import CPU_ONLY, OnnxDetector
from ssd_plugin.inference.inferencer import StreamInferencer, build_inferencer
from ssd_plugin.inference.inputs import Image, read_inputs
from ssd_plugin.inference.stream import detect_stream
from ssd_plugin.inference.threads import read_ahead, share_threads, work_ahead
from ssd_plugin.inference.writers import CocoWriter, DrawingWriter, Writer

SCORE_THR = 0.3  # of what is drawn and written, as of tools/detect.py


@dataclass
class Job:
    """What all detect on, in turns."""

    paths: list[str]
    images: list[Image]  # those of the files, or as many frames, decoded
    batch: int
    folder: Path  # for results

    @property
    def batches(self) -> Iterator[list[np.ndarray]]:
        """The decoded images (h, w, 3) uint8 BGR."""
        pixels = iter([image.pixels for image in self.images])
        while batch := [*islice(pixels, self.batch)]:
            yield batch

    @property
    def has_video(self) -> bool:
        """Whether images are frames."""
        return any(image.frame is not None for image in self.images)


class Contestant(Protocol):
    """Detects on the images of a job."""

    torch_threads: int  # that PyTorch has while it does

    def from_files(self, job: Job, draws: bool) -> object:
        """Decode, detect and write, with or without drawing."""

    def from_memory(self, job: Job) -> object:
        """Detect on decoded images."""


def in_its_threads(who: Contestant, work: Callable, *args: object) -> object:
    """Have a contestant work, with the number of threads that it has."""
    torch.set_num_threads(who.torch_threads)
    return work(*args)


class Plugin:
    """A model in its file, as ``tools/detect.py`` runs it.

    Args:
        inferencer: Of the file.
        workers: Threads that detect, each on a batch.
    """

    torch_threads = 1

    def __init__(self, inferencer: StreamInferencer, workers: int = 1) -> None:
        self.inferencer, self.workers = inferencer, workers

    @classmethod
    def build(cls, cfg: Config, model: str, device: str) -> Plugin:
        """A checkpoint, or an exported file in ONNX Runtime."""
        workers = share_threads() if device == 'cpu' else 1
        return cls(build_inferencer(cfg, model, device), workers)

    @classmethod
    def with_openvino(cls, cfg: Config, model: str, threads: int) -> Plugin:
        """An exported file in OpenVINO, on the CPU."""
        inferencer = build_inferencer(cfg, model, 'cpu')
        inferencer.model = OpenVinoDetector(model, cfg.model.get('test_cfg'), threads)
        return cls(inferencer)

    def from_files(self, job: Job, draws: bool) -> None:
        """Decode, detect and write, with or without drawing."""
        writers: list[Writer] = [CocoWriter(job.folder, self.inferencer.classes)]
        if draws:
            writers.append(DrawingWriter(job.folder / 'vis', self.inferencer.classes))
        shrink = None if draws else self.inferencer.shrink
        items = islice(read_inputs(job.paths, shrink), len(job.images))
        try:
            with closing(read_ahead(items, self.workers * job.batch)) as images:
                options = job.batch, SCORE_THR, self.workers
                for _ in detect_stream(self.inferencer, images, writers, *options):
                    pass
        finally:
            for writer in writers:
                writer.close()

    def from_memory(self, job: Job) -> list[InstanceData]:
        """Detect on decoded images."""
        batches = work_ahead(self.inferencer.detect, job.batches, self.workers)
        return [found for batch in batches for found in batch]


class MMDetection:
    """MMDetection's ``DetInferencer`` with the same config and checkpoint; drawing by default."""

    torch_threads = 1

    def __init__(self, cfg: Config, checkpoint: str, device: str) -> None:
        cfg = cfg.copy()
        cfg.visualizer = dict(type='DetLocalVisualizer')
        self.inferencer = DetInferencer(cfg, checkpoint, device, show_progress=False)

    def from_files(self, job: Job, draws: bool) -> None:
        """Detect and write the detections, with or without drawing."""
        out = dict(out_dir=str(job.folder / 'mmdet'), no_save_pred=False, no_save_vis=not draws)
        self.inferencer(job.paths, job.batch, pred_score_thr=SCORE_THR, **out)

    def from_memory(self, job: Job) -> None:
        """Detect on decoded images."""
        self.inferencer([image.pixels for image in job.images], job.batch)


class Torchvision:
    """torchvision's model in a loop as its documentation has it, without drawing.

    Its weights are random, but for those of the scores: all are sure of background, so that its
    post-processing has nothing to do, which favours it.
    """

    torch_threads = 1

    def __init__(self, name: str, num_classes: int, device: str) -> None:
        build = getattr(torchvision.models.detection, name)
        weights = dict(weights=None, weights_backbone=None)
        model = build(**weights, num_classes=num_classes + 1)
        model = model.eval().requires_grad_(False)
        for level in model.head.classification_head.module_list:
            last = [m for m in level.modules() if isinstance(m, nn.Conv2d)][-1]
            nn.init.zeros_(last.weight)
            bias = torch.zeros(last.out_channels)
            bias.view(-1, num_classes + 1)[:, 0] = 20
            last.bias = nn.Parameter(bias, requires_grad=False)
        self.model, self.device = model.to(device), device

    def from_files(self, job: Job, draws: bool) -> None:
        """Decode and detect."""
        for start in range(0, len(job.paths), job.batch):
            paths = job.paths[start : start + job.batch]
            self.detect([read_image(path, ImageReadMode.RGB) for path in paths])

    def from_memory(self, job: Job) -> None:
        """Detect on decoded images."""
        for batch in job.batches:
            rgb = [np.ascontiguousarray(image[..., ::-1]) for image in batch]
            self.detect([torch.from_numpy(image).permute(2, 0, 1) for image in rgb])

    @torch.inference_mode()
    def detect(self, images: Sequence[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Detections of images (3, h, w) uint8 RGB, on the host."""
        found = self.model([image.to(self.device) / 255 for image in images])
        return [{key: value.cpu() for key, value in one.items()} for one in found]


def make_detectors(
    cfg: Config, models: Sequence[str], device: str, threads: int
) -> dict[str, Contestant]:
    """The contestants by name: each model in each runtime, then the peers that have a model.

    Each has ``threads``, of which an exported file leaves PyTorch one.

    Raises:
        SSDPluginError: A file does not go together with the config or the device.
        OSError: A file can't be read.
    """
    detectors: dict[str, Contestant] = {}

    def add(name: str, make: Callable[[], Contestant]) -> None:
        torch.set_num_threads(threads)
        detectors[name] = make()
        detectors[name].torch_threads = torch.get_num_threads()

    names = [Path(model).name for model in models]
    for model, name in zip(models, names):
        name = model if names.count(name) > 1 else name
        add(name, partial(Plugin.build, cfg, model, device))
        is_onnx = model.lower().endswith('.onnx')
        if is_onnx and device == 'cpu' and importlib.util.find_spec('openvino'):
            add(f'{name}, OpenVINO', partial(Plugin.with_openvino, cfg, model, threads))
    checkpoints = [model for model in models if not is_exported(model)]
    if checkpoints:
        add('DetInferencer', partial(MMDetection, cfg, checkpoints[0], device))
    peer = torchvision_peer(cfg)
    if peer:
        add(
            f'torchvision {peer}',
            partial(Torchvision, peer, cfg.model.bbox_head.num_classes, device),
        )
    return detectors


def torchvision_peer(cfg: Config) -> str | None:
    """The name of torchvision's model that is most like a config's, if there is one."""
    head, size = cfg.model.get('bbox_head') or {}, input_size(cfg)
    if cfg.model.backbone.type == 'SSDVGG' and size == (300, 300):
        return 'ssd300_vgg16'
    if head.get('use_depthwise') and size == (320, 320):
        return 'ssdlite320_mobilenet_v3_large'
    return None


@cache
def openvino_core() -> Any:
    """OpenVINO, once for the process.

    Each `Core` puts a stack for signals of its own in place of the last one (2026.4). If the first
    of two ends before the other, that is gone in the end, and the next signal ends the program.
    """
    import openvino

    return openvino.Core()


class OpenVinoDetector(OnnxDetector):
    """An exported file that OpenVINO runs, in float32: by default it computes in bfloat16."""

    def __init__(self, path: str, test_cfg: dict | None, threads: int) -> None:
        super().__init__(path, CPU_ONLY, test_cfg)
        settings = dict(
            INFERENCE_PRECISION_HINT='f32',
            INFERENCE_NUM_THREADS=threads,
            PERFORMANCE_HINT='LATENCY',
        )
        self.compiled = openvino_core().compile_model(str(self.path), 'CPU', settings)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of the graph for images (B, 3, h, w) of its size and type."""
        results = self.compiled([images])
        return [results[i] for i in range(len(self.compiled.outputs))]
