"""A detector from a config and a checkpoint: all of its weights, or an error."""

from __future__ import annotations

from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.fileio import get_local_path
from mmengine.registry import init_default_scope
from torch import nn

from ssd_plugin.checkpoints.files import State, classes_in, read
from ssd_plugin.datasets.config import plain_test_set
from ssd_plugin.errors import CheckpointError


def load_detector(cfg: Config, checkpoint: str) -> tuple[BaseDetector, tuple[str, ...]]:
    """Build a config's detector with the weights of a checkpoint, a path or an address.

    Returns:
        The detector, in evaluation mode on the CPU, and the names of its classes: the
        checkpoint's, or the test data set's if the checkpoint has none.

    Raises:
        CheckpointError: The file is not a checkpoint, or not one of this detector, or names
            another number of classes.
        OSError: The file can't be read.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    settings = dict(cfg.model)
    settings.pop('pretrained', None)  # the checkpoint has all weights
    detector = MODELS.build(settings).eval()
    with get_local_path(checkpoint) as path:
        state, meta = read(path)
    load_weights(detector, state, checkpoint)
    return detector, class_names(detector, meta, cfg)


def load_weights(model: nn.Module, state: State, source: str) -> None:
    """Load weights from a file, ``source``, into a model that has exactly these parameters.

    Batch normalisation's ``num_batches_tracked``, which only an average over all batches reads, may
    be missing.

    Raises:
        CheckpointError: A parameter is missing, has another shape, or is not one of the model's.
    """
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a list of the shapes that differ
        first = str(error).splitlines()[1].strip().rstrip('.')
        raise CheckpointError(f'{source} does not fit the config: {first}') from error
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    for names, problem in ((missing, 'it has no'), (unknown, 'the model has no')):
        if names:
            more = f' and {len(names) - 1} other parameters' if names[1:] else ''
            raise CheckpointError(f'{source} does not fit the config: {problem} {names[0]}{more}')


def class_names(model: nn.Module, meta: dict, cfg: Config) -> tuple[str, ...]:
    """The names of a model's classes: the checkpoint's, or the test data set's if it has none.

    ``meta`` is the checkpoint's. The data set is built, but its files are not read.

    Raises:
        CheckpointError: There are not as many as the model has classes.
    """
    classes, source = classes_in(meta), 'the checkpoint'
    if not classes:
        dataset = DATASETS.build(dict(plain_test_set(cfg), lazy_init=True))
        classes = tuple(dataset.metainfo.get('classes') or ())
        remedy = "set test_dataloader.dataset.metainfo.classes to the classes' names"
        source = f'the test data set: {remedy}'
    number = getattr(getattr(model, 'bbox_head', None), 'num_classes', len(classes))
    if len(classes) != number:
        found = f'{number} classes of the model and {len(classes)} names of {source}'
        raise CheckpointError(found)
    return classes
