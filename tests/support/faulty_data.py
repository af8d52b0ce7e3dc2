"""Every fault that data may have, each in a small VOC-style folder and in a COCO one."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.data_folders import (
    SIZE,
    coco_document,
    voc_object,
    voc_xml,
    write_image,
    write_voc,
)

SOUND = ('first', 'last')  # images before and after the one with the fault


class Folder:
    """Three images with a box each, of which 'faulty' is the one with a fault.

    ``boxes``, xyxy in pixels from 0, may be anything that a file may contain; ``size`` and
    ``names`` are as annotated; ``edit`` changes the xml's text or the document that is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name, self.content = 'faulty', encode(noise())
        self.size, self.boxes, self.names = SIZE, [(10, 10, 39, 29)], ['cat']
        self.edit: Callable = lambda written: written

    def write_image(self, folder: Path) -> None:
        if self.content is not None:
            (folder / f'{self.name}.jpg').write_bytes(self.content)


class VOC(Folder):
    """As a tree, with a list of its images for each part."""

    def write(self) -> None:
        names = (SOUND[0], self.name, SOUND[1])
        write_voc(self.root, SOUND, dict(train=names, val=names), classes=('cat',))
        self.write_image(self.root / 'JPEGImages')
        objects = [
            voc_object(name, [n if isinstance(n, str) else n + 1 for n in box])
            for name, box in zip(self.names, self.boxes)
        ]
        text = self.edit(voc_xml(*objects, size=self.size))
        if text is not None:
            path = self.root / 'Annotations' / f'{self.name}.xml'
            path.write_text(text, encoding='utf-8')


class COCO(Folder):
    """As a json that is for both parts."""

    def write(self) -> None:
        document = coco_document([f'{name}.jpg' for name in (SOUND[0], self.name, SOUND[1])])
        document['images'][1].update(width=self.size[0], height=self.size[1])
        del document['annotations'][1]
        for number, (name, box) in enumerate(zip(self.names, self.boxes), 10):
            x1, y1, x2, y2 = map(float, box)
            annotation = dict(id=number, image_id=1, bbox=[x1, y1, x2 - x1, y2 - y1], area=1)
            category_id = ('cat', 'dog', 'pig').index(name) + 1
            document['annotations'].append(annotation | dict(category_id=category_id, iscrowd=0))
        document = self.edit(document)
        for number, name in enumerate(SOUND):
            write_image(self.root / 'images' / f'{name}.jpg', number=number)
        self.write_image(self.root / 'images')
        for part in ('train', 'val'):
            text = document if isinstance(document, str) else json.dumps(document)
            (self.root / f'{part}.json').write_text(text)


# -------------------------------------------------------------------------------------- images


def encode(image: Image.Image, kind: str = 'JPEG', **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size=SIZE) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def animation(kind: str, **options) -> bytes:
    """Three frames, of which the first is the darkest."""
    first, *others = (Image.new('RGB', SIZE, (level,) * 3) for level in (10, 120, 250))
    return encode(first, kind, save_all=True, append_images=others, duration=50, **options)


# -------------------------------------------------------------------------------------- faults


def has(**attributes) -> Callable:
    """A fault by which the folder's attributes have other values."""
    return lambda folder: vars(folder).update(attributes)


def second_box(*corners, name='cat') -> Callable:
    return has(boxes=[(10, 10, 39, 29), corners], names=['cat', name])


def xml(old: str, new: str) -> Callable:
    """A fault by which a text in the xml is replaced."""

    def edit(text):
        assert old in text
        return text.replace(old, new)

    return has(edit=edit)


def last_annotation(**changes) -> Callable:
    """A fault by which the json's last annotation has other values; None takes one away."""

    def edit(document):
        annotation = document['annotations'][-1] | changes
        annotation = {key: value for key, value in annotation.items() if value is not None}
        return dict(document, annotations=[*document['annotations'][:-1], annotation])

    return has(edit=edit)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a0 "aaaaaaaaaa">'
    + ''.join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    + ']><annotation>&a9;</annotation>'
)
EXIF = Image.Exif()
EXIF[0x0112] = 6  # orientation
ON_ITS_SIDE = encode(noise(SIZE[::-1]), exif=EXIF)  # displayed in `SIZE`
SIZE_TAGS = '<size><width>80</width><height>60</height><depth>3</depth></size>'

