"""Pascal VOC's annotations: the reader of an xml, and a data set that tolerates faults."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from codecs import BOM_UTF8
from math import inf, isfinite
from os.path import join

from mmdet.datasets import VOCDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get

from ssd_plugin.datasets.fault_tolerance import FaultTolerance
from ssd_plugin.datasets.faults import AnnotatedBox, AnnotatedImage, DataFault, Kind, read_image

ERRORS = (OSError, ET.ParseError, ValueError, LookupError)  # LookupError: of an unknown encoding
DECLARATION = re.compile(rb'<\?xml[^>]*encoding=["\']([\w.:-]+)["\'][^>]*\?>')


@DATASETS.register_module()
class CheckedVOCDataset(FaultTolerance, VOCDataset):
    """MMDetection's ``VOCDataset``, without the images whose annotation cannot be read.

    Such an image is left out as a whole: training would take its ground-truth boxes for background.
    Objects that cannot be read are left out, and recorded. Where an annotation states no size, the
    image file is asked for it. Boxes without area and the like are kept: training leaves them out,
    and ``DataFaultHook`` reports them.
    """

    def load_data_list(self) -> list[dict]:
        """Read the annotations that can be read."""
        return [info for info in super().load_data_list() if info is not None]

    def parse_data_info(self, img_info: dict) -> dict | None:
        """Read one annotation; None if it cannot be read."""
        path = img_info['xml_path']
        image = read_annotation(path, self.backend_args)
        if isinstance(image, DataFault):
            self.faults.append(image)
            return None
        img_path = join(self.sub_data_root, img_info['file_name'])
        size = image.size
        if size is None:
            pixels = read_image(img_path, self.backend_args)
            if isinstance(pixels, DataFault):
                self.faults.append(pixels)
                return None
            size = pixels.shape[1], pixels.shape[0]
        self.faults += image.faults
        self._note_unknown_classes(image, path)
        info = dict(img_path=img_path, img_id=img_info['img_id'], xml_path=path)
        return dict(info, width=size[0], height=size[1], instances=self._instances(image))

    def _note_unknown_classes(self, image: AnnotatedImage, path: str) -> None:
        """Record the classes that the data set has not, whose boxes are left out."""
        self.faults += [
            DataFault(Kind.UNKNOWN_CLASS, path, f'{box.name} {box.bbox}')
            for box in image.boxes
            if box.name not in self.metainfo['classes']
        ]

    def _instances(self, image: AnnotatedImage) -> list[dict]:
        """The boxes of known classes as MMDetection has them; it ignores small ones on request."""
        least = -inf if self.bbox_min_size is None else self.bbox_min_size
        return [
            dict(
                bbox=list(bbox),
                bbox_label=self.cat2label[name],
                ignore_flag=int(ignored or min(bbox[2] - bbox[0], bbox[3] - bbox[1]) < least),
            )
            for name, bbox, ignored, _ in image.boxes
            if name in self.cat2label
        ]


def read_annotation(path: str, backend_args: dict | None = None) -> AnnotatedImage | DataFault:
    """Read an xml, or say why it cannot be read.

    Where MMDetection's ``XMLDataset`` ends with an error, an object without a name or without four
    finite coordinates is left out as a fault; a size that is no two numbers is none. Coordinates
    keep their fractions, which ``XMLDataset`` cuts off: whole numbers are the same in both.

    A file that declares a document type is read no further, so entities in it never grow
    ("billion laughs").

    Returns:
        The image's ``path`` is the file name that the xml states, '' if it states none.
    """
    try:
        root = _parse(get(path, backend_args))
    except FileNotFoundError:
        return DataFault(Kind.NO_ANNOTATION, path)
    except ERRORS as error:
        return DataFault(Kind.NOT_AN_ANNOTATION, path, str(error))
    if root.tag != 'annotation':
        return DataFault(Kind.NOT_AN_ANNOTATION, path, f'it is <{root.tag}>, not <annotation>')
    boxes: list[AnnotatedBox] = []
    faults: list[DataFault] = []
    for number, element in enumerate(root.findall('object'), 1):
        box = _read_box(element)
        if isinstance(box, AnnotatedBox):
            boxes.append(box)
        else:
            faults.append(DataFault(box, path, f'object {number}: {_text(element, "name")}'))
    return AnnotatedImage(_text(root, 'filename'), _read_size(root), boxes, faults)


def _parse(content: bytes) -> ET.Element:
    """The root of an xml; where its parser doesn't know the encoding, Python's codecs may."""
    try:
        return ET.fromstring(content.lstrip(), ET.XMLParser(target=_WithoutDoctype()))
    except (ET.ParseError, ValueError, LookupError) as error:
        declared = DECLARATION.match(content.removeprefix(BOM_UTF8).lstrip())
        if declared is None:
            raise
        for encoding in (declared[1].decode(), 'utf-8-sig'):  # a wrong one may be declared
            try:
                text = content.decode(encoding).split('?>', 1)[1].lstrip()
            except (LookupError, ValueError):
                continue
            return ET.fromstring(text, ET.XMLParser(target=_WithoutDoctype()))
        raise error


class _WithoutDoctype(ET.TreeBuilder):
    """Stops at a document type: annotations need none, and entities are declared in one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError('it declares a document type, in which entities may hide')


def _read_size(root: ET.Element) -> tuple[int, int] | None:
    width, height = (_number(_text(root, f'size/{name}')) for name in ('width', 'height'))
    return None if width is None or height is None else (int(width), int(height))


def _read_box(element: ET.Element) -> AnnotatedBox | str:
    """An object's box, or the kind of its fault."""
    names = ('xmin', 'ymin', 'xmax', 'ymax')
    corners = [_number(_text(element, f'bndbox/{name}')) for name in names]
    x1, y1, x2, y2 = corners
    if x1 is None or y1 is None or x2 is None or y2 is None:
        return Kind.NOT_A_BOX
    name = _text(element, 'name')
    if not name:
        return Kind.NO_NAME
    difficult = _text(element, 'difficult').lower()
    ignored = difficult in ('true', 'yes') or bool(_number(difficult))
    return AnnotatedBox(name, (x1 - 1, y1 - 1, x2 - 1, y2 - 1), ignored)  # VOC counts from 1


def _number(text: str) -> float | None:
    """A finite number, whole where it can be; None if the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    if not isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def _text(element: ET.Element, path: str) -> str:
    """The text of an element below this one, without blanks around it; '' if there is none."""
    return (element.findtext(path) or '').strip()
