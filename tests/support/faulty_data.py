"""Every fault that data may have, each in a small VOC-style folder and in a COCO one."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.data_folders import (
    BOX,
    SIZE,
    coco_document,
    save_json,
    voc_object,
    voc_xml,
    write_image,
)

CLASSES = ('cat', 'dog')
SOUND = ('first', 'last')  # images before and behind the one with the fault
ORIENTATION = 0x0112


def encode(image: Image.Image, kind: str = 'JPEG', **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size=SIZE, seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def animation(kind: str, **options) -> bytes:
    """Three frames, of which the first is the darkest."""
    first, *others = (Image.new('RGB', SIZE, (level,) * 3) for level in (10, 120, 250))
    return encode(first, kind, save_all=True, append_images=others, duration=50, **options)


def turned(size) -> bytes:
    """An image that is displayed in a stated size, and stored on its side."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encode(noise(size[::-1]), exif=exif)


class Folder:
    """Three images with a box each, of which 'faulty' is the one with a fault.

    ``boxes`` are its boxes, xyxy in pixels from 0, and may be anything that a file may contain;
    ``size`` and ``names`` are what its annotation says.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name, self.content = 'faulty', encode(noise())
        self.size = SIZE
        self.boxes = [(10, 10, 39, 29)]  # BOX
        self.names = ['cat']
        self.edits: list[Callable] = []  # of the xml or the document

    def add(self, *box, name='cat') -> None:
        self.boxes.append(box)
        self.names.append(name)

    def edit(self, change: Callable) -> None:
        """Change the xml's text, or the document, before it is written."""
        self.edits.append(change)

    def write_images(self, folder: Path) -> None:
        for number, name in enumerate(SOUND):
            write_image(folder / f'{name}.jpg', number=number)
        if self.content is not None:
            (folder / f'{self.name}.jpg').write_bytes(self.content)


class VOC(Folder):
    """As a tree, with a list of its images for each part."""

    def write(self) -> None:
        annotations = self.root / 'Annotations'
        annotations.mkdir(parents=True)
        self.write_images(self.root / 'JPEGImages')
        for name in SOUND:
            (annotations / f'{name}.xml').write_text(voc_xml(voc_object(box=BOX)))
        objects = [
            voc_object(name, [_from_one(number) for number in box])
            for name, box in zip(self.names, self.boxes)
        ]
        text = voc_xml(*objects, size=self.size)
        for change in self.edits:
            text = change(text)
        if text is not None:
            (annotations / f'{self.name}.xml').write_text(text, encoding='utf-8')
        lists = self.root / 'ImageSets' / 'Main'
        lists.mkdir(parents=True)
        for part in ('train', 'val'):
            names = (SOUND[0], self.name, SOUND[1])
            (lists / f'{part}.txt').write_text('\n'.join(names), encoding='utf-8')


class COCO(Folder):
    """As a json that is for both parts."""

    def write(self) -> None:
        names = [f'{name}.jpg' for name in (SOUND[0], self.name, SOUND[1])]
        document = coco_document(names)
        document['images'][1].update(width=self.size[0], height=self.size[1])
        document['annotations'] = [a for a in document['annotations'] if a['image_id'] != 1]
        for number, (name, box) in enumerate(zip(self.names, self.boxes), 10):
            x1, y1, x2, y2 = map(float, box)
            document['annotations'].append(
                dict(
                    id=number, image_id=1, category_id=[*CLASSES, 'pig'].index(name) + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1], area=1, iscrowd=0,
                )
            )  # fmt: skip
        for change in self.edits:
            document = change(document)
        (self.root / 'images').mkdir(parents=True)
        self.write_images(self.root / 'images')
        for part in ('train', 'val'):
            if isinstance(document, str):
                (self.root / f'{part}.json').write_text(document)
            else:
                save_json(self.root / f'{part}.json', document)


def _from_one(number: object) -> object:
    """A coordinate as VOC counts it."""
    return number if isinstance(number, str) else number + 1


def box(*corners, **options) -> Callable:
    return lambda folder: folder.add(*corners, **options)


def xml(*replacements: tuple[str, str]) -> Callable:
    """Replace what stands in the xml."""

    def change(text):
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        return text

    return lambda folder: folder.edit(change)


def xml_is(text: str | None) -> Callable:
    return lambda folder: folder.edit(lambda _: text)


def document(change: Callable) -> Callable:
    """Change a json's contents in place."""

    def changed(content):
        change(content)
        return content

    return lambda folder: folder.edit(changed)


def image(make: Callable) -> Callable:
    return lambda folder: setattr(folder, 'content', make())


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def five_hundred(folder: Folder) -> None:
    corners = np.random.default_rng(0).integers(0, 20, (500, 4)) + [0, 0, 25, 25]
    folder.boxes = [tuple(map(int, corner)) for corner in np.unique(corners, axis=0)]
    folder.names = ['cat'] * len(folder.boxes)


def no_objects(folder: Folder) -> None:
    folder.boxes, folder.names = [], []


