"""How SSD's implementations name, shape and order the same parameters: data for `convert`.

:data:`ARCHITECTURES` are the detectors of this plugin that others have too, :data:`LAYOUTS` what
each implementation calls their parameters and in which order its scores are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from mmdet.datasets import VOCDataset
from mmdet.registry import MODELS
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from torchvision.models.detection import SSD300_VGG16_Weights

Shapes = dict[str, tuple[int, ...]]
Names = tuple[tuple[str, str], ...]  # beginnings of names: (theirs, ours)


# --- architectures ---------------------------------------------------------------------------

SSDLITE_CONFIG = 'ssdlite320_mobilenetv3_coco.py'
# A config whose detector has the parameters.
ARCHITECTURES = dict(SSD300='ssd300_coco.py', SSD512='ssd512_coco.py', SSDLite320=SSDLITE_CONFIG)


@cache
def shapes_of(architecture: str, outputs: int) -> Shapes:
    """Names and shapes of our detector's parameters, with this many scores of a prior, K."""
    init_default_scope('mmdet')
    model = get_config(f'ssd_plugin::{ARCHITECTURES[architecture]}').model
    model.bbox_head.num_classes = outputs - 1
    with torch.device('meta'):  # shapes without numbers
        state = MODELS.build(model).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


def rename(name: str, beginnings: Iterable[tuple[str, str]]) -> str:
    """Replace the longest of the beginnings that a dotted name has."""
    fitting = [pair for pair in beginnings if f'{name}.'.startswith(f'{pair[0]}.')]
    old, new = max(fitting, key=lambda pair: len(pair[0]), default=('', ''))
    return new + name[len(old) :]


# --- layouts ---------------------------------------------------------------------------------


def coco_categories() -> dict[int, str]:
    """Ids and names of COCO's 80 classes; the ids go up to 90, with gaps."""
    names = SSD300_VGG16_Weights.COCO_V1.meta['categories']
    return {i: name for i, name in enumerate(names) if name not in ('__background__', 'N/A')}


# What torchvision, and what Caffe and ssd.pytorch call our branches.
HEADS = dict(cls='classification', reg='regression')
CONF_AND_LOC = dict(cls='conf', reg='loc')
# Ours of SSD on VGG-16, with their places: SSD512 has all of them, SSD300 one step less.
EXTRA_LAYERS = [(i, j, f'neck.extra_layers.{i}.{j}.conv') for i in range(5) for j in range(2)]
PREDICTIONS = [
    (branch, k, f'bbox_head.{branch}_convs.{k}.0') for branch in ('cls', 'reg') for k in range(7)
]
TORCHVISION_SSD300 = (
    ('backbone.scale_weight', 'neck.l2_norm.weight'),
    ('backbone.features', 'backbone.features'),
    *((f'backbone.extra.0.{i}', f'backbone.features.{23 + i}') for i in (1, 3, 5)),  # conv5
    *((f'backbone.extra.0.7.{i}', f'backbone.features.{30 + i}') for i in (1, 3)),  # fc6, fc7
    *((f'backbone.extra.{i + 1}.{2 * j}', ours) for i, j, ours in EXTRA_LAYERS),
    *((f'head.{HEADS[branch]}_head.module_list.{k}', ours) for branch, k, ours in PREDICTIONS),
)
TORCHVISION_SSDLITE = (
    # torchvision cuts the backbone within layer 13, after the expansion.
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
        for ours, theirs in HEADS.items()
        for k in range(6)
        for conv, ours_conv in (('0.0', '0.conv'), ('0.1', '0.bn'), ('1', '1'))
    ),
)
SSD_PYTORCH = (
    ('vgg', 'backbone.features'),
    ('L2Norm', 'neck.l2_norm'),
    *((f'extras.{2 * i + j}', ours) for i, j, ours in EXTRA_LAYERS),
    *((f'{CONF_AND_LOC[branch]}.{k}', ours) for branch, k, ours in PREDICTIONS),
)
LUFFICC = (
    ('backbone.vgg', 'backbone.features'),
    ('backbone.l2_norm', 'neck.l2_norm'),
    *((f'backbone.extras.{2 * i + j}', ours) for i, j, ours in EXTRA_LAYERS),
    *((f'box_head.predictor.{branch}_headers.{k}', ours) for branch, k, ours in PREDICTIONS),
)
# Their layers in the order of ours, and the layers that the head's branches begin at.
CAFFE_VGG = {
    **{f'conv1_{i + 1}': 2 * i for i in range(2)},
    **{f'conv2_{i + 1}': 5 + 2 * i for i in range(2)},
    **{f'conv{block}_{i + 1}': 7 * block - 11 + 2 * i for block in (3, 4, 5) for i in range(3)},
    'fc6': 31,
    'fc7': 33,
}
CAFFE_SOURCES = ('conv4_3_norm', 'fc7', *(f'conv{6 + i}_2' for i in range(5)))
CAFFE = (
    *((theirs, f'backbone.features.{ours}') for theirs, ours in CAFFE_VGG.items()),
    ('conv4_3_norm', 'neck.l2_norm'),
    *((f'conv{6 + i}_{j + 1}', ours) for i, j, ours in EXTRA_LAYERS),
    *((f'{CAFFE_SOURCES[k]}_mbox_{CONF_AND_LOC[branch]}', ours) for branch, k, ours in PREDICTIONS),
)


