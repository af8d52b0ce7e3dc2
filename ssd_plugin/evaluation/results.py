"""A pass over a data set: objects and detections of each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import DataLoader

from ssd_plugin.checkpoints.load import load_detector


class Result(NamedTuple):
    """Objects and detections of one image, boxes in its own pixels."""

    path: str
    bboxes: np.ndarray  # (G, 4) xyxy
    labels: np.ndarray  # (G,) int64
    ignored: np.ndarray  # (G,) bool: neither to be found nor wrong to find ("difficult", crowds)
    det_bboxes: np.ndarray  # (D, 4) xyxy
    det_labels: np.ndarray  # (D,) int64
    det_scores: np.ndarray  # (D,), falling


def build_loader(cfg: Config, split: str) -> DataLoader:
    """The loader of a split, in the order of its data set and to its end."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    loader = cfg[f'{split}_dataloader'].copy()
    loader.update(sampler=dict(type='DefaultSampler', shuffle=False), drop_last=False)
    return Runner.build_dataloader(loader)


def detect_all(
    cfg: Config, checkpoint: str, loader: DataLoader, device: str | None = None
) -> Iterator[Result]:
    """Detect on each image of a data set, as evaluation does.

    Objects come from the data set's annotations, so that they are those of the image whatever
    the pipeline does with them.

    Args:
        cfg: Of the detector.
        checkpoint: Its weights.
        loader: From :func:`build_loader`.
        device: Where to compute; by default where MMEngine would.
    """
    model, _ = load_detector(cfg, checkpoint)
    model.to(device or get_device())
    index = 0
    for batch in loader:
        for sample in model.test_step(batch):
            yield to_result(loader.dataset.get_data_info(index), sample.pred_instances)
            index += 1


def to_result(info: dict, found: InstanceData) -> Result:
    """Put the objects of an image beside its detections.

    Args:
        info: Of the image, from the data set.
        found: ``InstanceData`` with ``bboxes``, ``scores`` and ``labels``.
    """
    found = found.cpu().numpy()
    found = found[np.argsort(-found.scores, kind='stable')]
    instances = info['instances']
    return Result(
        info['img_path'],
        np.array([i['bbox'] for i in instances], dtype=np.float64).reshape(-1, 4),
        np.array([i['bbox_label'] for i in instances], dtype=np.int64),
        np.array([i['ignore_flag'] for i in instances], dtype=bool),
        found.bboxes,
        found.labels,
        found.scores,
    )
