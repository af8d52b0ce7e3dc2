"""Small data sets of drawn shapes, in the layouts and with the class names of VOC and COCO."""

import json
import re
from pathlib import Path

from mmdet.datasets import CocoDataset

from ssd_plugin.datasets.shapes import CLASSES, write_voc_shapes

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
    """Write the same images as COCO 2017: in train2017 and val2017, with a JSON for each."""
    tree = write_shapes(root / 'tree')
    (root / 'annotations').mkdir(parents=True)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
    for split, ids in (('train2017', 'trainval'), ('val2017', 'test')):
        (root / split).symlink_to(tree / 'JPEGImages')
        images, annotations = [], []
        for name in (tree / f'ImageSets/Main/{ids}.txt').read_text().split():
            text = (tree / f'Annotations/{name}.xml').read_text()
            width, height = (int(re.search(f'<{k}>(.*?)<', text)[1]) for k in ('width', 'height'))
            images.append(dict(id=len(images), file_name=f'{name}.jpg', width=width, height=height))
            corners = (re.findall(f'<{k}>(.*?)<', text) for k in ('xmin', 'ymin', 'xmax', 'ymax'))
            for box in zip(*corners):
                x1, y1, x2, y2 = map(int, box)
                number, (w, h) = len(annotations), (x2 - x1 + 1, y2 - y1 + 1)
                annotations.append(dict(
                    id=number + 1, image_id=images[-1]['id'], iscrowd=0, area=w * h,
                    category_id=number % len(categories) + 1, bbox=[x1 - 1, y1 - 1, w, h],
                ))  # fmt: skip
        document = dict(images=images, annotations=annotations, categories=categories)
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(document))
