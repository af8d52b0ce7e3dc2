"""Small data sets in the layouts and with the class names of VOC and COCO."""

from itertools import cycle, islice
from pathlib import Path

from mmdet.datasets import CocoDataset
from mmengine.config import Config

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from tests.support import data_folders

COCO_CLASSES = CocoDataset.METAINFO['classes']
VOC_CLASSES = ('person', 'dog', 'car', 'boat', 'chair')


def write_shapes(root: Path, classes=CLASSES, num_train=4, num_test=3) -> Path:
    """Write a VOC-style folder of drawn shapes that are named after ``classes``."""
    write_voc_shapes(root, num_train=num_train, num_test=num_test, seed=1)
    for path in (root / 'Annotations').glob('*.xml'):
        text = path.read_text()
        for shape, name in zip(CLASSES, classes):
            text = text.replace(f'<name>{shape}</name>', f'<name>{name}</name>')
        path.write_text(text)
    return root


def write_coco(root: Path, classes=COCO_CLASSES, num_train=4, num_test=3) -> None:
    """Write small images as COCO 2017: in train2017 and val2017, with a JSON for each."""
    for split, number in (('train2017', num_train), ('val2017', num_test)):
        document = root / f'annotations/instances_{split}.json'
        data_folders.write_coco(
            document, root / split, data_folders.JPEGS[:number], classes=classes
        )


def write_data(cfg: Config, root: Path, num_train=4, num_test=3) -> None:
    """Make the data that a config reads below a folder, in the layout that it reads them in."""
    dataset = cfg.val_dataloader.dataset
    root = root / dataset.data_root
    numbers = dict(num_train=num_train, num_test=num_test)
    if dataset.type == 'CheckedCocoDataset':
        for loader, number in ((cfg.train_dataloader, num_train), (cfg.val_dataloader, num_test)):
            document, images = loader.dataset.ann_file, loader.dataset.data_prefix.img
            names = data_folders.JPEGS[:number]
            data_folders.write_coco(root / document, root / images, names, classes=COCO_CLASSES)
    elif dataset.data_prefix.sub_data_root:
        for year in ('VOC2007', 'VOC2012'):
            write_shapes(root / year, VOC_CLASSES, **numbers)
    else:
        write_shapes(root, [*islice(cycle(dataset.metainfo.classes), len(CLASSES))], **numbers)
