"""Which priors are matched in a training sample, and which negatives the loss mines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.detectors.base import BaseDetector
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor

from ssd_plugin.checkpoints.load import load_for_evaluation
from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.errors import ConfigError
from ssd_plugin.models.head import SSDMultiBoxHead, flatten_levels
from ssd_plugin.models.losses import HardNegativeMiningLoss
from ssd_plugin.models.targets import get_targets


class Matches(NamedTuple):
    """What training does with the P priors of one image."""

    priors: np.ndarray  # (P, 4) xyxy in pixels
    levels: np.ndarray  # (P,) int64: level of the prior
    gt_inds: np.ndarray  # (P,) int64: -1 ignored, 0 background, g + 1 matched to box g
    mined: np.ndarray | None  # (P,) bool: hard negatives; None if the head mines none by image


def build_model(cfg: Config, checkpoint: str | None) -> BaseDetector:
    """The detector of a config, with its training parts, in evaluation mode.

    In this mode batch normalisation uses the statistics of the checkpoint, so that an image's
    negatives do not depend on the other images of a batch.

    Raises:
        ConfigError: If its head does not match priors by ``assign_batch``.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if checkpoint:
        dataset = leaf_datasets(cfg.train_dataloader.dataset)[0]
        model = load_for_evaluation(cfg, checkpoint, dataset)
    else:
        model = MODELS.build(cfg.model).eval()
    if not hasattr(getattr(getattr(model, 'bbox_head', None), 'assigner', None), 'assign_batch'):
        raise ConfigError('its head does not match priors as SSDMultiBoxHead does')
    return model


@torch.no_grad()
def match(model: BaseDetector, item: dict) -> Matches:
    """Match the priors of one training sample and mine its negatives, as the loss does.

    ``model`` is from :func:`build_model`; the sample has ``inputs`` and ``data_samples``.
    """
    head = model.bbox_head
    batch = model.data_preprocessor(pseudo_collate([item]), training=True)
    cls_scores, bbox_preds = model(batch['inputs'], batch['data_samples'], mode='tensor')
    gt_instances, gt_instances_ignore, img_metas = unpack_gt_instances(batch['data_samples'])
    priors = get_priors(head, cls_scores, img_metas)
    targets = get_targets(
        priors, head.assigner, head.num_classes, gt_instances, img_metas, gt_instances_ignore
    )
    mined = None
    # MMDetection's heads have the loss mine over all images and by level.
    if isinstance(head, SSDMultiBoxHead) and isinstance(head.loss_cls, HardNegativeMiningLoss):
        scores = flatten_levels(cls_scores, head.cls_out_channels)
        labels = head.class_targets(flatten_levels(bbox_preds, 4), priors, targets)
        mined = head.loss_cls.select(scores, labels, targets.weights)[2][0].numpy()
    sizes = [level[0].numel() // head.cls_out_channels for level in cls_scores]
    levels = np.repeat(np.arange(len(sizes)), sizes)
    return Matches(priors.numpy(), levels, targets.gt_inds[0].numpy(), mined)


def get_priors(head: AnchorHead, cls_scores: list[Tensor], img_metas: list[dict]) -> Tensor:
    """The priors (P, 4) xyxy in pixels of one image, as the head lays them."""
    if isinstance(head, SSDMultiBoxHead):
        return head.get_priors(cls_scores, img_metas)
    sizes = [tuple(scores.shape[-2:]) for scores in cls_scores]
    return torch.cat(head.prior_generator.grid_priors(sizes, device='cpu'))
