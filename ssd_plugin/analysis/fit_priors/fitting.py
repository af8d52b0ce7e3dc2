"""From a config to better priors: read the objects, search, compare."""

from __future__ import annotations

from typing import NamedTuple

from mmdet.registry import DATASETS, TASK_UTILS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ssd_plugin.analysis.fit_priors.arguments import PriorArgs
from ssd_plugin.analysis.fit_priors.coverage import Coverage, measure_coverage
from ssd_plugin.analysis.fit_priors.objects import Objects, collect_objects
from ssd_plugin.analysis.fit_priors.reach import grids_of
from ssd_plugin.analysis.fit_priors.search import Problem, score, search
from ssd_plugin.analysis.prior_grid import PriorGrid, prior_grid
from ssd_plugin.datasets.config import resize_of

# What a proposal has to gain in `score`: that of 2 in 1000 objects more at IoU 0.5.
WORTH = 0.02


class Fit(NamedTuple):
    """What fitting has found."""

    objects: Objects
    grid: PriorGrid  # of the config
    given: PriorArgs
    by_linear_rule: bool  # whether the config gives sizes as ``basesize_ratio_range``
    before: Coverage
    proposed: PriorArgs | None  # None: nothing better was found
    after: Coverage | None


def fit_priors(cfg: Config, max_images: int | None = None, seed: int = 0) -> Fit:
    """Fit the priors of a config's detector to the objects of its training set.

    Objects are taken as the test pipeline's ``Resize`` scales them: as the trained detector will
    meet them. Both settings are measured by the priors and the assigner that training uses. A
    proposal that gains next to nothing is none.

    Args:
        cfg: The config.
        max_images: Of a larger training set, so many are drawn at random.
        seed: Of that draw and of the search: the same seed, the same proposal.

    Raises:
        ValueError: If the detector has no ``SSDPriorGenerator``, the test pipeline no ``Resize``
            with a ``scale``, or the training set no object that can be used.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    grid = prior_grid(cfg)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    objects = collect_objects(dataset, resize_of(cfg), max_images, seed)
    if len(objects.labels) == 0:
        raise ValueError('the training set has no object that can be used')
    assigner = TASK_UTILS.build(cfg.model.train_cfg.assigner)
    given = PriorArgs.of(grid.generator)
    linear = cfg.model.bbox_head.anchor_generator.get('basesize_ratio_range') is not None
    before = measure_coverage(grid.priors(), objects, assigner)

    largest = grid.input_size if grid.generator.clip_sides else (float('inf'),) * 2
    problem = Problem(objects, grids_of(grid), largest)
    proposed = search(problem, given, grid.input_size, seed).rounded()
    changed = grid._replace(generator=proposed.put_into(grid.generator))
    after = measure_coverage(changed.priors(), objects, assigner)
    if score(after.iou) - score(before.iou) < WORTH:
        return Fit(objects, grid, given, linear, before, None, None)
    return Fit(objects, grid, given, linear, before, proposed, after)
