"""NMS of many groups of boxes at once: by torchvision, and as a node of the exported graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.onnx import TensorProtoDataType
from torchvision.ops import nms


class NmsMask(torch.autograd.Function):
    """Which boxes NMS keeps in each of G groups of k boxes; for inference only.

    It is an autograd function so that the exporter sees it as one node, whose result has a shape
    that does not depend on values. Call it as ``NmsMask.apply(boxes, scores, iou_threshold,
    score_thr, max_boxes)``:

    Args:
        boxes: (G, k, 4) xyxy.
        scores: (G, k).
        iou_threshold: Of two boxes with a higher IoU the one with the lower score is removed.
        score_thr: Scores must be greater.
        max_boxes: How many boxes of a group are kept at most, those with the highest scores.

    Returns:
        (G, k) bool.
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
        kept = torch.zeros_like(scores, dtype=torch.bool)
        for g in range(boxes.size(0)):
            (index,) = (scores[g] > score_thr).nonzero(as_tuple=True)
            left = nms(boxes[g, index].double(), scores[g, index].double(), iou_threshold)
            kept[g, index[left[:max_boxes]]] = True
        return kept

    @staticmethod
    def symbolic(
        g: Any, boxes: Any, scores: Any, iou_threshold: float, score_thr: float, max_boxes: int
    ) -> Any:
        """The same in ONNX (opset 15 or later)."""

        def constant(*values: float) -> Any:
            return g.op('Constant', value_t=torch.tensor(values))

        # What ONNX calls a batch is a group here, with one class. It gives rows (group, 0, box).
        selected = g.op(
            'NonMaxSuppression',
            boxes,
            g.op('Unsqueeze', scores, constant(1)),
            constant(max_boxes),
            constant(float(iou_threshold)),
            constant(float(score_thr)),
        )
        where = g.op('Gather', selected, constant(0, 2), axis_i=1)  # (M, 2): group, box
        ones = g.op('Expand', constant(1.0), g.op('Shape', selected, start_i=0, end_i=1))
        zeros = g.op('Expand', constant(0.0), g.op('Shape', scores))
        kept = g.op('ScatterND', zeros, where, ones)
        return g.op('Cast', kept, to_i=TensorProtoDataType.BOOL)