class Layout(NamedTuple):
    """How an implementation names and orders the parameters of an architecture.

    ``configs`` have the priors, the preparation of images and the thresholds of its models, by
    their number of scores, K; the first is for any other number.
    """

    source: str
    architecture: str
    configs: dict[int, str]
    names: Names = ()

    def __str__(self) -> str:
        return f"{self.source}'s {self.architecture}"

    def config(self, outputs: int) -> str:
        return self.configs.get(outputs, next(iter(self.configs.values())))

    def parameters(self, outputs: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """For each parameter's name there, its name here and its shape."""
        swapped = [(ours, theirs) for theirs, ours in self.names]
        shapes = shapes_of(self.architecture, outputs)
        return {rename(name, swapped): (name, shape) for name, shape in shapes.items()}

    def classes(self, outputs: int) -> tuple[str, ...] | None:
        """The classes of a model with this number of scores, where they are known."""
        if (self.source, outputs) in {('torchvision', 91), ('caffe', 81), ('lufficc', 81)}:
            return tuple(coco_categories().values())
        if (self.source, outputs) in {('ssd.pytorch', 21), ('caffe', 21), ('lufficc', 21)}:
            return VOCDataset.METAINFO['classes']
        return None

    def class_order(self, outputs: int, classes: Sequence[str] | None) -> list[int]:
        """For each of our scores of a prior, its index among theirs.

        Ours and MMDetection's have background last, the others first.
        """
        if self.source == 'mmdet':
            return list(range(outputs))
        if classes and outputs == 91 and tuple(classes) == self.classes(91):
            return [*coco_categories(), 0]
        return [*range(1, outputs), 0]


def on_voc_and_coco(model: str) -> dict[int, str]:
    """The configs of a model for VOC's and for COCO's classes, by their number of scores."""
    return {21: f'{model}_voc.py', 81: f'{model}_coco.py'}


LAYOUTS = (
    Layout('torchvision', 'SSD300', {91: 'ssd300_torchvision_coco.py'}, TORCHVISION_SSD300),
    Layout('ssd.pytorch', 'SSD300', {21: 'ssd300_ssdpytorch_voc.py'}, SSD_PYTORCH),
    Layout('lufficc', 'SSD300', on_voc_and_coco('ssd300_lufficc'), LUFFICC),
    Layout('lufficc', 'SSD512', on_voc_and_coco('ssd512_lufficc'), LUFFICC),
    Layout('caffe', 'SSD300', on_voc_and_coco('ssd300_caffe'), CAFFE),
    Layout('caffe', 'SSD512', on_voc_and_coco('ssd512_caffe'), CAFFE),
    Layout('mmdet', 'SSD300', on_voc_and_coco('ssd300')),
    Layout('mmdet', 'SSD512', on_voc_and_coco('ssd512')),
    Layout('torchvision', 'SSDLite320', {91: SSDLITE_CONFIG}, TORCHVISION_SSDLITE),
    Layout('mmdet', 'SSDLite320', {81: SSDLITE_CONFIG}),
)
SOURCES = tuple(dict.fromkeys(layout.source for layout in LAYOUTS))
