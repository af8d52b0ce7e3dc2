"""An evaluation of exactly the weights in the checkpoint, or none."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from ssd_plugin.checkpoints.files import weights_in
from ssd_plugin.checkpoints.load import load_weights


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuse a checkpoint that does not have exactly the parameters of the model.

    MMEngine warns and goes on with what fits: an evaluation then is of a model with random
    weights in it. For testing only: training may well begin with part of a checkpoint.

    Does nothing with ``FlexibleRunner``, whose models may be in shards.

    Raises:
        CheckpointError: See :func:`~ssd_plugin.checkpoints.load.load_weights`.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the weights; MMEngine, which calls this first, then loads them again."""
        if isinstance(runner, Runner):
            model = runner.model
            while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
                model = model.module
            source = runner._load_from
            load_weights(model, weights_in(checkpoint, source), source)
