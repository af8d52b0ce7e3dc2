"""Small data sets of every layout."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (80, 60)
BOX = (11, 11, 40, 30)  # in VOC's coordinates
NAMES = [f'image {i:02d}' for i in range(10)]
JPEGS = [f'{name}.jpg' for name in NAMES]


def write_image(path: Path, size=SIZE, number=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def voc_object(name='cat', box=BOX, difficult=0) -> str:
    x1, y1, x2, y2 = box
    corners = f'<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>'
    fields = f'<name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox>'
    return f'<object>{fields}</object>'


def voc_xml(*objects: str, size=SIZE) -> str:
    width, height = size
    size = f'<size><width>{width}</width><height>{height}</height><depth>3</depth></size>'
    return f'<annotation>{size}{"".join(objects)}</annotation>'


def write_voc(
    root: Path, names, lists=None, classes=('cat', 'dog'), suffix='.jpg',
    folders=('Annotations', 'JPEGImages'),
) -> Path:  # fmt: skip
    """A VOC-style folder: each image has one object, of the classes in turn."""
    annotations, images = (root / folder for folder in folders)
    annotations.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        write_image(images / f'{name}{suffix}', number=i)
        xml = voc_xml(voc_object(classes[i % len(classes)]))
        (annotations / f'{name}.xml').write_text(xml)
    for part, members in (lists or {}).items():
        path = root / 'ImageSets' / 'Main' / f'{part}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(f'{name}\n' for name in members), encoding='utf-8')
    return root


def write_boxes(root, images, split='trainval') -> Path:
    """A VOC tree without image files; each image is (w, h) and [(name, xyxy box, difficult)]."""
    root = Path(root)
    names = [f'{split}{number:03d}' for number in range(len(images))]
    write_voc(root, [], {split: names})
    (root / 'JPEGImages').mkdir(exist_ok=True)
    for name, (size, boxes) in zip(names, images):
        objects = [voc_object(kind, [int(v) + 1 for v in b], int(flag)) for kind, b, flag in boxes]
        (root / 'Annotations' / f'{name}.xml').write_text(voc_xml(*objects, size=size))
    return root


def coco_document(names, classes=('cat', 'dog')) -> dict:
    """A COCO json: each image has one object, of the classes in turn."""
    images, annotations = [], []
    for i, name in enumerate(names):
        images.append(dict(id=i, file_name=name, width=SIZE[0], height=SIZE[1]))
        annotation = dict(id=i + 1, image_id=i, category_id=i % len(classes) + 1)
        annotations.append(annotation | dict(bbox=[10, 10, 30, 20], area=600, iscrowd=0))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
    return dict(images=images, annotations=annotations, categories=categories)


def write_coco(path: Path, images: Path, names, **options) -> dict:
    """A COCO json and its images; the json is returned, for changes."""
    document = coco_document(names, **options)
    for i, name in enumerate(names):
        write_image(images / name, number=i)
    save_json(path, document)
    return document


def save_json(path: Path, document: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def table_rows(output: str) -> list[list[str]]:
    """The cells of each row of the printed table."""
    rows = [line.strip('│ ').split('│') for line in output.splitlines() if line.startswith('│')]
    return [[cell.strip() for cell in row] for row in rows]


def listed(path: Path) -> list[list[str]]:
    """The lines of a list of faults, split."""
    return [line.split('\t') for line in path.read_text(encoding='utf-8').splitlines()]
