"""Whether an exported file gives the detections of the detector that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ssd_plugin.datasets.config import plain_test_set, resize_of
from ssd_plugin.datasets.samples import read_image
from ssd_plugin.errors import ConfigError
from ssd_plugin.export.exported import open_exported
from ssd_plugin.export.onnx_runtime import CPU_ONLY, open_session
from ssd_plugin.models.head import SSDMultiBoxHead
from ssd_plugin.models.postprocess import detect

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BOX_TOLERANCE, SCORE_TOLERANCE = 1e-2, 1e-4  # in pixels of the input, and of a probability
# Boxes that differ by up to the tolerance change their IoU with others by about as much.
IOU_TOLERANCE = 1e-3
# Two detections that differ by more than this many tolerances are not the same.
SAME = 100


def check_file(path: str | Path, detector: SingleStageDetector, samples: list[dict]) -> Difference:
    """Compare a file's detections with the detector's own, image by image and in a batch.

    Both run on the CPU. The difference is that over all images, each taken twice.

    Args:
        path: The exported file.
        detector: The detector, on the CPU and in evaluation mode.
        samples: From :func:`read_images`.
    """
    head, images = detector.bbox_head, [sample['inputs'] for sample in samples]
    run = _raw_detection(path, head) or open_exported(path, head.test_cfg, on_cpu=True).detect
    found = [run([image])[0] for image in images] + run(images)
    expected = predict(detector, samples) * 2
    return Difference.total(
        compare(*pair, head.test_cfg) for pair in zip(expected, found, strict=True)
    )


def read_images(cfg: Config, paths: Sequence[str]) -> list[dict]:
    """Apply the config's test pipeline to images, without loading annotations.

    For each image there are ``inputs`` (3, h, w), all of one size, and ``data_samples``.

    Raises:
        ConfigError: If images keep their aspect ratio, so that their sizes differ.
        InputError: If a file is no image.
        OSError: If a file can't be read.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if resize_of(cfg).get('keep_ratio', False):
        raise ConfigError(
            "the test pipeline's Resize has keep_ratio=True, but the exported graph takes "
            'images of one size: set keep_ratio=False'
        )
    pipeline = Compose([t for t in plain_test_set(cfg).pipeline if 'Annotations' not in t.type])
    for path in paths:
        read_image(path)  # its errors name the file, the pipeline's do not
    return [pipeline(dict(img_path=str(path), img_id=i)) for i, path in enumerate(paths)]


@torch.no_grad()
def predict(detector: SingleStageDetector, samples: list[dict]) -> list[InstanceData]:
    """The detector's detections, boxes in pixels of the network input."""
    batch = detector.data_preprocessor(pseudo_collate(samples))
    found = detector.predict(batch['inputs'], batch['data_samples'], rescale=False)
    return [sample.pred_instances for sample in found]


def _raw_detection(
    path: str | Path, head: SSDMultiBoxHead
) -> Callable[[list[Tensor]], list[InstanceData]] | None:
    """What detects by an ONNX file with scores, deltas and priors; None for another file."""
    if Path(path).suffix != '.onnx':
        return None
    session = open_session(path, CPU_ONLY)
    is_raw = 'deltas' in [output.name for output in session.get_outputs()]
    return partial(_detect_raw, session, head) if is_raw else None


def _detect_raw(
    session: InferenceSession, head: SSDMultiBoxHead, images: list[Tensor]
) -> list[InstanceData]:
    """Detections of a file with scores, deltas and priors, by the head's post-processing."""
    (inputs,) = session.get_inputs()
    dtype = np.uint8 if inputs.type == 'tensor(uint8)' else np.float32
    batch = torch.stack(images)
    outputs = session.run(None, dict(images=batch.numpy().astype(dtype)))
    scores, deltas, priors = map(torch.from_numpy, outputs)
    height, width = batch.shape[2:]
    borders = batch.new_tensor([width, height] * 2, dtype=torch.float32).repeat(len(batch), 1)
    clip = borders if head.clip_border else None
    return detect(scores, deltas, priors, head.bbox_coder, head.test_cfg, clip)


