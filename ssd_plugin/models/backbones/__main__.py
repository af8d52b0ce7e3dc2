"""`python -m ssd_plugin.models.backbones NAME`: a torchvision model's part of a config."""

import argparse

from rich import box
from rich.console import Console
from rich.table import Table
from torchvision.models import get_model

from ssd_plugin.models.backbones.feature_maps import FeatureMap, survey
from ssd_plugin.models.backbones.torchvision_backbone import known_weights, preprocessing

CONFIG = """
# Over configs/ssd300_voc.py:
channels = {channels}
model = dict(
    data_preprocessor=dict({preprocessing}),
    backbone=dict(
        _delete_=True,
        type='TorchvisionBackbone',
        name='{name}',
        strides=(8, 16),
        weights='DEFAULT',
    ),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m ssd_plugin.models.backbones',
        description='Print the feature maps of a torchvision classification model by stride, and '
        'the preprocessing that its weights ask for.',
    )
    parser.add_argument('name', help='name of the model, such as mobilenet_v3_large')
    name = parser.parse_args().name
    try:
        weights = known_weights(name)
        levels = survey(get_model(name)).levels()
    except ValueError as error:
        parser.error(str(error))

    Console().print(table_of(levels, name))
    print('Bold: what strides=(...) takes. Other nodes, inside of blocks, can be named as well.')
    print(f'Weights: {", ".join(weights)}.')
    channels = (*(levels[stride][-1].channels for stride in (8, 16)), 512, 256, 256, 256)
    values = preprocessing(weights['DEFAULT']).items()
    needed = ', '.join(f'{key}={value}' for key, value in values)
    print(CONFIG.format(name=name, channels=channels, preprocessing=needed))


def table_of(levels: dict[int, list[FeatureMap]], title: str) -> Table:
    """A row a map, the last of each stride in bold."""
    table = Table('stride', 'node', 'channels', title=title, box=box.SIMPLE_HEAD)
    for maps in levels.values():
        for found in maps:
            row = f'{found.stride}', found.name, f'{found.channels}'
            last = found is maps[-1]
            table.add_row(*row, style='bold' if last else 'dim', end_section=last)
    return table


if __name__ == '__main__':
    main()
