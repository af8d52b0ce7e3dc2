"""Which priors learn which object of a training sample, and which negatives the loss has mined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from ssd_plugin.checkpoints.load import load_detector


class Matches(NamedTuple):
    """What training does with the P priors for one image with G objects."""

    priors: np.ndarray  # (P, 4) xyxy in pixels
    levels: np.ndarray  # (P,) int64: level of the prior
    gt_inds: np.ndarray  # (P,) int64: -1 ignored, 0 background, g + 1 matched to object g
    mined: np.ndarray | None  # (P,) bool: hard negatives; None where the loss mines none


def build_model(cfg: Config, checkpoint: str | None) -> nn.Module:
    """The detector of a config, with its training parts, in evaluation mode.

    So that batch normalisation takes its statistics from the checkpoint, and an image's negatives
    do not depend on the others of a batch.

    Raises:
        ValueError: If its head does not match priors by ``assign_batch``.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = load_detector(cfg, checkpoint)[0] if checkpoint else MODELS.build(cfg.model).eval()
    if not hasattr(getattr(getattr(model, 'bbox_head', None), 'assigner', None), 'assign_batch'):
        raise ValueError('its head does not match priors as SSDMultiBoxHead does')
    return model


@torch.no_grad()
def match(model: nn.Module, item: dict) -> Matches:
    """Compute the loss of one training sample, and look on while it matches and mines.

    Args:
        model: From :func:`build_model`.
        item: Of the training data set: ``inputs`` and ``data_samples``.
    """
    head = model.bbox_head
    batch = model.data_preprocessor(pseudo_collate([item]), training=True)
    with (
        watched(head.assigner, 'assign_batch') as assigned,
        watched(head.loss_cls, 'hardest') as hardest,
        watched(head.prior_generator, 'grid_priors') as generated,
    ):
        model.loss(batch['inputs'], batch['data_samples'])
    levels = generated[-1]  # list of (P_k, 4)
    return Matches(
        torch.cat(levels).numpy(),
        np.repeat(np.arange(len(levels)), [len(level) for level in levels]),
        assigned[-1].gt_inds[0].numpy(),
        hardest[-1][0].numpy() if hardest else None,
    )


@contextmanager
def watched(owner: Any, method: str) -> Iterator[list]:
    """Collect the answers of a method while it is called by others; none if there is no such."""
    answers: list = []
    inner = getattr(owner, method, None)
    if inner is None:
        yield answers
        return

    def watching(*args, **kwargs) -> Any:
        answer = inner(*args, **kwargs)
        answers.append(answer)
        return answer

    setattr(owner, method, watching)
    try:
        yield answers
    finally:
        delattr(owner, method)  # the class's own shows again
