"""VOC's average precision, of each class by its name, for any data set."""

from __future__ import annotations

from typing import Any

from mmdet.evaluation import VOCMetric, eval_map
from mmdet.registry import METRICS
from mmengine.logging import MMLogger


@METRICS.register_module()
class VOCDetMetric(VOCMetric):
    """MMDetection's ``VOCMetric`` with the data set's own class names, and the AP of each class.

    ``VOCMetric`` prints the names of VOC's 20 classes whenever the data lie under a folder with
    VOC2007 or VOC2012 in its path, whatever the classes are, and returns only the mean. Here
    ``AP/NAME`` stands beside ``mAP`` in the results and in the logs, for each class that has
    ground-truth boxes; over several ``iou_thrs`` it is their mean, as mAP is.

    Args:
        use_legacy_coordinate: Whether a box includes the pixels at x2 and y2, so that its width
            is x2 - x1 + 1: so in VOC's files and in VOC's own evaluation. In COCO's, the width is
            x2 - x1, and False is right.
        **kwargs: Those of ``VOCMetric``: ``eval_mode`` (``'11points'``, VOC2007's, or ``'area'``,
            VOC2010's to 2012's), ``iou_thrs``, ``metric``, ``prefix`` and so on.
    """

    def __init__(self, use_legacy_coordinate: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_legacy_coordinate = use_legacy_coordinate

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the average precisions over all images.

        Args:
            results: For each image the ground truth and, for each class, the detections, as
                ``VOCMetric.process`` stores them.

        Returns:
            ``mAP``, ``AP50`` and the like for each IoU threshold, and ``AP/NAME`` for each class.
        """
        if self.metric != 'mAP':
            return super().compute_metrics(results)
        annotations, detections = zip(*results, strict=True)
        classes = self.dataset_meta['classes']
        logger = MMLogger.get_current_instance()
        means: dict[str, float] = {}
        per_threshold: dict[str, list[float]] = {}
        for iou_thr in self.iou_thrs:
            logger.info(f'\n{"-" * 15}iou_thr: {iou_thr}{"-" * 15}')
            means[f'AP{round(iou_thr * 100):02d}'], per_class = eval_map(
                detections,
                annotations,
                scale_ranges=self.scale_ranges,
                iou_thr=iou_thr,
                dataset=classes,
                logger=logger,
                eval_mode=self.eval_mode,
                use_legacy_coordinate=self.use_legacy_coordinate,
            )
            for name, result in zip(classes, per_class, strict=True):
                if result['num_gts']:
                    per_threshold.setdefault(f'AP/{name}', []).append(float(result['ap']))
        by_class = {key: sum(aps) / len(aps) for key, aps in per_threshold.items()}
        return dict(mAP=sum(means.values()) / len(means), **means, **by_class)
