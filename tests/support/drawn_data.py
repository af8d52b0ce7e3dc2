"""Small data sets in the layouts and with the class names of VOC and COCO."""

from pathlib import Path

from mmdet.datasets import CocoDataset

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes
from tests.support import data_folders

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


def write_coco(root: Path, classes=CocoDataset.METAINFO['classes']) -> None:
    """Write small images as COCO 2017: in train2017 and val2017, with a JSON for each."""
    for split, number in (('train2017', 4), ('val2017', 3)):
        document = root / f'annotations/instances_{split}.json'
        data_folders.write_coco(
            document, root / split, data_folders.JPEGS[:number], classes=classes
        )
