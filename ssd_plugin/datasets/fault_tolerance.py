"""How the package's data sets deal with faults: they record them and go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import BaseDetDataset
from mmdet.datasets.transforms import LoadImageFromNDArray
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose

from ssd_plugin.datasets.faults import (
    CUT_OFF,
    DataFault,
    Kind,
    read_image,
    size_faults,
)
from ssd_plugin.datasets.jpeg import file_is_cut_off
from ssd_plugin.datasets.transforms.deferred_decoding import Step, defer_decoding
from ssd_plugin.errors import DataRefusedError


class FaultTolerance(BaseDetDataset):
    """What the package's data sets add to MMDetection's: a fault is recorded and ends nothing.

    1. ``faults`` lists what reading the annotations has found, in each process.
    2. In training, an image that cannot be decoded is passed over: the next one takes its place,
       the same whatever the worker or the random numbers.
    3. In evaluation every image counts. A black one stands in for one that cannot be decoded, with
       ``unreadable=True`` in its sample: ``DataFaultHook`` removes the model's detections in it.
    4. Faults that are found while images are loaded travel with a sample, from whatever process:
       its ``data_faults`` is a list of :class:`DataFault`. Most samples have none.
    5. ``num_empty_left_out`` is the number of images without objects that the config's
       ``filter_cfg`` leaves out.
    6. Of a JPEG file of more than 4 megapixels no more resolution is decoded than the pipeline's
       ``SSDAugment`` or ``Resize`` needs: :func:`defer_decoding`.

    Raises:
        DataRefusedError: When the annotations are read: no image is left.
    """

    def __init__(self, pipeline: Sequence[Step] = (), **kwargs: Any) -> None:
        self.faults: list[DataFault] = []
        self._passed_over: list[DataFault] = []  # since the last sample
        self._last_index = 0
        self.num_empty_left_out = 0
        super().__init__(pipeline=defer_decoding(pipeline), **kwargs)

    def filter_data(self) -> list[dict]:
        """The images that are used; at least one."""
        num_empty = count_empty(self.data_list)
        data_list = super().filter_data()
        self.num_empty_left_out = num_empty - count_empty(data_list)
        if not data_list:
            reason = f' ({self.faults[0]})' if self.faults else ''
            raise DataRefusedError(f'{self.ann_file}: no image is left to use{reason}')
        return data_list

    def prepare_data(self, idx: int) -> dict | None:
        """An image through the pipeline; None if training has to take another one."""
        self._last_index = idx
        info = self.get_data_info(idx)
        fault, data = self._load(idx, info['img_path'])
        if fault and self.test_mode:
            return self._stand_in(info, fault)
        if fault:
            self._passed_over.append(fault)
        if data is None:
            return None
        passed_over, self._passed_over = self._passed_over, []
        annotated = info['width'], info['height']
        for sample in _samples(data):
            size = sample.get('ori_shape', annotated[::-1])[1::-1]
            found = passed_over + size_faults(info['img_path'], annotated, size)
            if found:
                sample.set_metainfo(dict(data_faults=found))
        return data

    def _load(self, idx: int, path: str) -> tuple[DataFault | None, dict | None]:
        """Why an image cannot be decoded, or else what the pipeline makes of it."""
        try:
            if self.backend_args is None and file_is_cut_off(path):
                return DataFault(Kind.NOT_AN_IMAGE, path, CUT_OFF), None
            return None, super().prepare_data(idx)
        except Exception:  # loaders may raise anything; if the image is sound, it is no data fault
            image = read_image(path, self.backend_args)
            if not isinstance(image, DataFault):
                raise
            return image, None

    def _stand_in(self, info: dict, fault: DataFault) -> dict:
        """A black image through the pipeline, with the annotation of one that cannot be decoded."""
        steps = [
            LoadImageFromNDArray() if isinstance(step, LoadImageFromFile) else step
            for step in self.pipeline.transforms
        ]
        data = Compose(steps)(dict(info, img=np.zeros((1, 1, 3), np.uint8)))
        for sample in _samples(data):
            meta = dict(img_path=info['img_path'], data_faults=[fault], unreadable=True)
            sample.set_metainfo(meta)
        return data

    def _rand_another(self) -> int:
        """The index in place of one that is passed over: the next; MMEngine draws one."""
        return (self._last_index + 1) % len(self)


def count_empty(data_list: list[dict]) -> int:
    """How many images have no objects."""
    return sum(not info['instances'] for info in data_list)


def _samples(data: dict) -> list[DetDataSample]:
    """The samples at the end of a pipeline: one, or one for each view, or none."""
    samples = data.get('data_samples', [])
    return samples if isinstance(samples, list) else [samples]
