"""A config and a checkpoint as a detector to export."""

from __future__ import annotations

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ssd_plugin.checkpoints.files import read
from ssd_plugin.checkpoints.load import class_names, load_whole
from ssd_plugin.errors import CheckpointError


def load_detector(cfg: Config, checkpoint: str) -> tuple[SingleStageDetector, tuple[str, ...]]:
    """The detector, in evaluation mode on the CPU, and the names of its classes.

    The names are the checkpoint's, or the test set's where it has none.

    Raises:
        ValueError: If the checkpoint is none, or not one of this config's; if the number of
            classes is not that of the names.
        OSError: If it can't be read.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    detector = MODELS.build(cfg.model).eval()
    state, meta = read(checkpoint)
    load_whole(detector, state, checkpoint)
    unknown = sorted(state.keys() - detector.state_dict().keys())
    if unknown:
        raise CheckpointError(f'{checkpoint} does not fit the config: it has {unknown[0]}, too')
    return detector, tuple(class_names(detector, meta, cfg))
