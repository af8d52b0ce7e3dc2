"""Weights of other SSDs and for them: recognising a state dict, checking and converting it.

What the implementations call their parameters, and how they order them, is in `layouts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mode

from ssd_plugin.checkpoints.classes import classes_in
from ssd_plugin.checkpoints.files import State
from ssd_plugin.checkpoints.layouts import LAYOUTS, Layout
from ssd_plugin.checkpoints.scores import CLASS_LAYER, select_scores, split_scores
from ssd_plugin.errors import CheckpointError

# The score of torchvision's COCO outputs that stand for no class. Softmax makes exactly 0 of it.
UNUSED_SCORE = -1e4


def recognise(state: State, source: str = 'auto') -> Layout:
    """The layout of a source whose parameter names agree best with a state dict's.

    Raises:
        CheckpointError: ``source`` is 'auto', and they agree with no layout's.
    """

    candidates = [layout for layout in LAYOUTS if source in ('auto', layout.source)]
    # The first that fits ends the search: each takes building a model.
    fitting = (layout for layout in candidates if agreement(state, layout) == 1)
    best = next(fitting, None) or max(candidates, key=lambda layout: agreement(state, layout))
    if source == 'auto' and not agreement(state, best):
        known = ', '.join(map(str, LAYOUTS))
        raise CheckpointError(f'{next(iter(state))!r} is a parameter in none of: {known}')
    return best


def agreement(state: State, layout: Layout) -> float:
    """The share of a state dict's and a layout's parameter names that both have, 0 to 1."""
    names = layout.parameters(1).keys()
    return len(names & state.keys()) / len(names | state.keys())


def check(state: State, layout: Layout) -> int:
    """Check a state dict against a layout; returns the number of scores of a prior, K.

    Raises:
        CheckpointError: A parameter is missing, has another shape, or doesn't belong there.
    """
    per_class = {  # channels of each class layer for one class
        theirs: shape[0]
        for theirs, (ours, shape) in layout.parameters(1).items()
        if CLASS_LAYER.fullmatch(ours)
    }
    numbers = [state[name].shape[:1].numel() / n for name, n in per_class.items() if name in state]
    # If layers disagree, the majority is right.
    outputs = mode(numbers) if numbers else 0.0
    known = outputs >= 1 and outputs.is_integer()
    parameters = layout.parameters(int(outputs) if known else 1)
    for name, (_, shape) in parameters.items():
        found = tuple(state[name].shape) if name in state else 'missing'
        if found != shape:
            unit = '' if known or name not in per_class else f'{shape[0]} x outputs; of 1: '
            raise CheckpointError(f'{name}: {layout} has shape {unit}{shape}, this file: {found}')
    for name in state:
        if name not in parameters:
            raise CheckpointError(f'{name}: {layout} has no such parameter')
    return int(outputs)


# --- conversion ------------------------------------------------------------------------------


def convert(
    state: State, layout: Layout, meta: dict | None = None, classes: Sequence[str] | None = None
) -> dict:
    """An MMEngine checkpoint of this plugin's detector from another implementation's weights.

    ``meta`` is what the file says beside the weights; ``classes`` name the classes where it doesn't
    say them. The checkpoint has ``state_dict``, and ``meta`` with ``source``, ``config``,
    ``num_classes`` and, where the names are known, ``dataset_meta``.

    Raises:
        CheckpointError: The state dict isn't what the layout says, or the names are not as many
            as its classes.
    """
    outputs = check(state, layout)
    meta = dict(meta or {})
    classes = tuple(classes or classes_in(meta) or layout.classes(outputs) or ())
    order = layout.class_order(outputs, classes)
    num_classes = len(order) - 1
    if classes and len(classes) != num_classes:
        found = f'{outputs} scores, which are {num_classes} classes and background'
        raise CheckpointError(f'{len(classes)} class names for {found}')
    converted = {}
    for theirs, (ours, _) in layout.parameters(outputs).items():
        value = state[theirs]
        if CLASS_LAYER.fullmatch(ours):
            value = select_scores(value, outputs, order)
        converted[ours] = value
    if not {'source', 'config', 'num_classes'} <= meta.keys():
        # Else it is of an earlier conversion, which knew better.
        meta.update(source=str(layout), config=layout.config(outputs))
    meta['num_classes'] = num_classes
    if classes:
        meta['dataset_meta'] = dict(classes=classes)
    return dict(meta=meta, state_dict=converted)


def to_torchvision(checkpoint: dict) -> State:
    """torchvision's state dict from a checkpoint of :func:`convert`, its inverse.

    A detector of COCO's 80 classes gets torchvision's 91 outputs, of which those that stand for
    no class never have a score.

    Raises:
        CheckpointError: torchvision has no such architecture.
    """
    state, classes = checkpoint['state_dict'], classes_in(checkpoint['meta'])
    architecture = recognise(state, 'mmdet').architecture
    layouts = {layout.architecture: layout for layout in LAYOUTS if layout.source == 'torchvision'}
    if architecture not in layouts:
        raise CheckpointError(f'torchvision has no {architecture}')
    layout, num_scores = layouts[architecture], checkpoint['meta']['num_classes'] + 1
    is_coco = num_scores == 81 and classes == layout.classes(91)
    outputs = 91 if is_coco else num_scores
    order = layout.class_order(outputs, classes)
    converted = {}
    for theirs, (ours, shape) in layout.parameters(outputs).items():
        value = state[ours]
        if CLASS_LAYER.fullmatch(ours):
            unused = UNUSED_SCORE if theirs.endswith('bias') else 0
            scores = split_scores(value, num_scores)
            value = value.new_full(shape, unused)
            split_scores(value, outputs)[:, order] = scores
        converted[theirs] = value
    return converted
