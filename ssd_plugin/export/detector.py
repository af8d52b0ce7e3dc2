"""A config and a checkpoint as a detector to export."""

from __future__ import annotations

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..checkpoints import read
from .pictures import plain_test_set


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
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        reason = ' '.join(str(error).split(':', 1)[-1].split())
        raise ValueError(f'{checkpoint} does not fit the config: {reason:.300}') from error
    classes = meta.get('dataset_meta', {}).get('classes')
    if classes is None:
        classes = DATASETS.build(dict(plain_test_set(cfg), lazy_init=True)).metainfo['classes']
    num_classes = cfg.model.bbox_head.num_classes
    if len(classes) != num_classes:
        raise ValueError(f'{len(classes)} names of classes for num_classes={num_classes}')
    return detector, tuple(classes)
