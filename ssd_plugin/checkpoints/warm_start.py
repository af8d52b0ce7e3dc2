"""Weights to begin a training with: all of a detector's, but for the scores of new classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.detectors.base import BaseDetector

from ssd_plugin.checkpoints.classes import find_classes
from ssd_plugin.checkpoints.files import Weights
from ssd_plugin.checkpoints.misfit import check_kind, check_names, check_priors, misfit
from ssd_plugin.checkpoints.scores import (
    class_layers,
    scores_per_prior,
    split_scores,
)
from ssd_plugin.errors import ConfigError, shorten


def warm_start(
    model: BaseDetector, weights: Weights, classes: Sequence[str] | None
) -> tuple[Weights, str]:
    """Weights for a model that learns other classes, and a line about them.

    1. The scores of classes that the checkpoint names, up to case and blanks, are the checkpoint's.
    2. So are those of background, where both have one.
    3. The others are the model's own, as it has been initialised.
    4. All other parameters are the checkpoint's.

    A checkpoint without names is taken to have the same classes if it has as many.

    Args:
        model: A detector with one ``bbox_head``, initialised.
        weights: The checkpoint's.
        classes: The names of the classes to learn.

    Raises:
        CheckpointError: Its levels or priors are others, or it is not a detector's.
        ConfigError: The model has another number of classes than there are names.
    """
    check_kind(model, weights)
    check_priors(model, weights)
    fresh, outputs = model.state_dict(), model.bbox_head.cls_out_channels
    known_outputs = scores_per_prior(weights.state)
    if scores_per_prior(fresh) != outputs or known_outputs is None:
        raise misfit(weights, 'its class branch is another')
    check_names(weights, known_outputs)
    sources = _sources(weights, model, classes, known_outputs)

    # Indices into the model's own scores of a prior followed by the checkpoint's.
    order = [c if source is None else outputs + source for c, source in enumerate(sources)]
    state = dict(weights.state)
    for name in class_layers(fresh):
        if name not in state:
            continue  # which loading will say
        own, known = fresh[name].cpu(), state[name]
        if own.shape[1:] != known.shape[1:]:
            continue
        both = [split_scores(own, outputs), split_scores(known, known_outputs)]
        state[name] = torch.cat(both, dim=1)[:, order].flatten(0, 1)  # (A * K, ...)
    line = _describe(weights, model, classes, sources)
    return weights._replace(state=state), line


def _sources(
    weights: Weights, model: BaseDetector, classes: Sequence[str] | None, known_outputs: int
) -> list[int | None]:
    """For each of the model's scores of a prior its index among the checkpoint's, if it has one."""
    number = model.bbox_head.num_classes
    background = model.bbox_head.cls_out_channels - number
    if classes and len(classes) != number:
        found = f'{number}, and the training data have {len(classes)} classes'
        raise ConfigError(f'model.bbox_head.num_classes is {found}')
    known_number = len(weights.classes) if weights.classes else known_outputs - background
    if known_outputs - known_number != background:
        # A score of softmax, which compares with background, is none of a sigmoid, and vice versa.
        return [None] * (number + background)
    sources: list[int | None] = [None] * number
    if weights.classes and classes:
        sources = find_classes(classes, weights.classes)
    elif known_number == number:
        sources = list(range(number))
    return sources + [known_number] * background


def _describe(
    weights: Weights, model: BaseDetector, classes: Sequence[str] | None, sources: list[int | None]
) -> str:
    number = model.bbox_head.num_classes
    names = list(classes or map(str, range(number)))
    known = [name for name, source in zip(names, sources) if source is not None]
    new = [name for name, source in zip(names, sources) if source is None]
    text = f'Warm start from {weights.source}'
    if not weights.classes:
        text += ', which names no classes'
    parts = [f'{len(known)} of {number} classes known' + (f' ({shorten(known)})' if known else '')]
    if new:
        parts.append(f'{len(new)} new ({shorten(new)})')
    if len(sources) > number:
        parts.append('background ' + ('new' if sources[-1] is None else 'kept'))
    others = len(weights.state) - len(class_layers(weights.state))
    return f'{text}: {", ".join(parts)}; {others} other parameters kept'
