"""MMDetection's data sets with a tolerance for faults, and one that is given by a list of files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import partial
from os.path import join

from mmdet.datasets import CocoDataset, VOCDataset, XMLDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get_local_path, list_from_file

from ssd_plugin.datasets.coco_document import NOT_EVALUATED, CleanCOCO
from ssd_plugin.datasets.fault_tolerance import FaultTolerance
from ssd_plugin.datasets.faults import (
    NO_ANNOTATION,
    NOT_AN_ANNOTATION,
    UNKNOWN_CLASS,
    DataFault,
    read_image,
)
from ssd_plugin.datasets.voc_annotation import ERRORS, annotated_size, read_annotation
from ssd_plugin.errors import DataRefusedError


class CheckedXMLDataset(FaultTolerance, XMLDataset):
    """MMDetection's ``XMLDataset``, without the images whose annotation can't be read.

    They are left out as a whole: what else is on them would become background. Where an
    annotation states no size, the image is asked for it. Faults that take no part in training
    alone, boxes without area and the like, are left to ``FaultyBoxHook``.
    """

    def load_data_list(self) -> list[dict]:
        """Read the annotations that can be read."""
        return [info for info in super().load_data_list() if info is not None]

    def parse_data_info(self, img_info: dict) -> dict | None:
        """Read one annotation; None if it can't be read."""
        path = img_info['xml_path']
        try:
            with get_local_path(path, backend_args=self.backend_args) as local_path:
                root = read_annotation(local_path)
            size, instances = annotated_size(root), self._parse_instance_info(root)
        except FileNotFoundError:
            self.faults.append(DataFault(NO_ANNOTATION, path))
            return None
        except ERRORS as error:
            self.faults.append(DataFault(NOT_AN_ANNOTATION, path, str(error)))
            return None
        img_path = join(self.sub_data_root, img_info['file_name'])
        size = size or self._size_of(img_path)
        if size is None:
            return None
        self._note_unknown_classes(root, path)
        info = dict(img_path=img_path, img_id=img_info['img_id'], xml_path=path)
        return dict(info, width=size[0], height=size[1], instances=instances)

    def _size_of(self, img_path: str) -> tuple[int, int] | None:
        """Width and height of an image; None if it can't be decoded."""
        image = read_image(img_path, self.backend_args)
        if isinstance(image, DataFault):
            self.faults.append(image)
            return None
        height, width = image.shape[:2]
        return width, height

    def _note_unknown_classes(self, root: ET.Element, path: str) -> None:
        """MMDetection leaves out objects of classes that the data set has not."""
        names = {element.findtext('name') for element in root.findall('object')}
        unknown = sorted(names.difference(self.metainfo['classes']))
        if unknown:
            self.faults.append(DataFault(UNKNOWN_CLASS, path, ', '.join(unknown)))


@DATASETS.register_module()
class CheckedVOCDataset(CheckedXMLDataset, VOCDataset):
    """MMDetection's ``VOCDataset``, without the images whose annotation can't be read."""


@DATASETS.register_module()
class VOCListDataset(CheckedXMLDataset):
    """VOC's annotations of listed images, wherever they lie and whatever their type is.

    Each line of ``ann_file`` is the path of an image and the path of its annotation, with a tab
    between, both relative to ``data_root``. MMDetection's ``VOCDataset`` builds both paths from a
    name, in one tree, and takes all images for JPEGs. ``img_id`` is the image's path as listed.

    The classes are those of ``metainfo``; it has none by itself. Objects of others are no fault:
    who writes a list chooses the classes. Other arguments are those of MMDetection's
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

    def _note_unknown_classes(self, root: ET.Element, path: str) -> None:
        """They are no fault."""


@DATASETS.register_module()
class CheckedCocoDataset(FaultTolerance, CocoDataset):
    """MMDetection's ``CocoDataset``, of what is sound in a json: see ``coco_document.clean``.

    Raises:
        DataRefusedError: When the json is read: it is none of COCO's kind, it lacks a class, or
            it is for evaluation and ``CocoMetric``, which reads it by itself, would end in an
            error.
    """

    def load_data_list(self) -> list[dict]:
        """Read what is sound in the json."""
        self.COCOAPI = partial(CleanCOCO, faults=self.faults)
        data_list = super().load_data_list()
        missing = len(self.metainfo['classes']) - len(self.cat_ids)
        if missing:
            raise DataRefusedError(
                f'{self.ann_file} has {len(self.cat_ids)} of the {len(self.metainfo["classes"])} '
                "classes of the config among its categories: make the data set's "
                "metainfo.classes the categories' names, in their order"
            )
        if self.test_mode:
            self._require_what_can_be_evaluated()
        return data_list

    def _require_what_can_be_evaluated(self) -> None:
        for kind, path, detail in self.faults:
            if kind in NOT_EVALUATED:
                raise DataRefusedError(
                    f'{self.ann_file} can not be evaluated on by CocoMetric: {kind}, {path}, '
                    f'{detail}; correct it, or have --data-root write a copy without its faults'
                )
