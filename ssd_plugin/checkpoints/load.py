"""A detector from a config and a checkpoint: all of its weights, or an error."""

from __future__ import annotations

from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio import load
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from ssd_plugin.checkpoints.classes import compare_classes, same_classes
from ssd_plugin.checkpoints.files import Weights
from ssd_plugin.checkpoints.misfit import REMEDY, check_head, load_weights
from ssd_plugin.checkpoints.scores import CLASS_LAYER, class_layers, select_scores
from ssd_plugin.datasets import CheckedCocoDataset
from ssd_plugin.datasets.config import plain_test_set
from ssd_plugin.errors import CheckpointError, shorten


def load_detector(cfg: Config, checkpoint: str) -> tuple[BaseDetector, tuple[str, ...]]:
    """Build a config's detector with the weights of a checkpoint, to detect with it.

    Args:
        cfg: The config.
        checkpoint: A path or an address.

    Returns:
        The detector, in evaluation mode on the CPU, and the names of its classes by label: the
        checkpoint's, in its order, or the test data set's if the checkpoint has none.

    Raises:
        CheckpointError: The file is not a checkpoint, or not one of this detector, or its classes
            are others than the test data set's.
        OSError: The file can't be read.
    """
    weights, detector = Weights.read(checkpoint), build_detector(cfg)
    configured = dataset_classes(plain_test_set(cfg))
    check_head(detector, weights, configured)
    load_weights(detector, weights)
    if weights.classes and configured:
        class_order(weights, configured)
    classes = weights.classes or configured or ()
    number = getattr(getattr(detector, 'bbox_head', None), 'num_classes', len(classes))
    if len(classes) != number:
        remedy = "set test_dataloader.dataset.metainfo.classes to the classes' names"
        found = f'{number} classes of the model and {len(classes)} names of'
        raise CheckpointError(f'{found} the test data set: {remedy}')
    return detector, classes


def load_for_evaluation(cfg: Config, checkpoint: str, dataset: Any) -> BaseDetector:
    """Build a config's detector with weights, to compare its detections with ground truth.

    Args:
        cfg: The config.
        checkpoint: A path or an address.
        dataset: A data set, or its config: its order of the classes is that of the labels.

    Returns:
        The detector, in evaluation mode on the CPU.

    Raises:
        CheckpointError: As for :func:`load_detector`.
        OSError: The file can't be read.
    """
    weights, detector = Weights.read(checkpoint), build_detector(cfg)
    load_weights(detector, in_order_of(detector, weights, dataset))
    return detector


def build_detector(cfg: Config) -> BaseDetector:
    """A config's detector, in evaluation mode, whose weights are to be loaded."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    settings = dict(cfg.model)
    settings.pop('pretrained', None)  # the checkpoint has all weights
    return MODELS.build(settings).eval()


def dataset_classes(dataset: Any) -> tuple[str, ...] | None:
    """The class names of a data set, or of one that is built from its config without its files."""
    if isinstance(dataset, dict):
        dataset = DATASETS.build(dict(dataset, lazy_init=True))
    return tuple(dataset.metainfo.get('classes') or ()) or None


def label_names(dataset: BaseDataset) -> tuple[str, ...] | None:
    """The class names of a data set that has been read, by label.

    MMDetection's ``CocoDataset`` numbers labels in the order of its json, whatever order the names
    have in the config; ``CheckedCocoDataset`` says its names in that order.
    """
    if not isinstance(dataset, CocoDataset) or isinstance(dataset, CheckedCocoDataset):
        return dataset_classes(dataset)
    names = {entry['id']: entry['name'] for entry in load(dataset.ann_file)['categories']}
    return tuple(names[number] for number in dataset.cat_ids)


def in_order_of(model: BaseDetector, weights: Weights, dataset: Any) -> Weights:
    """Weights whose scores are in the order of a data set's classes, so that its labels hold.

    The data set numbers its labels, and metrics read numbers from its files: what can be put in
    order are the weights. A checkpoint that names no classes is taken to have the right order.

    Raises:
        CheckpointError: The classes are others, or another number, or the model's head has no
            class branch that is known.
    """
    classes = dataset_classes(dataset)
    check_head(model, weights, classes)
    if not weights.classes or not classes or weights.classes == classes:
        return weights
    order = class_order(weights, label_names(dataset) or classes)
    if order == sorted(order):
        return weights
    if not class_layers(weights.state):
        raise CheckpointError(
            f'{weights.source} has the classes in another order, {shorten(weights.classes)}: set '
            'metainfo.classes of the data set to it'
        )
    MMLogger.get_current_instance().warning(
        f'{weights.source} has its classes in another order, {shorten(weights.classes)}: its '
        "scores are put into the data set's"
    )
    outputs = model.bbox_head.cls_out_channels
    order += range(len(order), outputs)  # background
    state = {
        name: select_scores(value, outputs, order) if CLASS_LAYER.fullmatch(name) else value
        for name, value in weights.state.items()
    }
    return weights._replace(state=state)


def class_order(weights: Weights, classes: tuple[str, ...]) -> list[int]:
    """For each class of a data set its index among the checkpoint's.

    Names that differ in case and blanks alone are the same, with a warning.

    Raises:
        CheckpointError: They are not the same names.
    """
    known = weights.classes or ()
    order = same_classes(classes, known)
    if order is None:
        raise CheckpointError(f'{compare_classes(weights.source, known, classes)}: {REMEDY}')
    differing = [(known[i], name) for name, i in zip(classes, order) if name != known[i]]
    if differing:
        pairs = [f'{theirs!r} for {ours!r}' for theirs, ours in differing]
        text = f'{weights.source} writes classes in another way: {shorten(pairs)}'
        MMLogger.get_current_instance().warning(text)
    return order
