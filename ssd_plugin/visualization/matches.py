"""Draw what :mod:`.matches` has found."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_plugin.analysis.matches import Matches
from ssd_plugin.datasets.samples import Sample
from ssd_plugin.models.boxes import pairwise_iou
from ssd_plugin.visualization.style import (
    BLACK,
    FONT,
    Stroke,
    draw_boxes,
    show_image,
    strokes,
    write_labels,
)

OBJECT = Stroke(BLACK, width=2.4)
MAX_OBJECTS, COLUMNS = 8, 4
BIG, SMALL = 5.2, 2.6  # sides of panels, in inches


def describe(sample: Sample, matches: Matches) -> str:
    """The counts, in a sentence."""
    matched = int((matches.gt_inds > 0).sum())
    ignored = int((matches.gt_inds < 0).sum())
    text = (
        f'{len(sample.bboxes)} objects, {matched} of {len(matches.priors)} priors matched to them'
    )
    if ignored:
        text += f', {ignored} ignored'
    if matches.mined is not None:
        text += f', {int(matches.mined.sum())} hard negatives mined'
    return text


def draw_matches(
    sample: Sample, matches: Matches, classes: Sequence[str], strides: Sequence[float], title: str
) -> Figure:
    """Objects and hard negatives on the whole image, then each object with its priors.

    Where no negatives are known, all matched priors are in their place.

    Args:
        sample: The image and its objects.
        matches: Of its priors.
        classes: Names of all classes.
        strides: Of each level, for the legend.
        title: Of the whole.
    """
    styles = strokes(len(strides))
    shown = _largest(sample, MAX_OBJECTS)
    rows = ceil(len(shown) / COLUMNS)
    height, width = sample.image.shape[:2]
    big = BIG * height / width + 0.5
    small = (SMALL + 0.5) * rows
    figure = Figure(figsize=(2 * BIG, big + small + 1.3), layout='constrained')
    above, below = figure.subfigures(2, 1, height_ratios=[big, max(small, 0.1)])
    left, right = above.subplots(1, 2)
    _draw_objects(left, sample, classes)
    if matches.mined is None:
        _draw_chosen(right, sample, matches, matches.gt_inds > 0, styles, 'matched priors')
    else:
        _draw_chosen(right, sample, matches, matches.mined, styles, 'hard negatives')
    if shown:
        panels = below.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axes in panels[len(shown) :]:
            axes.axis('off')
        for axes, g in zip(panels, shown):
            _draw_matched(axes, sample, matches, g, classes, styles)
    figure.suptitle(f'{title}\n{describe(sample, matches)}', fontsize=12, fontweight='bold')
    handles = [OBJECT.handle('object')]
    handles += [
        style.handle(f'prior, level {k} (stride {stride:g})')
        for k, (style, stride) in enumerate(zip(styles, strides))
    ]
    columns = ceil(len(handles) / ceil(len(handles) / 5))
    figure.legend(
        handles=handles, loc='outside lower center', ncols=columns, frameon=False, fontsize=FONT + 1
    )
    return figure


def _largest(sample: Sample, number: int) -> list[int]:
    """Which objects are shown by themselves: all, or some evenly spaced from large to small."""
    order = np.argsort(-(sample.bboxes[:, 2:] - sample.bboxes[:, :2]).prod(1), kind='stable')
    places = np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)
    return sorted(order[places].tolist())


def _draw_objects(axes: Axes, sample: Sample, classes: Sequence[str]) -> None:
    show_image(axes, sample.image)
    draw_boxes(axes, sample.bboxes, OBJECT)
    texts = [f'{g} {classes[label]}' for g, label in enumerate(sample.labels)]
    points = BIG * 72 / sample.image.shape[1]
    write_labels(axes, sample.bboxes, texts, [BLACK] * len(texts), points)
    axes.set_title(f'{len(texts)} objects in the augmented sample', fontsize=FONT + 2)


def _draw_chosen(
    axes: Axes,
    sample: Sample,
    matches: Matches,
    chosen: np.ndarray,
    styles: Sequence[Stroke],
    what: str,
) -> None:
    """Those priors (P,) bool, and how many there are of each level."""
    show_image(axes, sample.image)
    draw_boxes(axes, sample.bboxes, OBJECT, zorder=4)
    for level, style in enumerate(styles):
        here = chosen & (matches.levels == level)
        draw_boxes(axes, matches.priors[here], style._replace(width=1.1), rim=False)
    by_level = np.bincount(matches.levels[chosen], minlength=len(styles))
    axes.set_title(
        f'{by_level.sum()} {what}, by level {", ".join(map(str, by_level))}', fontsize=FONT + 2
    )


def _draw_matched(
    axes: Axes,
    sample: Sample,
    matches: Matches,
    g: int,
    classes: Sequence[str],
    styles: Sequence[Stroke],
) -> None:
    """One object with its priors, the image cut to them."""
    show_image(axes, sample.image)
    matched = matches.gt_inds == g + 1
    boxes = np.concatenate([sample.bboxes[g : g + 1], matches.priors[matched]])
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    half = (high - low).max() / 2 * 1.08
    x, y = (low + high) / 2
    axes.set_xlim(x - half, x + half)
    axes.set_ylim(y + half, y - half)
    axes.set_facecolor('#f2f2f2')
    for level, style in enumerate(styles):
        chosen = matched & (matches.levels == level)
        draw_boxes(axes, matches.priors[chosen], style._replace(width=1.2), rim=False)
    draw_boxes(axes, boxes[:1], OBJECT, zorder=4)
    width, height = boxes[0, 2:] - boxes[0, :2]
    overlaps = pairwise_iou(*map(torch.from_numpy, (boxes[None, :1], boxes[1:])))[0, 0]
    number = '1 prior' if len(overlaps) == 1 else f'{len(overlaps)} priors'
    best = f', best IoU {overlaps.max():.2f}' if len(overlaps) else ''
    axes.set_title(
        f'{g} {classes[sample.labels[g]]}, {width:.0f} x {height:.0f} px\n{number}{best}',
        fontsize=FONT,
    )
