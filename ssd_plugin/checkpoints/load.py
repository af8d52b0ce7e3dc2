"""A checkpoint into a config's model, whole or not at all, and the names of its classes."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.registry import DATASETS
from mmengine.config import Config
from torch import nn

from ssd_plugin.checkpoints.files import State, classes_in
from ssd_plugin.datasets.config import plain_test_set
from ssd_plugin.errors import CheckpointError


def load_whole(model: nn.Module, state: State, source: str) -> None:
    """Load weights; what is in the file beyond them doesn't matter.

    Args:
        model: To load them into.
        state: The weights.
        source: What the message calls the file.

    Raises:
        CheckpointError: A parameter is missing, or has another shape.
    """
    try:
        missing = model.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:  # a list of the shapes that differ
        first = str(error).splitlines()[1].strip().rstrip('.')
        raise CheckpointError(f'{source} does not fit the config: {first}') from error
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    if missing:
        number = f' and {len(missing) - 1} other parameters' if missing[1:] else ''
        raise CheckpointError(f'{source} does not fit the config: it has no {missing[0]}{number}')


def class_names(model: nn.Module, meta: dict, cfg: Config) -> Sequence[str]:
    """The names of a model's classes: the checkpoint's, or the test data set's if it has none.

    Args:
        model: The detector.
        meta: Of the checkpoint.
        cfg: Of the detector; its data set is not read.

    Raises:
        CheckpointError: They are not as many as the model's classes.
    """
    classes = classes_in(meta)
    if not classes:
        dataset = DATASETS.build(dict(plain_test_set(cfg), lazy_init=True))
        classes = tuple(dataset.metainfo.get('classes') or ())
    number = getattr(getattr(model, 'bbox_head', None), 'num_classes', len(classes))
    if len(classes) != number:
        raise CheckpointError(
            f'{number} classes of the model and {len(classes)} names: the checkpoint names none, '
            "set test_dataloader.dataset.metainfo.classes to the classes' names"
        )
    return classes
