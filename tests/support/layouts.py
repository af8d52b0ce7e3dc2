"""Folders as labelling tools write them: the same images and objects in every layout."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.data_folders import save_json, voc_object, voc_xml, write_image

CLASSES = ('cat', 'cow', 'dog')
PARTS = ('train', 'val', 'test')


class Labelled(NamedTuple):
    """An image; each has another size, so that none is mistaken for another."""

    stem: str
    part: str
    size: tuple[int, int]
    objects: list[tuple[str, tuple[int, int, int, int]]]  # class, xyxy from 0


def labelled(number: int) -> Labelled:
    part = PARTS[(number >= 5) + (number >= 8)]
    box = (number, 2, 30 + number, 40)
    objects = [(CLASSES[number % 3], box), (CLASSES[0], (5, 6, 25, 36))]
    if number == 3:
        objects = []  # background
    return Labelled(f'img.{number:02d} a', part, (100 + number, 80), objects)


IMAGES = [labelled(number) for number in range(11)]


class Layout(NamedTuple):
    """Where things are, as templates in {part}, the folder's word for it, and {stem}.

    ``parts`` are the words for train, val and test; none where the layout has no parts. ``lists``
    is the template of a list of images, ``line`` that of its lines. ``files`` are others by path.
    """

    kind: str
    images: str
    labels: str
    parts: tuple[str, ...] = ()
    name: str = '{stem}.jpg'  # of an image, in an xml or a json
    lists: str = ''
    line: str = '{stem}'
    files: dict[str, str] = {}
    edit: Callable = lambda text: text  # of each annotation file's text


def write_layout(root: Path, layout: Layout) -> None:
    for image in IMAGES:
        places = place(layout, image)
        write_image(root / layout.images.format(**places), image.size, number=image.size[0])
    if layout.kind == 'COCO':
        write_jsons(root, layout)
    else:
        for image in IMAGES:
            text = to_text(layout, image)
            if text is not None:
                path = root / layout.labels.format(**place(layout, image))
                path.parent.mkdir(parents=True, exist_ok=True)
                text = layout.edit(text)
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for part in PARTS if layout.lists else ():
        members = [place(layout, image) for image in IMAGES if image.part == part]
        path = root / layout.lists.format(**members[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, 'a') as file:
            file.writelines(layout.line.format(**places) + '\n' for places in members)
    for path, text in layout.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def place(layout: Layout, image: Labelled) -> dict[str, str]:
    words = dict(zip(PARTS, layout.parts)) or dict.fromkeys(PARTS, '')
    return dict(stem=image.stem, part=words[image.part])


def to_text(layout: Layout, image: Labelled) -> str | None:
    if layout.kind == 'VOC':
        objects = [voc_object(name, [v + 1 for v in box]) for name, box in image.objects]
        filename = layout.name.format(**place(layout, image))
        xml = voc_xml(*objects, size=image.size)
        return xml.replace('<size>', f'<filename>{filename}</filename><size>')
    if not image.objects:
        return None
    return ''.join(yolo_line(name, box, image.size) for name, box in image.objects)


def yolo_line(name, box, size) -> str:
    (x1, y1, x2, y2), (width, height) = box, size
    numbers = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
    return f'{CLASSES.index(name)} ' + ' '.join(f'{number:.6f}' for number in numbers) + '\n'


def polygon_line(name, box, size) -> str:
    (x1, y1, x2, y2), (width, height) = box, size
    corners = (x1, y1), (x2, y1), (x2, y2), (x1, (y1 + y2) / 2)
    numbers = (f'{x / width:.6f} {y / height:.6f}' for x, y in corners)
    return f'{CLASSES.index(name)} ' + ' '.join(numbers) + '\n'


def to_coco(layout: Layout, images: list[Labelled]) -> dict:
    entries, annotations = [], []
    for number, image in enumerate(images):
        name = layout.name.format(**place(layout, image))
        entries.append(dict(id=number, file_name=name, width=image.size[0], height=image.size[1]))
        for kind, (x1, y1, x2, y2) in image.objects:
            annotation = dict(id=len(annotations), image_id=number, iscrowd=0)
            annotation |= dict(category_id=CLASSES.index(kind) + 1, bbox=[x1, y1, x2 - x1, y2 - y1])
            annotations.append(annotation)
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, 1)]
    return dict(images=entries, annotations=annotations, categories=categories)


def write_jsons(root: Path, layout: Layout) -> None:
    paths = {layout.labels.format(**place(layout, i), part_=i.part): [] for i in IMAGES}
    for image in IMAGES:
        paths[layout.labels.format(**place(layout, image), part_=image.part)].append(image)
    for path, images in paths.items():
        text = layout.edit(json.dumps(to_coco(layout, images)))
        save_json(root / path, {})
        (root / path).write_text(text)


def add_supercategory(text: str) -> str:
    """As Roboflow does."""
    document = json.loads(text)
    for category in document['categories']:
        category['supercategory'] = 'animals'
    document['categories'].insert(0, dict(id=0, name='animals', supercategory='none'))
    return json.dumps(document)


def with_odd_ids(text: str) -> str:
    """Texts for the ids of images, others for those of annotations, floats for categories."""
    document = json.loads(text)
    for image in document['images']:
        image['id'] = str(image['id'])
    for number, annotation in enumerate(document['annotations']):
        annotation.update(id=f'ann{number}', category_id=float(annotation['category_id'] * 10))
        annotation.pop('iscrowd')
    for category in document['categories']:
        category['id'] *= 10
    return json.dumps(document)


def as_segments(text: str) -> str:
    """Polygons in place of boxes."""
    document = json.loads(text)
    for annotation in document['annotations']:
        x, y, w, h = annotation.pop('bbox')
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return json.dumps(document)


def yaml(train: str, val: str, test: str | None = None, path: str = '', names='') -> str:
    lines = [f'train: {train}', f'val: {val}'] + ([f'test: {test}'] if test else [])
    names = names or 'names: [' + ', '.join(CLASSES) + ']'
    return '\n'.join([*([f'path: {path}'] if path else []), *lines, names, 'nc: 3']) + '\n'


NAMES_BY_NUMBER = 'names:\n' + '\n'.join(f'  {i}: {name}' for i, name in enumerate(CLASSES))
PLAIN, ROBOFLOW = ('train', 'val', 'test'), ('train', 'valid', 'test')
CLASS_LINES = '\n'.join(CLASSES) + '\n'
PER_CLASS = ''.join(f'{i.stem}  {1 if i.objects else -1}\n' for i in IMAGES)

VOC = {
    'a VOC folder': Layout('VOC', 'JPEGImages/{stem}.jpg', 'Annotations/{stem}.xml'),
    'names of folders by chance': Layout('VOC', 'photos/{stem}.PNG', 'annots/{stem}.xml'),
    'xml beside the image': Layout('VOC', '{stem}.JPG', '{stem}.xml'),
    'xml above the images': Layout('VOC', 'images/{stem}.jpg', '{stem}.xml'),
    'xml below the images': Layout('VOC', '{stem}.jpeg', 'xml/{stem}.xml'),
    'a folder deeper': Layout('VOC', 'mine/images/{stem}.webp', 'mine/labels/{stem}.xml'),
    'lists': Layout('VOC', 'JPEGImages/{stem}.jpg', 'Annotations/{stem}.xml', PLAIN,
                    lists='ImageSets/Main/{part}.txt',
                    files={'ImageSets/Main/cat_train.txt': PER_CLASS}),
    'lists with suffixes, by other names': Layout(
        'VOC', 'JPEGImages/{stem}.jpg', 'Annotations/{stem}.xml',
        ('training', 'validation', 'testing'), lists='ImageSets/{part}.txt', line='{stem}.xml'),
    'lists in the root, with paths': Layout(
        'VOC', 'images/{stem}.bmp', 'annotations/{stem}.xml', PLAIN,
        lists='{part}.txt', line='C:\\data\\images\\{stem}.bmp'),
    'CVAT, a list of all in subfolders': Layout(
        'VOC', 'JPEGImages/sub/{stem}.png', 'Annotations/sub/{stem}.xml',
        name='sub/{stem}.png', lists='ImageSets/Main/default.txt', line='sub/{stem}'),
    'Roboflow': Layout('VOC', '{part}/{stem}.jpg', '{part}/{stem}.xml', ROBOFLOW,
                       files={'README.roboflow.txt': 'pets - v1\n'}),
    'a VOC folder for each part': Layout(
        'VOC', '{part}/JPEGImages/{stem}.jpg', '{part}/Annotations/{stem}.xml', PLAIN,
        lists='{part}/ImageSets/Main/default.txt'),
    'parts below images and annotations': Layout(
        'VOC', 'images/{part}/{stem}.jpg', 'annotations/{part}/{stem}.xml', PLAIN),
    'images and annotations in each part': Layout(
        'VOC', '{part}/images/{stem}.jpg', '{part}/annotations/{stem}.xml', ROBOFLOW),
    'parts that are subfolders of JPEGImages': Layout(
        'VOC', 'JPEGImages/{part}/a/{stem}.tif', 'Annotations/{part}/a/{stem}.xml', PLAIN),
    'stale names in the xml': Layout(
        'VOC', 'images/{stem}.jpg', 'annotations/{stem}.xml', name='IMG_1.jpg'),
    'the name in the xml only': Layout(
        'VOC', 'images/{stem}.jpg', 'annotations/label of {stem}.xml', name='{stem}.jpg'),
    'an archive and tables beside': Layout(
        'VOC', 'images/{stem}.jpg', 'annotations/{stem}.xml',
        files={'data.zip': '', 'data/labels.csv': 'filename,xmin,ymin,xmax,ymax\n', 'a.record': '',
               'classes.txt': CLASS_LINES, 'notes.txt': 'img.00 a\nsomething\nelse\nhere\n'}),
    'parts with other words': Layout(
        'VOC', '{part}_images/{stem}.jpg', '{part}_annotations/{stem}.xml',
        ('Train', 'Validation', 'Test')),
    'UTF-8 with a mark, and CRLF': Layout(
        'VOC', 'JPEGImages/{stem}.jpg', 'Annotations/{stem}.xml',
        edit=lambda text: ('<?xml version="1.0" encoding="utf-8"?>\n' + text)
        .replace('>', '>\n').replace('\n', '\r\n').encode('utf-8-sig')),
    'UTF-16': Layout(
        'VOC', 'JPEGImages/{stem}.jpg', 'Annotations/{stem}.xml',
        edit=lambda text: ('<?xml version="1.0" encoding="utf-16"?>' + text).encode('utf-16')),
    'another encoding than declared': Layout(
        'VOC', 'JPEGImages/{stem}.jpg', 'Annotations/{stem}.xml',
        edit=lambda text: '\n<?xml version="1.0" encoding="utf-16"?>' + text),
    'what macOS adds': Layout(
        'VOC', 'JPEGImages/{stem}.jpg', 'Annotations/{stem}.xml',
        files={'__MACOSX/Annotations/._a.xml': 'x', 'Annotations/._img.00 a.xml': 'x'}),
}  # fmt: skip
COCO = {
    'COCO itself': Layout(
        'COCO', '{part}2017/{stem}.jpg', 'annotations/instances_{part}2017.json', PLAIN,
        files={'annotations/captions_train2017.json': '{"images": [], "annotations": []}'}),
    'a json for each part, images together': Layout(
        'COCO', 'images/{stem}.jpg', '{part}.json', PLAIN),
    'Roboflow as COCO': Layout(
        'COCO', '{part}/{stem}.jpg', '{part}/_annotations.coco.json', ROBOFLOW,
        edit=add_supercategory),
    'CVAT': Layout('COCO', 'images/{stem}.png', 'annotations/instances_default.json',
                   name='{stem}.png'),
    'CVAT, in subfolders': Layout(
        'COCO', 'images/default/a/{stem}.png', 'annotations/instances_default.json',
        name='a/{stem}.png'),
    'a json in a folder for annotations, names with parts': Layout(
        'COCO', 'images/{part}/{stem}.jpg', 'labels/{part}.json', PLAIN, name='{part}/{stem}.jpg'),
    'a json without areas and sizes, among other jsons': Layout(
        'COCO', 'images/{stem}.jpg', 'a/annotations.json',
        edit=lambda text: re.sub(r', "width": [0-9]+, "height": [0-9]+', '', text),
        files={'package.json': '{"name": "pets"}', 'a/categories.json': '["cat"]'}),
    'paths from elsewhere': Layout(
        'COCO', 'photos/{stem}.jpg', 'labels.json', name='/home/me/work/photos/{stem}.jpg'),
    'back slashes': Layout('COCO', 'images/{stem}.jpg', 'result.json', name='images\\{stem}.jpg'),
    'uploads to Label Studio': Layout(
        'COCO', 'images/{stem}.jpg', 'result.json', name='/data/upload/1/0a1b2c3d-{stem}.jpg'),
    'a URL': Layout('COCO', 'images/{stem}.jpg', 'export/result.json',
                    name='http://host/data/local-files/?d=images/{stem}.jpg',
                    edit=lambda text: text.replace(' a.jpg', '%20a.jpg')),
    'subfolders named in the json': Layout(
        'COCO', '{part}/{stem}.jpg', 'all.json', PLAIN, name='{part}/{stem}.jpg'),
    'ids of other types': Layout('COCO', 'images/{stem}.jpg', '{part}.json', PLAIN,
                                 edit=with_odd_ids),
    'segments only': Layout('COCO', 'images/{stem}.jpg', 'all.json', edit=as_segments),
    'a mark at the beginning': Layout(
        'COCO', 'images/{stem}.jpg', 'all.json', edit=lambda text: '\ufeff' + text),
}  # fmt: skip
YOLO = {
    'images and labels': Layout(
        'YOLO', 'images/{stem}.jpg', 'labels/{stem}.txt', files={'classes.txt': CLASS_LINES}),
    'Ultralytics': Layout(
        'YOLO', 'images/{part}/{stem}.jpg', 'labels/{part}/{stem}.txt', PLAIN,
        files={'data.yaml': yaml('images/train', 'images/val', 'images/test', '../datasets/pets',
                                 NAMES_BY_NUMBER)}),
    'Ultralytics, other words for parts': Layout(
        'YOLO', 'images/{part}/{stem}.jpg', 'labels/{part}/{stem}.txt', ('one', 'two', 'three'),
        files={'pets.yaml': yaml('images/one', '[images/two]', 'images/three')}),
    'Ultralytics, lists': Layout(
        'YOLO', 'images/{stem}.jpg', 'labels/{stem}.txt', PLAIN, lists='{part}_images.txt',
        line='./images/{stem}.jpg',
        files={'data.yaml': yaml('train_images.txt', 'val_images.txt', 'test_images.txt')}),
    'Roboflow as YOLO': Layout(
        'YOLO', '{part}/images/{stem}.jpg', '{part}/labels/{stem}.txt', ROBOFLOW,
        files={'data.yaml': yaml('../train/images', '../valid/images', '../test/images'),
               'README.dataset.txt': 'pets > 2024\n'}),
    'Roboflow as YOLO, test by folder only': Layout(
        'YOLO', '{part}/images/{stem}.jpg', '{part}/labels/{stem}.txt', ROBOFLOW,
        files={'data.yaml': 'names: [cat, cow, dog]\n'}),
    'Darknet': Layout(
        'YOLO', 'data/obj/{stem}.jpg', 'data/obj/{stem}.txt', PLAIN, lists='data/{part}.txt',
        line='data/obj/{stem}.jpg',
        files={'data/obj.names': CLASS_LINES, 'data/obj.data': 'names = data/obj.names\n'}),
    'CVAT as Ultralytics': Layout(
        'YOLO', 'images/train/{stem}.jpg', 'labels/train/{stem}.txt', lists='train.txt',
        line='data/images/train/{stem}.jpg',
        files={'data.yaml': f'path: .\ntrain: train.txt\n{NAMES_BY_NUMBER}\n'}),
    'Label Studio as YOLO': Layout(
        'YOLO', 'images/0a1b2c3d-{stem}.jpg', 'labels/0a1b2c3d-{stem}.txt',
        files={'classes.txt': CLASS_LINES, 'notes.json': '{"categories": [], "info": {}}'}),
    'labels beside the images, names above': Layout(
        'YOLO', 'all/{stem}.JPEG', 'all/{stem}.txt', files={'my.yaml': NAMES_BY_NUMBER}),
    'absolute paths of another machine': Layout(
        'YOLO', '{part}/images/{stem}.jpg', '{part}/labels/{stem}.txt', PLAIN,
        files={'data.yaml': yaml('/content/pets-1/train/images', 'C:\\\\pets\\val\\images',
                                 '/content/pets-1/test/images')}),
    'CVAT as YOLO': Layout(
        'YOLO', 'obj_train_data/{stem}.png', 'obj_train_data/{stem}.txt', lists='train.txt',
        line='data/obj_train_data/{stem}.png', files={'obj.names': CLASS_LINES}),
    'Roboflow as Darknet': Layout(
        'YOLO', '{part}/{stem}.jpg', '{part}/{stem}.txt', ROBOFLOW,
        files={f'{part}/_darknet.labels': CLASS_LINES for part in ROBOFLOW}),
    'labelImg, names beside the labels': Layout(
        'YOLO', 'JPEGImages/{stem}.jpg', 'txt/{stem}.txt', files={'txt/classes.txt': CLASS_LINES}),
    'a confidence, CRLF and blank lines': Layout(
        'YOLO', 'images/{stem}.jpg', 'labels/{stem}.txt', files={'classes.txt': CLASS_LINES},
        edit=lambda text: '\ufeff' + text.replace('\n', ' 0.75\r\n\r\n')),
}  # fmt: skip
LAYOUTS = {
    f'{kind}: {name}': layout
    for kind, table in dict(VOC=VOC, COCO=COCO, YOLO=YOLO).items()
    for name, layout in table.items()
}
