"""A hint where the priors of a training run are too far from most of its ground-truth boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from ssd_plugin.models.assigner import BatchAssignResult
from ssd_plugin.models.head import SSDMultiBoxHead

MOST_ITERATIONS = 500  # of a longer epoch, that are counted


@HOOKS.register_module()
class PriorHintHook(Hook):
    """Tell after the first epoch if most ground-truth boxes have only their forced prior.

    A box that no prior overlaps by ``pos_iou_thr`` is learnt from the one prior that bipartite
    matching gives it, and badly. The hook counts such boxes among those that are matched, as
    training sees them: augmented. If they are more than half, a warning says how to fit the priors.

    Counts are added up on the device, and read once. The hook says nothing in a run that is
    resumed, and nothing about other heads than ``SSDMultiBoxHead``.
    """

    def __init__(self) -> None:
        self.assigner: Any = None  # while it is counted
        self.iters_left = 0
        self.counts: Tensor | None = None  # (2,): boxes with their forced prior alone, all boxes

    def before_train(self, runner: Runner) -> None:
        """Begin to count, at the start of a run."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        head = getattr(model, 'bbox_head', None)
        if (
            runner.iter == 0
            and isinstance(head, SSDMultiBoxHead)
            and hasattr(head.assigner, 'pos_iou_thr')
        ):
            self.assigner, self.counts = head.assigner, None
            self.iters_left = min(len(runner.train_dataloader), MOST_ITERATIONS)
            self.assigner.assign_batch = self.assign_and_count

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Stop to count after an epoch, and give the hint."""
        if self.assigner is None:
            return
        self.iters_left -= 1
        if self.iters_left <= 0:
            threshold = self.assigner.pos_iou_thr
            self.after_train(runner)
            self.give_hint(runner, threshold)

    def after_train(self, runner: Runner) -> None:
        """Leave the assigner as it was; a run of less than an epoch gets no hint."""
        if self.assigner is not None:
            del self.assigner.assign_batch
            self.assigner = None

    def assign_and_count(self, *args: Any, **kwargs: Any) -> BatchAssignResult:
        """In place of the assigner's ``assign_batch``: the same, and its boxes are counted."""
        result = type(self.assigner).assign_batch(self.assigner, *args, **kwargs)
        counts = count_boxes(result, args[1].size(1), self.assigner.pos_iou_thr)
        self.counts = counts if self.counts is None else self.counts + counts
        return result

    def give_hint(self, runner: Runner, threshold: float) -> None:
        """Log a line if more than half of all ranks' boxes have their forced prior alone."""
        if self.counts is None:
            return
        counts = self.counts.clone()
        all_reduce(counts)
        forced, boxes = counts.tolist()
        if 2 * forced > boxes:
            folder = runner.cfg.get('work_dir', runner.work_dir)
            config = Path(folder, Path(runner.cfg.filename or 'CONFIG').name)
            runner.logger.warning(
                f'{forced / boxes:.0%} of the ground-truth boxes overlap no prior by an IoU of '
                f'{threshold:g}, and are learnt from one prior each. To fit the priors to them: '
                f'python tools/fit_priors.py {config}'
            )


def count_boxes(result: BatchAssignResult, num_gts: int, threshold: float) -> Tensor:
    """How many boxes are matched by their forced prior alone, and how many are matched: (2,).

    ``num_gts`` is G. A prior is not forced where its best IoU is at least the threshold.
    """
    gt_inds = result.gt_inds.clamp(min=0)  # (B, P)
    none = torch.zeros(len(gt_inds), num_gts + 1, device=gt_inds.device)
    matched = none.scatter(1, gt_inds, 1.0)[:, 1:]  # (B, G)
    close = (result.max_overlaps >= threshold).float()
    reached = none.scatter_reduce(1, gt_inds, close, 'amax')[:, 1:]
    return torch.stack([(matched * (1 - reached)).sum(), matched.sum()])
