"""How SSD's implementations name, shape and order the same parameters: data for `checkpoints`.

:data:`ARCHITECTURES` has the names and shapes that a detector's parameters have in this plugin,
:data:`LAYOUTS` what each implementation calls them and in which order its scores are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torchvision.models.detection import SSD300_VGG16_Weights, ssdlite320_mobilenet_v3_large

Shapes = dict[str, tuple[int, ...]]
Names = tuple[tuple[str, str], ...]  # beginnings of names: (theirs, ours)

# The convolutions whose channels are the scores: K for each prior of a cell.
CLASS_LAYER = re.compile(r'bbox_head\.cls_convs\.\d+\.\d+\.(weight|bias)')
# Widths of the convolutions; 0: a pooling.
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0, 1024, 1024)
VOC_CLASSES = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
    'tvmonitor',
)  # fmt: skip


# --- architectures ---------------------------------------------------------------------------


def vgg_shapes(outputs: int, num_priors: Sequence[int], last_kernel: int) -> Shapes:
    """Parameters of SSD on VGG-16 (paper, figure 2).

    Args:
        outputs: Scores of a prior, K.
        num_priors: Priors of a cell, for each level.
        last_kernel: Side of the last extra convolution.
    """
    # Names, channels out and in, sides of the kernels.
    convs: list[tuple[str, int, int, int]] = []
    index, channels = 0, 3
    for width in VGG16:
        if width:
            kernel = 1 if channels == 1024 else 3  # 1: fc7
            convs.append((f'backbone.features.{index}', width, channels, kernel))
            channels = width
        index += 2 if width else 1  # a ReLU follows a convolution
    levels = (512, 1024, 512, *[256] * (len(num_priors) - 3))
    for i, width in enumerate(levels[2:]):
        kernel = last_kernel if i == len(levels) - 3 else 3
        convs.append((f'neck.extra_layers.{i}.0.conv', width // 2, levels[i + 1], 1))
        convs.append((f'neck.extra_layers.{i}.1.conv', width, width // 2, kernel))
    for branch, values in (('cls', outputs), ('reg', 4)):
        for k, (width, priors) in enumerate(zip(levels, num_priors, strict=True)):
            convs.append((f'bbox_head.{branch}_convs.{k}.0', priors * values, width, 3))

    shapes: Shapes = {'neck.l2_norm.weight': (512,)}
    for name, out, into, kernel in convs:
        shapes |= {f'{name}.weight': (out, into, kernel, kernel), f'{name}.bias': (out,)}
    return shapes


@cache
def ssdlite_shapes(outputs: int) -> Shapes:
    """Parameters of SSDLite on MobileNetV3 with the reduced tail, as torchvision builds it."""
    with torch.device('meta'):  # shapes without numbers
        model = ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=outputs
        )
    state = model.state_dict()
    return {rename(name, TORCHVISION_SSDLITE): tuple(state[name].shape) for name in state}


def rename(name: str, beginnings: Iterable[tuple[str, str]]) -> str:
    """Replace the longest of the beginnings that a dotted name has."""
    fitting = [pair for pair in beginnings if f'{name}.'.startswith(f'{pair[0]}.')]
    old, new = max(fitting, key=lambda pair: len(pair[0]), default=('', ''))
    return new + name[len(old) :]


# From the number of scores of a prior, K, to the parameters.
ARCHITECTURES: dict[str, Callable[[int], Shapes]] = {
    'SSD300': partial(vgg_shapes, num_priors=(4, 6, 6, 6, 4, 4), last_kernel=3),
    'SSD512': partial(vgg_shapes, num_priors=(4, 6, 6, 6, 6, 4, 4), last_kernel=4),
    'SSDLite320': ssdlite_shapes,
}


# --- layouts ---------------------------------------------------------------------------------


def coco_categories() -> dict[int, str]:
    """Ids and names of COCO's 80 classes; the ids go up to 90, with gaps."""
    names = SSD300_VGG16_Weights.COCO_V1.meta['categories']
    return {i: name for i, name in enumerate(names) if name not in ('__background__', 'N/A')}


