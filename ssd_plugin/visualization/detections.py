"""Detections drawn on their image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

from ssd_plugin.visualization.style import LETTER_WIDTH, PALETTE, label_places, text_color

LETTERS = 0.022  # height of letters, as a share of the image's mean side
LEAST = 10  # height of letters in pixels, below which they can't be read
PAD = 0.12  # of a label around its letters, as a share of their height


def draw(
    visualizer: DetLocalVisualizer, image: np.ndarray, found: InstanceData, classes: Sequence[str]
) -> np.ndarray:
    """Draw boxes and their labels with MMDetection's visualizer, the highest scores on top.

    It does not use the visualizer's ``add_datasample``, whose letters have the same height on a
    photograph of 4000 pixels as on one of 300, and whose labels cover each other.

    The image is (h, w, 3) uint8 BGR, and so is the result. The detections have ``bboxes`` (n, 4)
    xyxy in pixels, ``scores`` and ``labels``, the highest score first.
    """
    if not len(found):
        return image
    height, width = image.shape[:2]
    letters = max(LETTERS * (height * width) ** 0.5, LEAST)  # pixels
    point = visualizer.dpi / 72  # pixels
    texts = [f'{classes[i]} {score:.2f}' for i, score in zip(found.labels, found.scores)]
    sides = [(LETTER_WIDTH * letters * len(text), 1.4 * letters) for text in texts]
    bboxes = found.bboxes.clip(0, [width - 1, height - 1] * 2)  # the last pixel
    places = label_places(bboxes, sides, (width, height))
    colors = [PALETTE[label % len(PALETTE)] for label in found.labels]

    visualizer.set_image(image[..., ::-1])
    lowest_first = slice(None, None, -1)  # what is drawn later lies on top
    width = max(letters / 6, 2) / point
    visualizer.draw_bboxes(bboxes[lowest_first], colors[lowest_first], line_widths=width, alpha=1)
    visualizer.draw_texts(
        [text.replace('$', r'\$') for text in texts[lowest_first]],  # a dollar begins a formula
        (places + [PAD * letters, 0.7 * letters])[lowest_first],
        font_sizes=letters / point,
        colors=[text_color(color) for color in colors[lowest_first]],
        vertical_alignments='center',
        bboxes=[
            dict(boxstyle=f'square,pad={PAD}', facecolor=color, edgecolor='none')
            for color in colors[lowest_first]
        ],
    )
    return visualizer.get_image()[..., ::-1]
