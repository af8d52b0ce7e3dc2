"""Pascal VOC's annotations: the reader of an xml, and data sets that tolerate faults."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from math import inf
from os.path import join

from mmdet.datasets import VOCDataset, XMLDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get_local_path, list_from_file

from ssd_plugin.datasets.fault_tolerance import FaultTolerance
from ssd_plugin.datasets.faults import AnnotatedBox, AnnotatedImage, DataFault, Kind, read_image

# What reading a faulty file raises: LookupError for an unknown encoding, OverflowError for an
# infinite coordinate.
ERRORS = (OSError, ET.ParseError, ValueError, LookupError, OverflowError)


class CheckedXMLDataset(FaultTolerance, XMLDataset):
    """MMDetection's ``XMLDataset``, without the images whose annotation cannot be read.

    Such an image is left out as a whole: training would take its other ground-truth boxes for
    background. Where an annotation states no size, the image file is asked for it. Boxes without
    area and the like are kept: training leaves them out, and ``DataFaultHook`` reports them.
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
        self._note_unknown_classes(image)
        info = dict(img_path=img_path, img_id=img_info['img_id'], xml_path=path)
        return dict(info, width=size[0], height=size[1], instances=self._instances(image))

    def _note_unknown_classes(self, image: AnnotatedImage) -> None:
        """Record the classes that the data set has not, whose boxes are left out."""
        unknown = sorted({box.name for box in image.boxes}.difference(self.metainfo['classes']))
        if unknown:
            self.faults.append(DataFault(Kind.UNKNOWN_CLASS, image.source, ', '.join(unknown)))

    def _instances(self, image: AnnotatedImage) -> list[dict]:
        """The boxes of known classes as MMDetection has them; it ignores small ones on request."""
        least = -inf if self.bbox_min_size is None else self.bbox_min_size
        return [
            dict(
                bbox=list(bbox),
                bbox_label=self.cat2label[name],
                ignore_flag=int(ignored or min(bbox[2] - bbox[0], bbox[3] - bbox[1]) < least),
            )
            for name, bbox, ignored in image.boxes
            if name in self.cat2label
        ]


@DATASETS.register_module()
class CheckedVOCDataset(CheckedXMLDataset, VOCDataset):
    """MMDetection's ``VOCDataset``, without the images whose annotation cannot be read."""


@DATASETS.register_module()
class VOCListDataset(CheckedXMLDataset):
    """VOC's annotations of listed images, wherever the images are and whatever their type is.

    Each line of ``ann_file`` is the path of an image and the path of its annotation, separated by
    a tab, both relative to ``data_root``. MMDetection's ``VOCDataset`` builds both paths from one
    name, in one tree, and takes all images for JPEGs. ``img_id`` is the image's path as listed.

    The classes are those of ``metainfo``, which must be given. Boxes of other classes are no fault:
    whoever writes a list chooses the classes. The other arguments are those of MMDetection's
    ``XMLDataset``.
    """

    @property
    def sub_data_root(self) -> str:
        """What the listed paths are relative to."""
        return self.data_root

    def load_data_list(self) -> list[dict]:
        """Read the annotations of the listed images."""
        self.cat2label = {name: i for i, name in enumerate(self.metainfo['classes'])}
        data_list = []
        for line in list_from_file(self.ann_file, backend_args=self.backend_args):
            image, annotation = line.split('\t')
            xml_path = join(self.data_root, annotation)
            info = dict(img_id=image, file_name=image, xml_path=xml_path)
            data_list.append(self.parse_data_info(info))
        return [info for info in data_list if info is not None]

    def _note_unknown_classes(self, image: AnnotatedImage) -> None:
        """They are no fault."""


def read_annotation(path: str, backend_args: dict | None = None) -> AnnotatedImage | DataFault:
    """Read an xml by the rules of MMDetection's ``XMLDataset``, or say why it cannot be read.

    A file that declares a document type is read no further, so entities in it never grow
    ("billion laughs").

    Returns:
        The image's ``path`` is the file name that the xml states, '' if it states none; its
        ``source`` is the path of the xml.
    """
    try:
        with get_local_path(path, backend_args=backend_args) as local_path:
            root = ET.parse(local_path, parser=ET.XMLParser(target=_WithoutDoctype())).getroot()
        boxes = [_read_box(element) for element in root.findall('object')]
        return AnnotatedImage(root.findtext('filename') or '', _read_size(root), boxes, [], path)
    except FileNotFoundError:
        return DataFault(Kind.NO_ANNOTATION, path)
    except ERRORS as error:
        return DataFault(Kind.NOT_AN_ANNOTATION, path, str(error))


class _WithoutDoctype(ET.TreeBuilder):
    """Stops at a document type: annotations need none, and entities are declared in one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError('it declares a document type, in which entities may hide')


def _read_size(root: ET.Element) -> tuple[int, int] | None:
    size = root.find('size')
    if size is None:
        return None
    return int(float(_text(size, 'width'))), int(float(_text(size, 'height')))


def _read_box(element: ET.Element) -> AnnotatedBox:
    corners = (_text(element, f'bndbox/{name}') for name in ('xmin', 'ymin', 'xmax', 'ymax'))
    x1, y1, x2, y2 = (int(float(corner)) - 1 for corner in corners)  # VOC counts from 1
    difficult = element.find('difficult') is not None and int(_text(element, 'difficult'))
    return AnnotatedBox(_text(element, 'name'), (x1, y1, x2, y2), bool(difficult))


def _text(element: ET.Element, path: str) -> str:
    """The text of an element below this one; ``ValueError`` if it is missing or blank."""
    text = element.findtext(path) or ''
    if not text.strip():
        raise ValueError(f'<{element.tag}> has no {path.split("/")[-1]}')
    return text
