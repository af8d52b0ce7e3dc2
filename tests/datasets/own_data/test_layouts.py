"""What a labelling tool wrote arrives in training: images, boxes, classes and parts, exactly."""

from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

from ssd_plugin.datasets.own_data.config import fit_data
from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.own_data.summary import DataSet
from tests.support.commands import ROOT
from tests.support.layouts import CLASSES, IMAGES, LAYOUTS, write_layout


def datasets_of(root, out):
    """The data sets of the demo's config, fitted to a folder, by part; and what was read."""
    source = recognise(root)
    data = DataSet(source, source.parts.names)
    classes = data.classes()
    cfg = Config.fromfile(ROOT / 'configs' / 'demo_shapes.py', import_custom_modules=False)
    fit_data(cfg, source, classes, data.write(classes, out))
    built = {}
    for part in ('train', 'val', 'test'):  # serialising collects garbage, which takes long
        built[part] = DATASETS.build(dict(cfg[f'{part}_dataloader'].dataset, serialize_data=False))
    return built, data


def arrived(dataset):
    """By the name of an image: its size, classes and boxes."""
    names, found = dataset.metainfo['classes'], {}
    for info in map(dataset.get_data_info, range(len(dataset))):
        with Image.open(info['img_path']) as image:
            assert image.size == (info['width'], info['height'])
        objects = [(names[i['bbox_label']], tuple(i['bbox'])) for i in info['instances']]
        assert not any(i['ignore_flag'] for i in info['instances'])
        stem = Path(info['img_path']).stem.removeprefix('0a1b2c3d-')
        found[stem] = (image.size, objects)
    assert len(found) == len(dataset)
    return found


@pytest.mark.parametrize('name', LAYOUTS)
def test_what_was_written_arrives(name, tmp_path):
    layout = LAYOUTS[name]
    write_layout(tmp_path / 'pets', layout)
    built, data = datasets_of(tmp_path / 'pets', tmp_path / 'out')
    assert built['train'].metainfo['classes'] == CLASSES
    assert not data.all_faults(CLASSES)
    found = {part: arrived(dataset) for part, dataset in built.items()}
    written = {image.stem: (image.size, image.objects) for image in IMAGES}
    if layout.parts:
        for part, images in found.items():
            assert images == {i.stem: written[i.stem] for i in IMAGES if i.part == part}
    else:
        assert found['train'] | found['val'] == written
        assert len(found['val']) == 2 and len(found['train']) == 9
        assert found['test'] == found['val']