# By the fault's name in docs/data_faults.md. Images carry any content as '.jpg'.
BOTH = {
    'box without area': second_box(20, 20, 20, 40),
    'inverted box': second_box(40, 40, 20, 20),
    'box partly at negative coordinates': second_box(-9, 20, 10, 40),
    'box outside the image': second_box(100, 20, 120, 40),
    'box wholly at negative coordinates': second_box(-30, -30, -10, -10),
    'huge box': second_box(-100000, -100000, 100000, 100000),
    'coordinate NaN': second_box(10, 'nan', 20, 20),
    'coordinate infinite': second_box(10, 10, 'inf', 20),
    'object annotated twice': second_box(10, 10, 39, 29),
    '500 objects': has(
        boxes=[(x, y, 40, 40) for x in range(25) for y in range(20)], names=['cat'] * 500
    ),
    'no objects': has(boxes=[], names=[]),
    'unknown class': second_box(20, 20, 30, 40, name='pig'),
    "size annotated that is not the image's": has(size=(79, 60)),
    'image missing': has(content=None),
    'image of zero bytes': has(content=b''),
    'image that is none': has(content=b'no image' * 9),
    'JPEG cut off': has(content=encode(noise())[:3000]),
    'PNG cut off': has(content=encode(noise(), 'PNG')[:3000]),
    'CMYK image': has(content=encode(noise().convert('CMYK'))),
    'grey image': has(content=encode(noise().convert('L'))),
    '16-bit image': has(content=encode(Image.new('I;16', SIZE, 40000), 'PNG')),
    'RGBA image': has(content=encode(noise().convert('RGBA'), 'PNG')),
    'image turned by EXIF, annotated as displayed': has(content=ON_ITS_SIDE),
    'image turned by EXIF, annotated as stored': has(content=ON_ITS_SIDE, size=SIZE[::-1]),
    'animated GIF': has(content=animation('GIF')),
    'animated PNG': has(content=animation('PNG')),
    'animated WebP': has(content=animation('WEBP', lossless=True)),
    'image of 1 x 1': has(content=encode(noise((1, 1)), 'PNG'), size=(1, 1), boxes=[(0, 0, 1, 1)]),
    'name with spaces and other letters': has(name='ein schönes Bild 猫'),
}  # fmt: skip
OF_VOC = {
    'xml missing': has(edit=lambda _: None),
    'xml without size': xml(SIZE_TAGS, ''),
    'xml with a size of 0': xml('<width>80<', '<width>0<'),
    'xml with a fractional size': xml('<width>80<', '<width>80.0<'),
    'xml with a blank size': xml('<width>80<', '<width><'),
    'xml with fractional coordinates': xml('<xmin>11<', '<xmin>11.4<'),
    'xml with a blank coordinate': xml('<xmin>11<', '<xmin> <'),
    'xml with a blank name': xml('<name>cat<', '<name> <'),
    'xml of another root': has(edit=lambda text: text.replace('annotation>', 'annotations>')),
    'xml that is none': has(edit=lambda _: 'no xml'),
    'xml cut off': has(edit=lambda text: text[:-20]),
    'xml with entities (billion laughs)': has(edit=lambda _: BOMB),
}
OF_COCO = {
    'box of three numbers': last_annotation(bbox=[1, 2, 3]),
    'annotation without an image id': last_annotation(image_id=None),
    'annotation of an unknown image id': last_annotation(image_id=9),
    'annotation without area or iscrowd': last_annotation(area=None, iscrowd=None),
    'ids of annotations that occur twice': last_annotation(id=1),
    'image without width': has(edit=lambda d: d['images'][1].pop('width') and d),
    'crowd': last_annotation(iscrowd=1),
    'no categories': has(edit=lambda document: dict(document, categories=[])),
    'json that is none': has(edit=lambda _: '{"images": ['),
    'json of another kind': has(edit=lambda _: json.dumps(dict(images=[]))),
}
FAULTS = {(VOC, name): fault for name, fault in (BOTH | OF_VOC).items()}
FAULTS |= {(COCO, name): fault for name, fault in (BOTH | OF_COCO).items()}


def write_faulty(kind: type[Folder], fault: str, root: Path) -> Folder:
    """A folder with one of the faults."""
    folder = kind(root)
    FAULTS[kind, fault](folder)
    folder.write()
    return folder