class Difference(NamedTuple):
    """The difference between two detectors' detections on the same images."""

    detections: int  # of the first
    boxes: float  # largest difference of a coordinate of the same detection, in pixels
    scores: float  # largest difference of the score of the same detection
    unmatched: int  # detections that only one of the two has
    borderline: int  # detections like that which rounding may explain; they don't count

    @classmethod
    def total(cls, parts: Iterable[Difference]) -> Difference:
        """The difference over several images."""
        detections, boxes, scores, unmatched, borderline = zip(*parts)
        return cls(sum(detections), max(boxes), max(scores), sum(unmatched), sum(borderline))

    @property
    def is_small(self) -> bool:
        """Whether it is within the tolerances, and neither detector lacks a detection."""
        within = self.boxes <= BOX_TOLERANCE and self.scores <= SCORE_TOLERANCE
        return within and self.unmatched == 0

    def __str__(self) -> str:
        text = f'{self.detections} detections, boxes differ by up to {self.boxes:.1e} px, '
        text += f'scores by up to {self.scores:.1e}, {self.unmatched} are on one side only'
        near = f' (and {self.borderline} whose score or IoU is that of another or of a threshold)'
        return text + (near if self.borderline else '')


def compare(expected: InstanceData, found: InstanceData, test_cfg: dict) -> Difference:
    """Compare two detectors' detections on an image.

    Detections with the same label are paired so that they differ least, in whatever order they
    come. One without a partner is unmatched, unless a threshold is so near that rounding may
    have removed the partner: ``score_thr``, the last score that ``max_per_img`` leaves, or
    ``iou_threshold`` with a detection of the other side. Of two boxes that overlap and have the
    same score either may suppress the other, so they, too, count as borderline.
    """
    boxes = (expected.bboxes[:, None] - found.bboxes).abs().amax(2)  # (n, m)
    scores = (expected.scores[:, None] - found.scores).abs()
    cost = torch.maximum(boxes / BOX_TOLERANCE, scores / SCORE_TOLERANCE)
    rows, columns = pair_detections(cost.where(expected.labels[:, None] == found.labels, torch.inf))
    lone = np.delete(np.arange(len(expected)), rows), np.delete(np.arange(len(found)), columns)
    borderline = torch.cat(
        [
            _is_borderline(expected[lone[0]], found, test_cfg),
            _is_borderline(found[lone[1]], expected, test_cfg),
        ]
    )
    return Difference(
        len(expected.scores),
        max(boxes[rows, columns].tolist(), default=0.0),
        max(scores[rows, columns].tolist(), default=0.0),
        int((~borderline).sum()),
        int(borderline.sum()),
    )


def pair_detections(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (k,) of the pairs with the least total cost (n, m), each below ``SAME``."""
    capped = cost.nan_to_num(nan=SAME).clamp(max=SAME)
    rows, columns = map(torch.from_numpy, linear_sum_assignment(capped.double().numpy()))
    same = capped[rows, columns] < SAME
    return rows[same], columns[same]


def _is_borderline(lone: InstanceData, others: InstanceData, test_cfg: dict) -> Tensor:
    """Which of n detections rounding may have removed from the other side's m: (n,) bool."""
    borderline = lone.scores <= test_cfg.get('score_thr', 0) + SCORE_TOLERANCE
    if len(others.scores) == 0:
        return borderline
    if len(others.scores) == test_cfg.get('max_per_img', -1):
        borderline |= lone.scores <= others.scores.min() + SCORE_TOLERANCE
    over = bbox_overlaps(lone.bboxes, others.bboxes) - test_cfg['nms']['iou_threshold']  # (n, m)
    equal = (lone.scores[:, None] - others.scores).abs() <= SCORE_TOLERANCE
    near = (over.abs() <= IOU_TOLERANCE) | (equal & (over > 0))
    if not test_cfg['nms'].get('class_agnostic', False):
        near &= lone.labels[:, None] == others.labels
    return borderline | near.any(1)