def one_pixel(folder: Folder) -> None:
    folder.content, folder.size = encode(noise((1, 1)), 'PNG'), (1, 1)
    folder.boxes = [(0, 0, 1, 1)]


def turned_as_displayed(folder: Folder) -> None:
    folder.content = turned(SIZE)


def turned_as_stored(folder: Folder) -> None:
    folder.content, folder.size = turned(SIZE), SIZE[::-1]


def odd_name(folder: Folder) -> None:
    folder.name = 'ein schönes Bild 猫'


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a0 "aaaaaaaaaa">'
    + ''.join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    + ']><annotation>&a9;</annotation>'
)
SIZE_TAGS = '<size><width>80</width><height>60</height><depth>3</depth></size>'

# By the first cell of the row of docs/data_faults.md. Images carry any content as '.jpg'.
BOTH = {
    'box without area': box(20, 20, 20, 40),
    'inverted box': box(40, 40, 20, 20),
    'box partly at negative coordinates': box(-9, 20, 10, 40),
    'box outside the image': box(100, 20, 120, 40),
    'box wholly at negative coordinates': box(-30, -30, -10, -10),
    'huge box': box(-100000, -100000, 100000, 100000),
    'coordinate NaN': box(10, 'nan', 20, 20),
    'coordinate infinite': box(10, 10, 'inf', 20),
    'object annotated twice': box(10, 10, 39, 29),
    '500 objects': five_hundred,
    'no objects': no_objects,
    'unknown class': box(20, 20, 30, 40, name='pig'),
    'size annotated that is not the image\'s': lambda folder: setattr(folder, 'size', (79, 60)),
    'image missing': image(lambda: None),
    'image of zero bytes': image(lambda: b''),
    'image that is none': image(lambda: b'no image' * 9),
    'JPEG cut off': image(lambda: cut(encode(noise()))),
    'PNG cut off': image(lambda: cut(encode(noise(), 'PNG'))),
    'CMYK image': image(lambda: encode(noise().convert('CMYK'))),
    'grey image': image(lambda: encode(noise().convert('L'))),
    '16-bit image': image(
        lambda: encode(Image.fromarray(np.full(SIZE[::-1], 40000, np.uint16)), 'PNG')
    ),
    'RGBA image': image(lambda: encode(noise().convert('RGBA'), 'PNG')),
    'image turned by EXIF, annotated as displayed': turned_as_displayed,
    'image turned by EXIF, annotated as stored': turned_as_stored,
    'animated GIF': image(lambda: animation('GIF')),
    'animated PNG': image(lambda: animation('PNG')),
    'animated WebP': image(lambda: animation('WEBP', lossless=True)),
    'image of 1 x 1': one_pixel,
    'name with spaces and other letters': odd_name,
}  # fmt: skip
OF_VOC = {
    'xml missing': xml_is(None),
    'xml without size': xml((SIZE_TAGS, '')),
    'xml with a size of 0': xml(('<width>80<', '<width>0<')),
    'xml with a fractional size': xml(('<width>80<', '<width>80.0<')),
    'xml with a blank size': xml(('<width>80<', '<width><')),
    'xml with fractional coordinates': xml(('<xmin>11<', '<xmin>11.4<')),
    'xml with a blank coordinate': xml(('<xmin>11<', '<xmin> <')),
    'xml that is none': xml_is('no xml'),
    'xml cut off': xml_is(voc_xml(voc_object())[:-20]),
    'xml with entities (billion laughs)': xml_is(BOMB),
}
OF_COCO = {
    'box of three numbers': document(lambda d: d['annotations'][-1].update(bbox=[1, 2, 3])),
    'annotation without an image id': document(lambda d: d['annotations'][-1].pop('image_id')),
    'annotation of an unknown image id': document(
        lambda d: d['annotations'][-1].update(image_id=9)
    ),
    'annotation without area or iscrowd': document(
        lambda d: [d['annotations'][-1].pop(key) for key in ('area', 'iscrowd')]
    ),
    'ids of annotations that occur twice': document(
        lambda d: d['annotations'][-1].update(id=d['annotations'][0]['id'])
    ),
    'image without width': document(lambda d: d['images'][1].pop('width')),
    'crowd': document(lambda d: d['annotations'][-1].update(iscrowd=1)),
    'no categories': document(lambda d: d['categories'].clear()),
    'json that is none': lambda folder: folder.edit(lambda _: '{"images": ['),
    'json of another kind': lambda folder: folder.edit(lambda _: json.dumps(dict(images=[]))),
}
FAULTS = {**{(VOC, name): fault for name, fault in (BOTH | OF_VOC).items()},
          **{(COCO, name): fault for name, fault in (BOTH | OF_COCO).items()}}  # fmt: skip


def write_faulty(kind: type[Folder], fault: str, root: Path) -> Folder:
    """A folder with one of the faults."""
    folder = kind(root)
    FAULTS[kind, fault](folder)
    folder.write()
    return folder
