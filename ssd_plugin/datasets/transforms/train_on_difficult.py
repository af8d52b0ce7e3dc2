"""A step of SSD's training pipeline for VOC that MMDetection lacks."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TrainOnDifficult(BaseTransform):
    """Train on the boxes that VOC marks as "difficult".

    MMDetection reads the mark as an ignore flag and leaves such boxes out of training. SSD's recipe
    trains on them, and ignores them in evaluation only. So this belongs in training pipelines,
    after ``LoadAnnotations``; evaluation reads the annotations itself and is not affected.

    Every ignore flag is cleared, whatever set it: on COCO also those of crowds, and with a data
    set's ``bbox_min_size`` those of small boxes. Use it on VOC annotations, without that option.

    Required and modified key: ``gt_ignore_flags``, bool (n,).
    """

    def transform(self, results: dict) -> dict:
        """Clear the flags; ``KeyError`` if no annotations have been loaded before."""
        results['gt_ignore_flags'] = np.zeros_like(results['gt_ignore_flags'])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
