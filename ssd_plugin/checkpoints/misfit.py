"""Loading all weights of a model or none, and saying why weights are not the model's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmdet.models.detectors.base import BaseDetector

from ssd_plugin.checkpoints.convert import agreement, recognise
from ssd_plugin.checkpoints.files import Weights
from ssd_plugin.checkpoints.layouts import Layout
from ssd_plugin.checkpoints.scores import priors_per_cell, scores_per_prior
from ssd_plugin.errors import CheckpointError, shorten

REMEDY = 'use the config that it was trained with, or train from it by tools/train.py --load-from'


def load_weights(model: BaseDetector, weights: Weights) -> None:
    """Load weights into a model that has exactly these parameters.

    Batch normalisation's ``num_batches_tracked``, which only an average over all batches reads, may
    be missing.

    Raises:
        CheckpointError: A parameter is missing, has another shape, or is not one of the model's.
    """
    check_kind(model, weights)
    try:
        missing, unknown = model.load_state_dict(weights.state, strict=False)
    except RuntimeError as error:  # a list of the shapes that differ
        first = str(error).splitlines()[1].strip().rstrip('.')
        raise misfit(weights, first) from error
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    for names, problem in ((missing, 'it has no'), (unknown, 'the model has no')):
        if names:
            more = f' and {len(names) - 1} other parameters' if names[1:] else ''
            raise misfit(weights, f'{problem} {names[0]}{more}')


def check_kind(model: BaseDetector, weights: Weights) -> None:
    """Check that weights for a model with ``bbox_head`` are such a model's, in MMDetection's names.

    Raises:
        CheckpointError: They are another implementation's, or not a detector's.
    """
    if not hasattr(model, 'bbox_head') or any(n.startswith('bbox_head.') for n in weights.state):
        return
    layout = _layout(weights, at_least=0.5)
    if layout:
        raise CheckpointError(
            f'{weights.source} is {layout} as {layout.source} names it: convert it first, '
            f'python tools/convert_checkpoint.py {layout.source} {weights.source} OUT.pth'
        )
    parts = shorten((name.split('.')[0] for name in weights.state), most=6)
    raise misfit(
        weights,
        f"it has no bbox_head, but {parts}; a backbone's weights are loaded by "
        "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...)",
    )


def check_head(model: BaseDetector, weights: Weights, classes: Sequence[str] | None) -> None:
    """Check that weights have a model's levels, priors and number of scores of a prior.

    ``classes`` are the data set's, for the error. Heads that are not known are not checked.

    Raises:
        CheckpointError: Numbers differ, or those of the scores and of the class names in the file.
    """
    check_priors(model, weights)
    found, expected = scores_per_prior(weights.state), scores_per_prior(model.state_dict())
    if not found or not expected or expected != model.bbox_head.cls_out_channels:
        return
    head = model.bbox_head
    background = expected - head.num_classes
    check_names(weights, found)
    if weights.classes and found - len(weights.classes) != background:
        sides = 'with', 'without'
        one, other = sides if background else sides[::-1]
        raise misfit(weights, f'its scores are {other} background, those of the config {one}')
    if found != expected:
        raise CheckpointError(
            f'{weights.source} has {_number(found - background, weights.classes)}, '
            f'the config {_number(head.num_classes, classes)}: {REMEDY}'
        )


def check_priors(model: BaseDetector, weights: Weights) -> None:
    """Check that weights have a model's levels and priors.

    Raises:
        CheckpointError: It says the numbers of both.
    """
    here, there = priors_per_cell(model.state_dict()), priors_per_cell(weights.state)
    if here and there and here != there:
        raise misfit(weights, f'it has {_levels(there)}, the config {_levels(here)}')


def check_names(weights: Weights, outputs: int) -> None:
    """Check that a checkpoint names as many classes as it has scores, with or without background.

    Raises:
        CheckpointError: It does not.
    """
    if weights.classes and outputs - len(weights.classes) not in (0, 1):
        raise CheckpointError(
            f'{weights.source} names {len(weights.classes)} classes '
            f'({shorten(weights.classes)}), but has {outputs} scores of a prior'
        )


def misfit(weights: Weights, problem: str) -> CheckpointError:
    """The error for weights that are not a model's, with what they are of as far as it is known."""
    return CheckpointError(f'{weights.source} does not fit the config: {problem}{_origin(weights)}')


def _origin(weights: Weights) -> str:
    """What a checkpoint is of: by what it says, or else by the names of its parameters."""
    meta = weights.meta
    if meta.get('source') and meta.get('config'):  # of tools/convert_checkpoint.py
        return f'; it is {meta["source"]}, of {meta["config"]}'
    experiment = re.sub(r'_\d{8}_\d{6}$', '', str(meta.get('experiment_name') or ''))
    if experiment:
        return f'; it was trained by {experiment}'
    layout = _layout(weights, at_least=1)
    return f'; it is an {layout.architecture}, as {layout.config(0)}' if layout else ''


def _layout(weights: Weights, at_least: float) -> Layout | None:
    """The layout with which the names of parameters agree to this share, if there is one."""
    try:
        layout = recognise(weights.state)
    except CheckpointError:
        return None
    return layout if agreement(weights.state, layout) >= at_least else None


def _levels(priors: list[int]) -> str:
    return f'{len(priors)} levels of {", ".join(map(str, priors))} priors a cell'


def _number(number: int, classes: Sequence[str] | None) -> str:
    return f'{number} classes' + (f' ({shorten(classes)})' if classes else '')
