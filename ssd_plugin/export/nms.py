"""NMS of a whole batch, class by class: by torchvision, and as one node of the exported graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import nms

REMOVED = -1.0  # takes the place of a score that NMS does not keep


class BatchedNMS(torch.autograd.Function):
    """The scores that NMS keeps within each class of each image; for inference only.

    It is an autograd function so that PyTorch's tracing exporter sees one node, ONNX's
    ``NonMaxSuppression``, whose result is brought into a shape that does not depend on values.
    ``torch.export`` looks inside and sees torchvision's ``nms``. Call it as
    ``BatchedNMS.apply(boxes, scores, iou_threshold, score_thr, max_boxes)``:

    Args:
        boxes: (B, P, 4) xyxy, those of all classes.
        scores: (B, C, P).
        iou_threshold: Of two boxes with a higher IoU the one with the lower score is removed.
        score_thr: Scores must be greater; at least 0.
        max_boxes: How many boxes of a class are asked for: ONNX stops at these.

    Returns:
        (B, C, P): the scores that are kept, and -1 in place of the others. After the ``max_boxes``
        highest of a class they may be kept or not.
    """

    @staticmethod
    def forward(
        ctx: Any,
        boxes: Tensor,
        scores: Tensor,
        iou_threshold: float,
        score_thr: float,
        max_boxes: int,
    ) -> Tensor:
        image, label, prior = (scores > score_thr).nonzero(as_tuple=True)  # (N,)
        # Each class of each image has a place of its own, where no box of another one is. Float64
        # keeps the decimals on which an IoU near the threshold depends.
        group = image * scores.size(1) + label
        extent = (boxes.amax() - boxes.amin()).double() + 1
        places = boxes[image, prior].double() + (group * extent).unsqueeze(1)
        kept = nms(places, scores[image, label, prior].double(), iou_threshold)
        index = image[kept], label[kept], prior[kept]
        left = torch.full_like(scores, REMOVED).index_put(index, scores[index])
        return left

    @staticmethod
    def symbolic(
        g: Any, boxes: Any, scores: Any, iou_threshold: float, score_thr: float, max_boxes: int
    ) -> Any:
        """The same in ONNX (opset 13 or later)."""

        def constant(*values: float) -> Any:
            return g.op('Constant', value_t=torch.tensor(values))

        selected = g.op(  # (M, 3) int64: image, class, prior
            'NonMaxSuppression',
            boxes,
            scores,
            constant(max_boxes),
            constant(float(iou_threshold)),
            constant(float(score_thr)),
        )
        removed = g.op('Expand', constant(REMOVED), g.op('Shape', scores))
        return g.op('ScatterND', removed, selected, g.op('GatherND', scores, selected))


def keep_highest(scores: Tensor, number: int, score_thr: float) -> Tensor:
    """Replace all but the highest scores of each class by -1.

    Few classes, if any, have more scores above the threshold than are kept. Only these are
    sorted: sorting all takes several milliseconds with 80 classes.

    Args:
        scores: (B, C, P).
        number: How many of a class to keep.
        score_thr: Scores up to this may be kept or not.
    """
    rows = (scores > score_thr).sum(2) > number  # (B, C)
    # One row more: of no rows at all, TopK of ONNX Runtime up to 1.23 divides by their number, and
    # the process ends.
    crowded = torch.cat([scores[rows], torch.full_like(scores[0, :1], REMOVED)])  # (R + 1, P)
    crowded = pad(crowded, number)  # (R + 1, P + k), since k may exceed P
    values, prior = crowded.topk(number)  # (R + 1, k)
    kept = torch.full_like(crowded, REMOVED).scatter(1, prior, values)
    return scores.index_put((rows,), kept[:-1, :-number])


def pad(scores: Tensor, number: int) -> Tensor:
    """Append a number of removed scores to each row (n, m): (n, m + number)."""
    return nn.functional.pad(scores, (0, number), value=REMOVED)