TORCHVISION_SSD300 = (
    ('backbone.scale_weight', 'neck.l2_norm.weight'),
    ('backbone.features', 'backbone.features'),
    *((f'backbone.extra.0.{i}', f'backbone.features.{23 + i}') for i in (1, 3, 5)),  # conv5
    *((f'backbone.extra.0.7.{i}', f'backbone.features.{30 + i}') for i in (1, 3)),  # fc6, fc7
    *(
        (f'backbone.extra.{i + 1}.{2 * j}', f'neck.extra_layers.{i}.{j}.conv')
        for i in range(4)
        for j in range(2)
    ),
    *(
        (f'head.{theirs}_head.module_list.{k}', f'bbox_head.{ours}_convs.{k}.0')
        for theirs, ours in (('classification', 'cls'), ('regression', 'reg'))
        for k in range(6)
    ),
)
TORCHVISION_SSDLITE = (
    # It cuts the backbone within layer 13, after the expansion.
    ('backbone.features.0', 'backbone.features'),
    ('backbone.features.0.13', 'backbone.features.13.block.0'),
    *((f'backbone.features.1.0.{i}', f'backbone.features.13.block.{i}') for i in (1, 2, 3)),
    *((f'backbone.features.1.{i}', f'backbone.features.{13 + i}') for i in (1, 2, 3)),
    *(
        (f'backbone.extra.{i}.{j}.{part}', f'neck.extra_layers.{i}.{conv}.{ours}')
        for i in range(4)
        for j, conv in enumerate(('0', '1.depthwise_conv', '1.pointwise_conv'))
        for part, ours in enumerate(('conv', 'bn'))
    ),
    *(
        (f'head.{theirs}_head.module_list.{k}.{conv}', f'bbox_head.{ours}_convs.{k}.{ours_conv}')
        for theirs, ours in (('classification', 'cls'), ('regression', 'reg'))
        for k in range(6)
        for conv, ours_conv in (('0.0', '0.conv'), ('0.1', '0.bn'), ('1', '1'))
    ),
)
SSD_PYTORCH = (
    ('vgg', 'backbone.features'),
    ('L2Norm', 'neck.l2_norm'),
    *(
        (f'extras.{2 * i + j}', f'neck.extra_layers.{i}.{j}.conv')
        for i in range(4)
        for j in range(2)
    ),
    *(
        (f'{theirs}.{k}', f'bbox_head.{ours}_convs.{k}.0')
        for theirs, ours in (('conf', 'cls'), ('loc', 'reg'))
        for k in range(6)
    ),
)


class Layout(NamedTuple):
    """How an implementation names and orders the parameters of an architecture.

    ``configs`` are the recipes with the priors, the preparation of images and the thresholds of
    its models, by their number of scores, K; the first is for any other number.
    """

    source: str
    architecture: str
    configs: dict[int, str]
    names: Names = ()
    background_first: bool = False

    def __str__(self) -> str:
        return f"{self.source}'s {self.architecture}"

    def config(self, outputs: int) -> str:
        return self.configs.get(outputs, next(iter(self.configs.values())))

    def parameters(self, outputs: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """By the parameters' names there: their names here, and their shapes."""
        swapped = [(ours, theirs) for theirs, ours in self.names]
        shapes = ARCHITECTURES[self.architecture](outputs)
        return {rename(name, swapped): (name, shape) for name, shape in shapes.items()}

    def classes(self, outputs: int) -> tuple[str, ...] | None:
        """What the classes of a model with so many scores are, where they are known."""
        if (self.source, outputs) == ('torchvision', 91):
            return tuple(coco_categories().values())
        return VOC_CLASSES if (self.source, outputs) == ('ssd.pytorch', 21) else None

    def class_order(self, outputs: int, classes: Sequence[str] | None) -> list[int]:
        """Of each of our scores of a prior, background last: its place among theirs."""
        if not self.background_first:
            return list(range(outputs))
        if classes and outputs == 91 and tuple(classes) == self.classes(91):
            return [*coco_categories(), 0]
        return [*range(1, outputs), 0]


LAYOUTS = (
    Layout(
        'torchvision',
        'SSD300',
        {91: 'ssd300_torchvision_coco.py'},
        TORCHVISION_SSD300,
        background_first=True,
    ),
    Layout(
        'ssd.pytorch',
        'SSD300',
        {21: 'ssd300_ssdpytorch_voc.py'},
        SSD_PYTORCH,
        background_first=True,
    ),
    Layout('mmdet', 'SSD300', {21: 'ssd300_voc.py', 81: 'ssd300_coco.py'}),
    Layout('mmdet', 'SSD512', {21: 'ssd512_voc.py', 81: 'ssd512_coco.py'}),
    Layout(
        'torchvision',
        'SSDLite320',
        {91: 'ssdlite320_mobilenetv3_coco.py'},
        TORCHVISION_SSDLITE,
        background_first=True,
    ),
    Layout('mmdet', 'SSDLite320', {81: 'ssdlite320_mobilenetv3_coco.py'}),
)
SOURCES = tuple(dict.fromkeys(layout.source for layout in LAYOUTS))
