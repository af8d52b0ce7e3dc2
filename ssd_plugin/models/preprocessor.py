"""From a loader's batch to what the model takes."""

from __future__ import annotations

from typing import Any

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor


@MODELS.register_module()
class SSDDataPreprocessor(DetDataPreprocessor):
    """MMDetection's ``DetDataPreprocessor`` for heads that take annotations from the host.

    MMDetection's copies boxes and labels of each image to the device, one by one: 128 copies for
    32 images. :class:`~ssd_plugin.models.head.SSDMultiBoxHead` pads them
    on the host and copies the batch. MMDetection's own heads want them on the device: use
    ``DetDataPreprocessor`` with those.

    Arguments and results are those of ``DetDataPreprocessor`` else.
    """

    def __init__(
        self, *args: Any, bgr_to_rgb: bool = False, rgb_to_bgr: bool = False, **kwargs: Any
    ) -> None:
        if bgr_to_rgb and rgb_to_bgr:
            raise ValueError('SSDDataPreprocessor: set bgr_to_rgb or rgb_to_bgr, not both')
        super().__init__(*args, **kwargs)
        self.swaps_channels = bgr_to_rgb or rgb_to_bgr

    def cast_data(self, data: Any) -> Any:
        """Copy tensors to the device, and no annotations; swap the channels of images there.

        Not by a list of indices, as ``DetDataPreprocessor`` does afterwards: that list is copied
        to the device, which has to finish all before.
        """
        if isinstance(data, BaseDataElement):
            return data
        data = super().cast_data(data)
        if self.swaps_channels and isinstance(data, dict) and 'inputs' in data:
            inputs = data['inputs']  # (B, 3, H, W), or a list of (3, H, W)
            swapped = inputs.flip(1) if isinstance(inputs, Tensor) else [i.flip(0) for i in inputs]
            data['inputs'] = swapped
        return data
