"""A data set of VOC's annotations that is given by a list of files."""

from __future__ import annotations

from os.path import join

from mmdet.datasets import XMLDataset
from mmdet.registry import DATASETS
from mmengine.fileio import list_from_file


@DATASETS.register_module()
class VOCListDataset(XMLDataset):
    """VOC's annotations of listed pictures, wherever they lie and whatever their type is.

    Each line of ``ann_file`` is the path of a picture and the path of its annotation, with a tab
    between, both relative to ``data_root``. MMDetection's ``VOCDataset`` builds both paths from a
    name, in one tree, and takes all pictures for JPEGs. ``img_id`` is the picture's path as listed.

    The classes are those of ``metainfo``; it has none by itself. Other arguments are those of
    MMDetection's ``XMLDataset``.
    """

    @property
    def sub_data_root(self) -> str:
        """What the listed paths are relative to."""
        return self.data_root

    def load_data_list(self) -> list[dict]:
        """Read the annotations of the listed pictures."""
        self.cat2label = {name: i for i, name in enumerate(self.metainfo['classes'])}
        data_list = []
        for line in list_from_file(self.ann_file, backend_args=self.backend_args):
            picture, annotation = line.split('\t')
            xml_path = join(self.data_root, annotation)
            info = dict(img_id=picture, file_name=picture, xml_path=xml_path)
            data_list.append(self.parse_data_info(info))
        return data_list
