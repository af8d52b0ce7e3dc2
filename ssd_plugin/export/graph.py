"""A detector as a module of tensors alone: from a batch of images to boxes and scores."""

from __future__ import annotations

import torch
from mmdet.models.detectors import SingleStageDetector
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from ssd_plugin.errors import ConfigError
from ssd_plugin.export.nms import NmsMask
from ssd_plugin.models.head import SSDMultiBoxHead, flatten_levels
from ssd_plugin.models.postprocess import is_plain_nms


class BoxesAndScores(nn.Module):
    """Normalisation, network and decoding of a detector, for images of one size.

    Priors are constants. The batch may have any size; ``input_size`` is (w, h) in pixels.

    Raises:
        ConfigError: If the detector has another head than ``SSDMultiBoxHead``.
    """

    borders: Tensor  # (4,) float32: width, height, width and height of the images
    priors: Tensor  # (P, 4) xyxy in pixels

    def __init__(self, detector: SingleStageDetector, input_size: tuple[int, int]) -> None:
        super().__init__()
        head = getattr(detector, 'bbox_head', None)
        if not isinstance(head, SSDMultiBoxHead):
            raise ConfigError(f'no SSDMultiBoxHead in model.bbox_head, but {type(head).__name__}')
        self.detector = detector.eval()
        width, height = input_size
        self.register_buffer('borders', torch.tensor([width, height] * 2, dtype=torch.float32))
        with torch.no_grad():
            inputs = self.normalise(torch.zeros(1, 3, height, width))
            cls_scores, _ = detector(inputs, mode='tensor')
        self.register_buffer('priors', head.get_priors(cls_scores))

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise images (B, 3, h, w) as the detector's preprocessor does."""
        # MMDetection's own method, which calls this one, lists the sizes of the images, and
        # thereby fixes the size of the batch.
        preprocessor = self.detector.data_preprocessor
        return ImgDataPreprocessor.forward(preprocessor, dict(inputs=images))['inputs']

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded boxes and probabilities of all priors.

        From images (B, 3, h, w) uint8 or float32, 0 to 255, with channels in the order in which
        the config's pipeline loads them, to boxes (B, P, 4) xyxy in pixels of the images and scores
        (B, P, C) without background.
        """
        head = self.detector.bbox_head
        cls_scores, bbox_preds = self.detector(self.normalise(images), mode='tensor')
        scores = flatten_levels(cls_scores, head.cls_out_channels).flatten(0, 1)  # (B * P, K)
        deltas = flatten_levels(bbox_preds, 4).flatten(0, 1)  # (B * P, 4)
        boxes = head.bbox_coder.decode(self.priors.repeat(images.size(0), 1), deltas)
        if head.clip_border:
            boxes = boxes.clamp(min=0).minimum(self.borders)
        shape = (-1, len(self.priors))
        return boxes.unflatten(0, shape), head.probabilities(scores).unflatten(0, shape)


class Detections(nn.Module):
    """`BoxesAndScores` and the steps of ``ssd_plugin.models.postprocess.detect``, in fixed shapes.

    1. Take the ``nms_pre`` highest scores of each class.
    2. NMS within each class, of those above ``score_thr``.
    3. Keep the N highest of each image; if there are fewer, fill up with rows of zeros.

    N is ``max_per_img``, or the number that step 1 leaves if that is less or there is no limit.

    Raises:
        ConfigError: If the detector has another head than ``SSDMultiBoxHead``, or its ``test_cfg``
            another NMS than ``type='nms'``.
    """

    def __init__(self, detector: SingleStageDetector, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.boxes_and_scores = BoxesAndScores(detector, input_size)
        cfg = detector.bbox_head.test_cfg
        if not is_plain_nms(cfg['nms']):
            raise ConfigError(
                f"model.test_cfg.nms is {dict(cfg['nms'])}: only dict(type='nms', "
                'iou_threshold=...) can be exported, or any with --no-nms'
            )
        num_priors = len(self.boxes_and_scores.priors)
        self.num_classes = detector.bbox_head.num_classes
        self.score_thr = float(cfg.get('score_thr', 0))
        self.iou_threshold = float(cfg['nms']['iou_threshold'])
        self.class_agnostic = cfg['nms'].get('class_agnostic', False)
        self.nms_pre = _at_most(num_priors, cfg.get('nms_pre', -1))
        self.num_detections = _at_most(self.nms_pre * self.num_classes, cfg.get('max_per_img', -1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detections of images (B, 3, h, w), as for `BoxesAndScores`.

        They are boxes (B, N, 4) xyxy in pixels of the images, scores (B, N), the highest first,
        and labels (B, N) int64. Rows that fill up come last: 0, 0 and label -1.
        """
        boxes, scores = self.boxes_and_scores(images)
        scores, prior = scores.transpose(1, 2).topk(self.nms_pre)  # (B, C, k)
        scores, prior = scores.flatten(1), prior.flatten(1)  # (B, C * k)
        boxes = boxes.gather(1, prior.unsqueeze(-1).expand(-1, -1, 4))  # (B, C * k, 4)

        competing = boxes.size(1) if self.class_agnostic else self.nms_pre
        kept = NmsMask.apply(
            boxes.reshape(-1, competing, 4),
            scores.reshape(-1, competing),
            self.iou_threshold,
            self.score_thr,
            min(self.num_detections, competing),
        )
        scores = scores.masked_fill(~kept.view_as(scores), -1)

        scores, index = scores.topk(self.num_detections)  # (B, N)
        boxes = boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
        found = scores >= 0
        return (
            boxes.masked_fill(~found.unsqueeze(-1), 0),
            scores.masked_fill(~found, 0),
            (index // self.nms_pre).masked_fill(~found, -1),
        )


def _at_most(number: int, limit: int) -> int:
    """The smaller of both; a negative limit means that there is none."""
    return min(number, limit) if limit >= 0 else number
