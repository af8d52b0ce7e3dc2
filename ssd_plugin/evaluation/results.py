"""Detections of a trained detector on a data set, beside the ground truth of each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import DataLoader

from ssd_plugin.checkpoints.load import load_for_evaluation
from ssd_plugin.engine.device import require_device
from ssd_plugin.engine.hooks.data_fault_hook import drop_unreadable
from ssd_plugin.engine.launch import fit_loaders


class Result(NamedTuple):
    """Ground truth and detections of one image, boxes in its own pixels."""

    path: str
    gt_bboxes: np.ndarray  # (G, 4) xyxy
    gt_labels: np.ndarray  # (G,) int64
    gt_ignored: np.ndarray  # (G,) bool: "difficult" or a crowd, neither wanted nor wrong to find
    det_bboxes: np.ndarray  # (D, 4) xyxy
    det_labels: np.ndarray  # (D,) int64
    det_scores: np.ndarray  # (D,), falling
    unreadable: bool = False  # so that nothing is detected, as in evaluation


def build_loader(cfg: Config, split: str) -> DataLoader:
    """The loader of a split, in the order of its data set and to its end."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    fit_loaders(cfg)
    loader = cfg[f'{split}_dataloader'].copy()
    loader.update(sampler=dict(type='DefaultSampler', shuffle=False), drop_last=False)
    return Runner.build_dataloader(loader)


def detect_all(
    cfg: Config, checkpoint: str, loader: DataLoader, device: str | None = None
) -> Iterator[Result]:
    """Detect on each image of a loader from :func:`build_loader`, as evaluation does.

    The ground truth comes from the data set's annotations, so that it is that of the original
    image whatever the pipeline does to its boxes.
    """
    require_device(device)
    dataset: BaseDataset = loader.dataset
    model = load_for_evaluation(cfg, checkpoint, dataset)
    model.to(device or get_device())
    model.register_forward_hook(drop_unreadable)
    samples = (sample for batch in loader for sample in model.test_step(batch))
    for index, sample in enumerate(samples):
        found, unreadable = sample.pred_instances.cpu().numpy(), sample.get('unreadable', False)
        yield _to_result(dataset.get_data_info(index), found, unreadable)


def _to_result(info: dict, found: InstanceData, unreadable: bool) -> Result:
    """Put the ground truth of an image, its ``get_data_info``, beside its detections."""
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
        unreadable,
    )
