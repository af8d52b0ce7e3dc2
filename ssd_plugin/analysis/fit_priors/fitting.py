"""From a config to priors that fit its training set: read the boxes, search, compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet.models.task_modules.assigners import BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor

from ssd_plugin.analysis.fit_priors.boxes import TrainingBoxes, collect_boxes
from ssd_plugin.analysis.fit_priors.reach import PriorArgs, Problem, score
from ssd_plugin.analysis.fit_priors.search import search
from ssd_plugin.analysis.prior_grid import PriorGrid, prior_grid
from ssd_plugin.datasets.config import resize_of
from ssd_plugin.datasets.samples import build_dataset
from ssd_plugin.errors import ConfigError
from ssd_plugin.models.priors import SSDPriorGenerator

# What a proposal has to gain in `score`: as much as 2 in 1000 more boxes at IoU 0.5.
WORTH = 0.02
# Square roots of the area, in pixels of the network input; COCO's limits.
SIZE_GROUPS = (('small', 0, 32), ('medium', 32, 96), ('large', 96, float('inf')))


class Coverage(NamedTuple):
    """How well priors cover N ground-truth boxes."""

    iou: np.ndarray  # (N,): best IoU with any prior
    matched: np.ndarray  # (N,) int64: priors matched to the box

    def figures(self, chosen: slice | np.ndarray = slice(None)) -> tuple[float, ...]:
        """Share at IoU 0.5, share at 0.7, mean best IoU, matched priors, of the chosen boxes."""
        iou, matched = self.iou[chosen], self.matched[chosen]
        means = (iou >= 0.5).mean(), (iou >= 0.7).mean(), iou.mean(), matched.mean()
        return tuple(map(float, means))


class Fit(NamedTuple):
    """What fitting has found."""

    boxes: TrainingBoxes
    grid: PriorGrid  # of the config
    by_linear_rule: bool  # whether the config gives the sizes by ``basesize_ratio_range``
    given: PriorArgs
    before: Coverage  # by the given priors
    proposed: PriorArgs | None = None  # None: nothing better was found
    after: Coverage | None = None  # by the proposed priors


def fit_priors(cfg: Config, max_images: int | None = None, seed: int = 0) -> Fit:
    """Fit the priors of a config's detector to the ground-truth boxes of its training set.

    Boxes are taken as the test pipeline's ``Resize`` scales them, since that is how the trained
    detector will meet them. Both settings are measured with the priors and the assigner that
    training uses. A proposal that gains next to nothing is dropped. Of more than ``max_images``,
    so many are drawn at random; the same seed gives the same draw and the same proposal.

    Raises:
        ConfigError: If the detector has no ``SSDPriorGenerator`` with one min and one max size a
            level and both priors of a ratio, the test pipeline no ``Resize`` with a ``scale``, or
            the training set no object that can be used.
    """
    grid = prior_grid(cfg)
    if not isinstance(grid.generator, SSDPriorGenerator):
        kind = type(grid.generator).__name__
        raise ConfigError(f'its priors are those of {kind}: only SSDPriorGenerator can be fitted')
    sizes = (*grid.generator.min_sizes, *grid.generator.max_sizes)
    if not grid.generator.flip or any(isinstance(size, Sequence) for size in sizes):
        raise ConfigError(
            'only priors of one min and one max size a level and flip=True are fitted'
        )
    boxes = collect_boxes(build_dataset(cfg, 'train'), resize_of(cfg), max_images, seed)
    if len(boxes.labels) == 0:
        raise ConfigError('the training set has no object that can be used')
    assigner = TASK_UTILS.build(cfg.model.train_cfg.assigner)
    linear = cfg.model.bbox_head.anchor_generator.get('basesize_ratio_range') is not None
    given = PriorArgs.of(grid.generator)
    fit = Fit(boxes, grid, linear, given, measure_coverage(grid.priors(), boxes, assigner))

    proposed = search(Problem(boxes, grid), given, seed).rounded()
    changed = grid._replace(generator=proposed.put_into(grid.generator))
    after = measure_coverage(changed.priors(), boxes, assigner)
    if score(after.iou) - score(fit.before.iou) < WORTH:
        return fit
    return fit._replace(proposed=proposed, after=after)


def measure_coverage(
    levels: list[Tensor], boxes: TrainingBoxes, assigner: BaseAssigner
) -> Coverage:
    """Match priors to the boxes of each image, as training does without augmentation.

    The priors of level k are (P_k, 4) xyxy, in pixels of the network input.
    """
    priors = torch.cat(levels)  # (P, 4)
    counts = np.bincount(boxes.images, minlength=boxes.num_images).tolist()
    bboxes = torch.from_numpy(boxes.bboxes).float().split(counts)
    labels = torch.from_numpy(boxes.labels).split(counts)
    candidates = InstanceData(priors=priors)
    ious, matched = [], []
    for gt_bboxes, gt_labels in zip(bboxes, labels):
        if len(gt_bboxes) == 0:
            continue
        gt_instances = InstanceData(bboxes=gt_bboxes, labels=gt_labels)
        gt_inds = assigner.assign(candidates, gt_instances).gt_inds.clamp(min=0)
        matched.append(gt_inds.bincount(minlength=len(gt_bboxes) + 1)[1:])
        ious.append(bbox_overlaps(gt_bboxes, priors).amax(1))
    return Coverage(torch.cat(ious).numpy(), torch.cat(matched).numpy())


def groups(boxes: TrainingBoxes) -> list[tuple[str, np.ndarray]]:
    """Names and members, (N,) bool, of the groups that have any: all, by size, by class."""
    side = np.sqrt(boxes.sides.prod(0))
    pairs = [('all', np.ones(len(side), dtype=bool))]
    pairs += [(name, (side >= low) & (side < high)) for name, low, high in SIZE_GROUPS]
    pairs += [(name, boxes.labels == label) for label, name in enumerate(boxes.classes)]
    return [(name, members) for name, members in pairs if members.any()]
