"""A detector as a module of tensors alone: from a batch of images to boxes and scores."""

from __future__ import annotations

import torch
from mmdet.models.detectors import SingleStageDetector
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from ssd_plugin.errors import ConfigError
from ssd_plugin.export.nms import REMOVED, BatchedNMS, keep_highest, pad
from ssd_plugin.models.head import SSDMultiBoxHead, flatten_levels
from ssd_plugin.models.postprocess import SHORTLIST, is_plain_nms


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
        scores, deltas = self.scores_and_deltas(images)
        priors = self.priors.repeat(images.size(0), 1)  # (B * P, 4)
        boxes = head.bbox_coder.decode(priors, deltas.flatten(0, 1))
        if head.clip_border:
            boxes = boxes.clamp(min=0).minimum(self.borders)
        return boxes.unflatten(0, (-1, len(self.priors))), scores

    def scores_and_deltas(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, P, C) and box deltas (B, P, 4) of all priors."""
        head = self.detector.bbox_head
        cls_scores, bbox_preds = self.detector(self.normalise(images), mode='tensor')
        scores = flatten_levels(cls_scores, head.cls_out_channels).flatten(0, 1)  # (B * P, K)
        scores = head.probabilities(scores).unflatten(0, (-1, len(self.priors)))
        return scores, flatten_levels(bbox_preds, 4)


class ScoresAndDeltas(nn.Module):
    """`BoxesAndScores` before decoding, with its priors, for programs that decode themselves."""

    def __init__(self, detector: SingleStageDetector, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.boxes_and_scores = BoxesAndScores(detector, input_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, P, C) without background, deltas (B, P, 4), and priors (P, 4) xyxy in pixels.

        Images are as for `BoxesAndScores`. The priors are the same for all images.
        """
        scores, deltas = self.boxes_and_scores.scores_and_deltas(images)
        return scores, deltas, self.boxes_and_scores.priors


class Detections(nn.Module):
    """`BoxesAndScores` and the steps of ``ssd_plugin.models.postprocess.detect``, in fixed shapes.

    1. Take the ``nms_pre`` highest scores above ``score_thr`` of each class.
    2. NMS within each class.
    3. Keep the N highest of each image; if there are fewer, fill up with rows of zeros.

    N is ``max_per_img``, or the number that step 1 leaves if that is less or there is no limit.
    As in ``detect``, the steps begin with the priors that have the best scores, and repeat with all
    where these did not suffice.

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
        self.num_priors = len(self.boxes_and_scores.priors)
        self.num_classes = detector.bbox_head.num_classes
        self.score_thr = float(cfg.get('score_thr', 0))
        self.iou_threshold = float(cfg['nms']['iou_threshold'])
        self.class_agnostic = cfg['nms'].get('class_agnostic', False)
        self.nms_pre = _at_most(self.num_priors, cfg.get('nms_pre', -1))
        self.num_detections = _at_most(self.nms_pre * self.num_classes, cfg.get('max_per_img', -1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detections of images (B, 3, h, w), as for `BoxesAndScores`.

        They are boxes (B, N, 4) xyxy in pixels of the images, scores (B, N), the highest first,
        and labels (B, N) int64. Rows that fill up come last: 0, 0 and label -1.
        """
        boxes, scores = self.boxes_and_scores(images)  # (B, P, 4), (B, P, C)
        shortlist = SHORTLIST * self.num_detections
        if shortlist < self.num_priors:
            boxes, scores, labels = self.begin_with_best(boxes, scores, shortlist)
        else:
            boxes, scores, labels = self.suppress(boxes, scores, self.num_priors)
        found = scores > REMOVED
        return (
            boxes.masked_fill(~found.unsqueeze(-1), 0),
            scores.masked_fill(~found, 0),
            labels.masked_fill(~found, -1),
        )

    def begin_with_best(
        self, boxes: Tensor, scores: Tensor, number: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`suppress` among the best priors, and where that is not enough among all."""
        best, prior = scores.amax(2).topk(number)  # (B, S)
        last = best[:, -1:]  # of the other priors no score is better
        at = prior.unsqueeze(2)  # (B, S, 1)
        highest = scores.gather(1, at.expand(-1, -1, self.num_classes))  # (B, S, C)
        highest = highest.masked_fill(highest < last.unsqueeze(2), REMOVED)
        first = self.suppress(boxes.gather(1, at.expand(-1, -1, 4)), highest, number)
        complete = (last <= self.score_thr) | (first[1][:, -1:] > REMOVED)  # (B, 1)

        # Without a condition in the graph, which some runtimes lack: all priors, or only one.
        one = torch.arange(self.num_priors, device=boxes.device) == 0
        (chosen,) = (one | ~complete.all()).nonzero(as_tuple=True)
        second = self.suppress(boxes[:, chosen], scores[:, chosen], self.num_priors)
        return (
            first[0].where(complete.unsqueeze(2), second[0]),
            first[1].where(complete, second[1]),
            first[2].where(complete, second[2]),
        )

    def suppress(self, boxes: Tensor, scores: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Steps 1 to 3 of the class, on Q of the priors.

        Args:
            boxes: (B, Q, 4).
            scores: (B, Q, C).
            most: The largest that Q may be.

        Returns:
            Boxes (B, N, 4), scores (B, N), the highest first, and labels (B, N); the score is -1
            where there is no detection.
        """
        scores = scores.transpose(1, 2)  # (B, C, Q)
        if self.nms_pre < most:
            scores = keep_highest(scores, self.nms_pre, self.score_thr)
        boxes_of_class, scores_of_class = boxes, scores
        if self.class_agnostic:  # one class, in which each box stands once for each real class
            boxes_of_class = boxes.repeat(1, self.num_classes, 1)  # (B, C * Q, 4)
            scores_of_class = scores.flatten(1).unsqueeze(1)  # (B, 1, C * Q)
        kept = BatchedNMS.apply(
            boxes_of_class,
            scores_of_class,
            self.iou_threshold,
            self.score_thr,
            self.num_detections,
        )
        scores, index = pad(kept.flatten(1), self.num_detections).topk(self.num_detections)
        prior = (index % boxes.size(1)).unsqueeze(2).expand(-1, -1, 4)
        return boxes.gather(1, prior), scores, index // boxes.size(1)


def _at_most(number: int, limit: int) -> int:
    """The smaller of both; a negative limit means that there is none."""
    return min(number, limit) if limit >= 0 else number
