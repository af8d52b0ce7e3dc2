"""Which priors of a training sample are matched to which ground-truth box."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmdet.structures.bbox import bbox_overlaps

from ssd_plugin.analysis.matches import Matches
from ssd_plugin.datasets.samples import Sample
from ssd_plugin.visualization import style
from ssd_plugin.visualization.detections import draw_boxes

GT = style.Stroke(style.BLACK, width=2.4)
MAX_BOXES, COLUMNS = 8, 4  # panels of single ground-truth boxes
BIG, SMALL = 5.2, 2.6  # sides of panels, in inches


def describe(sample: Sample, matches: Matches) -> str:
    """The counts, in a sentence."""
    matched, ignored = int((matches.gt_inds > 0).sum()), int((matches.gt_inds < 0).sum())
    parts = [f'{len(sample.bboxes)} objects']
    parts += [f'{matched} of {len(matches.priors)} priors matched to them']
    if ignored:
        parts.append(f'{ignored} ignored')
    if matches.mined is not None:
        parts.append(f'{int(matches.mined.sum())} hard negatives mined')
    return ', '.join(parts)


def draw_matches(
    sample: Sample, matches: Matches, classes: Sequence[str], strides: Sequence[float], title: str
) -> Figure:
    """Draw the boxes and the hard negatives on the whole image, then each box with its priors.

    Where no negatives are known, all matched priors are shown in their place. The legend names
    the stride of each level.
    """
    styles = style.strokes(len(strides))
    shown = _some_of_each_size(sample.bboxes)
    height, width = sample.image.shape[:2]
    big = BIG * height / width + 0.5
    small = (SMALL + 0.5) * ceil(len(shown) / COLUMNS)
    figure = Figure(figsize=(2 * BIG, big + small + 1.3), layout='constrained')
    halves: Any = figure.subfigures(2, 1, height_ratios=[big, max(small, 0.1)])
    above, below = halves
    left, right = above.subplots(1, 2)

    style.show_image(left, _draw_objects(sample, classes))
    left.set_title(f'{len(sample.labels)} objects in the augmented sample', fontsize=style.FONT + 2)

    what, chosen = 'hard negatives', matches.mined
    if chosen is None:
        what, chosen = 'matched priors', matches.gt_inds > 0
    style.show_image(right, sample.image)
    style.add_boxes(right, sample.bboxes, GT, zorder=4)
    _draw_priors(right, matches, chosen, styles, 1.1)
    by_level = np.bincount(matches.levels[chosen], minlength=len(styles))
    numbers = ', '.join(map(str, by_level))
    right.set_title(f'{by_level.sum()} {what}, by level {numbers}', fontsize=style.FONT + 2)

    if shown:
        for axes, g in zip(style.add_panels(below, len(shown), COLUMNS), shown):
            _draw_box_with_priors(axes, sample, matches, g, classes, styles)
    handles = [GT.handle('object')]
    for level, (stroke, stride) in enumerate(zip(styles, strides)):
        handles.append(stroke.handle(f'prior, level {level} (stride {stride:g})'))
    columns = ceil(len(handles) / ceil(len(handles) / 5))
    title = f'{title}\n{describe(sample, matches)}'
    style.add_title_and_legend(figure, title, handles, columns)
    return figure


def _draw_objects(sample: Sample, classes: Sequence[str]) -> np.ndarray:
    """The image (h, w, 3) uint8 RGB with its numbered objects, in twice the pixels of its panel."""
    scale = 2 * BIG * style.DPI / sample.image.shape[1]
    large = cv2.resize(sample.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    texts = [f'{g} {classes[label]}' for g, label in enumerate(sample.labels)]
    colors = [style.BLACK] * len(texts)
    return draw_boxes(large[..., ::-1], sample.bboxes * scale, texts, colors)[..., ::-1]


def _some_of_each_size(bboxes: np.ndarray) -> list[int]:
    """Indices of the boxes that get a panel: all, or some evenly spaced from large to small."""
    order = np.argsort(-(bboxes[:, 2:] - bboxes[:, :2]).prod(1), kind='stable')
    places = np.linspace(0, len(order) - 1, min(MAX_BOXES, len(order))).round().astype(int)
    return sorted(order[places].tolist())


def _draw_priors(
    axes: Axes, matches: Matches, chosen: np.ndarray, styles: Sequence[style.Stroke], width: float
) -> None:
    """Draw the chosen priors, (P,) bool, each in the stroke of its level."""
    for level, stroke in enumerate(styles):
        priors = matches.priors[chosen & (matches.levels == level)]
        style.add_boxes(axes, priors, stroke._replace(width=width), rim=False)


def _draw_box_with_priors(
    axes: Axes,
    sample: Sample,
    matches: Matches,
    g: int,
    classes: Sequence[str],
    styles: Sequence[style.Stroke],
) -> None:
    """Draw ground-truth box g with its priors, and crop the image to them."""
    style.show_image(axes, sample.image)
    matched = matches.gt_inds == g + 1
    box, priors = sample.bboxes[g : g + 1], matches.priors[matched]
    boxes = np.concatenate([box, priors])
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    half = (high - low).max() / 2 * 1.08
    x, y = (low + high) / 2
    axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half), facecolor='#f2f2f2')
    _draw_priors(axes, matches, matched, styles, 1.2)
    style.add_boxes(axes, box, GT, zorder=4)
    width, height = box[0, 2:] - box[0, :2]
    title = f'{g} {classes[sample.labels[g]]}, {width:.0f} x {height:.0f} px\n'
    title += '1 prior' if len(priors) == 1 else f'{len(priors)} priors'
    if len(priors):
        ious = bbox_overlaps(torch.from_numpy(box).float(), torch.from_numpy(priors).float())
        title += f', best IoU {ious.max():.2f}'
    axes.set_title(title, fontsize=style.FONT)
