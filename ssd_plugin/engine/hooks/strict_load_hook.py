"""A run that begins with the weights of a checkpoint, as they are meant, or not at all."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner

from ssd_plugin.checkpoints.files import Weights
from ssd_plugin.checkpoints.load import dataset_classes, in_order_of
from ssd_plugin.checkpoints.misfit import load_weights
from ssd_plugin.checkpoints.warm_start import warm_start
from ssd_plugin.errors import CheckpointError, shorten


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Fit the weights that a run begins with to its model and classes, or refuse them.

    MMEngine warns and goes on with what fits: an evaluation then is of a model with random
    weights in it, or of classes in another order.

    - An evaluation takes a checkpoint that has exactly the parameters and the classes of the model,
      and puts its scores in the order of the data set's classes.
    - A training begins with all weights but the scores of classes that the checkpoint doesn't know;
      a line says which. See :func:`~ssd_plugin.checkpoints.warm_start.warm_start`. Detectors that
      have no ``bbox_head``, such as those of two stages, begin as MMEngine has it.
    - A training that resumes takes a checkpoint of a training, with exactly the parameters and the
      classes of the model.

    Does nothing with ``FlexibleRunner``, whose models may be in shards.

    Raises:
        CheckpointError: The weights don't fit, or are of other classes.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which copies the weights

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the weights; MMEngine, which calls this first, then loads them again."""
        if not isinstance(runner, Runner):
            return
        model = unwrap(runner.model)
        weights = Weights.loaded(checkpoint, runner._load_from)
        if runner._resume:
            require_training(checkpoint, weights)
            require_classes(weights, dataset_classes(runner.train_loop.dataloader.dataset))
        elif isinstance(runner._train_loop, BaseLoop):  # it is built when training starts
            if not hasattr(model, 'bbox_head'):
                return
            classes = dataset_classes(runner.train_loop.dataloader.dataset)
            weights, line = warm_start(model, weights, classes)
            runner.logger.warning(line)
        else:
            loop = runner.test_loop if isinstance(runner._test_loop, BaseLoop) else runner.val_loop
            weights = in_order_of(model, weights, loop.dataloader.dataset)
        load_weights(model, weights)
        checkpoint['state_dict'] = weights.state


def require_training(checkpoint: dict, weights: Weights) -> None:
    """Check that a checkpoint has what a training goes on from.

    Raises:
        CheckpointError: It has weights alone.
    """
    lacking = [key for key in ('epoch', 'iter') if key not in weights.meta]
    lacking += [key for key in ('optimizer', 'message_hub') if key not in checkpoint]
    if lacking:
        raise CheckpointError(
            f'{weights.source} has no {lacking[0]}, so no training can go on from it: '
            'begin a new run with its weights by --load-from'
        )


def require_classes(weights: Weights, classes: tuple[str, ...] | None) -> None:
    """Check that a checkpoint's classes, if it has names, are the data's, in their order.

    Raises:
        CheckpointError: They are not.
    """
    if weights.classes and classes and weights.classes != classes:
        known, wanted = shorten(weights.classes), shorten(classes)
        raise CheckpointError(
            f'{weights.source} has the classes {known}, the training data {wanted}: '
            'begin a new run with its weights by --load-from'
        )


def unwrap(model: Any) -> BaseDetector:
    """The model inside those that distribute it, or have it see several views of an image."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
