"""MMDetection's visualizer, drawing as ``tools/detect.py`` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.structures.bbox import get_box_tensor
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

from ssd_plugin.visualization.detections import colors_of, draw_boxes


class DetectionVisualizer(DetLocalVisualizer):
    """Draws ground truth and detections for ``--show``, ``--show-dir`` and MMEngine's hooks.

    MMDetection's letters are as high on a photograph of 4000 pixels as on one of 300, and its
    labels cover each other. Its arguments for colours and lines have no effect here.
    """

    def _draw_instances(
        self, image: np.ndarray, instances: InstanceData, classes: Sequence[str] | None, _: Any
    ) -> np.ndarray:
        """Draw on an image (h, w, 3) uint8 RGB, and return the result."""
        if 'bboxes' not in instances:  # as of images whose pipeline loads no annotations
            return image
        labels = instances.labels.tolist()
        texts = [classes[label] if classes else f'class {label}' for label in labels]
        if 'scores' in instances:
            texts = [f'{t} {score:.2f}' for t, score in zip(texts, instances.scores.tolist())]
        bboxes = get_box_tensor(instances.bboxes).numpy()
        return draw_boxes(image[..., ::-1], bboxes, texts, colors_of(labels))[..., ::-1]
