"""`python -m ssd_plugin.models.backbones NAME`: a classification model's part of a config."""

import argparse
from typing import NamedTuple

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn
from torchvision.models import get_model

from ssd_plugin.errors import SSDPluginError
from ssd_plugin.models.backbones.feature_maps import FeatureMap, survey
from ssd_plugin.models.backbones.timm_backbone import TimmBackbone, choose_maps
from ssd_plugin.models.backbones.torchvision_backbone import known_weights, preprocessing

CONFIG = """
# Over configs/ssd300_voc.py:
channels = {channels}
model = dict(
    data_preprocessor=dict({preprocessing}),
    backbone=dict(
        _delete_=True,
        type='{kind}',
        name='{name}',
        strides=(8, 16),
        {weights},
    ),
    neck=dict(in_channels=channels[:2], out_channels=channels{norm}),
    bbox_head=dict(in_channels=channels),
)"""


class Description(NamedTuple):
    """What there is in a model."""

    table: Table  # of its maps
    notes: str
    kind: str  # the backbone's type
    weights: str  # the backbone's arguments
    model: nn.Module
    channels: tuple[int, int]  # at strides 8 and 16
    preprocessing: dict


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m ssd_plugin.models.backbones',
        description='Print the feature maps of a classification model by stride, and the '
        'preprocessing that its weights ask for.',
    )
    parser.add_argument('name', help='name of the model, such as mobilenet_v3_large')
    parser.add_argument('--timm', action='store_true', help="timm's model, not torchvision's")
    args = parser.parse_args()
    try:
        found = (describe_timm if args.timm else describe_torchvision)(args.name)
    except (ValueError, SSDPluginError) as error:
        parser.error(str(error))

    Console().print(found.table)
    print(found.notes)
    fields = found._asdict()
    fields['channels'] = (*found.channels, 512, 256, 256, 256)
    values = found.preprocessing.items()
    fields['preprocessing'] = ', '.join(f'{key}={value}' for key, value in values)
    # The neck normalises the maps of VGG; with batch normalisation they are normalised already.
    normalised = any(isinstance(layer, nn.BatchNorm2d) for layer in found.model.modules())
    fields['norm'] = ', l2_norm_scale=None' if normalised else ''
    print(CONFIG.format(name=args.name, **fields))


def describe_torchvision(name: str) -> Description:
    """torchvision's model; a ValueError if it has none, or none for images of any size."""
    weights = known_weights(name)
    model = get_model(name)
    levels = survey(model).levels()
    notes = (
        'Bold: what strides=(...) takes. Other nodes, inside of blocks, can be named as well.\n'
        f'Weights: {", ".join(weights)}.'
    )
    channels = levels[8][-1].channels, levels[16][-1].channels
    needed = preprocessing(weights['DEFAULT'])
    argument = "weights='DEFAULT'"
    table = table_of(levels, name)
    return Description(table, notes, 'TorchvisionBackbone', argument, model, channels, needed)


def table_of(levels: dict[int, list[FeatureMap]], title: str) -> Table:
    """A row a map, the last of each stride in bold."""
    table = Table('stride', 'node', 'channels', title=title, box=box.SIMPLE_HEAD)
    for maps in levels.values():
        for found in maps:
            row = f'{found.stride}', found.name, f'{found.channels}'
            last = found is maps[-1]
            table.add_row(*row, style='bold' if last else 'dim', end_section=last)
    return table


def describe_timm(name: str) -> Description:
    """timm's model; a ValueError if it has none, or none with maps at strides 8 and 16."""
    with torch.device('meta'):  # shapes without numbers
        backbone = TimmBackbone(name, out_indices=(0,))
    maps = backbone.model.feature_info.info
    strides = [found['reduction'] for found in maps]
    table = Table('stride', 'index', 'module', 'channels', title=name, box=box.SIMPLE_HEAD)
    for index, found in enumerate(maps):
        row = found['reduction'], index, found['module'], found['num_chs']
        table.add_row(*map(str, row))
    c8, c16 = (maps[index]['num_chs'] for index in choose_maps(name, strides, None, (8, 16)))
    notes = 'strides=(...) takes the last map at each stride, out_indices=(...) any.'
    needed = backbone.preprocessing
    argument = 'pretrained=True'
    if backbone.model.pretrained_cfg.get('fixed_input_size'):
        argument += ',\n        model_args=dict(img_size=300)'
    model = backbone.model
    return Description(table, notes, 'TimmBackbone', argument, model, (c8, c16), needed)


if __name__ == '__main__':
    main()
