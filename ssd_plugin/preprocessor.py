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

    MMDetection's copies boxes and labels of each picture to the device, one by one; for 32
    pictures that takes longer than the loss. :class:`~ssd_plugin.head.SSDMultiBoxHead` pads them
    on the host and copies the batch. MMDetection's own heads want them on the device: use
    ``DetDataPreprocessor`` with those.

    Arguments and results are those of ``DetDataPreprocessor`` else.
    """

    def __init__(self, *args, bgr_to_rgb: bool = False, rgb_to_bgr: bool = False, **kwargs) -> None:
        if bgr_to_rgb and rgb_to_bgr:
            raise ValueError('SSDDataPreprocessor: set bgr_to_rgb or rgb_to_bgr, not both')
        super().__init__(*args, **kwargs)
        self.swaps_channels = bgr_to_rgb or rgb_to_bgr

    def cast_data(self, data: Any) -> Any:
        """Copy tensors to the device, and no annotations."""
        return data if isinstance(data, BaseDataElement) else super().cast_data(data)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Swap channels, normalise and pad.

        Args:
            data: ``inputs``, a uint8 tensor (B, 3, H, W) or a list of (3, H, W), and
                ``data_samples``.
            training: Whether batches are augmented by ``batch_augments``.

        Returns:
            ``inputs``, float32 (B, 3, H, W) on the device, and ``data_samples``.
        """
        data = self.cast_data(data)
        if self.swaps_channels:
            # Not by a list of indices, as the parent does: that is copied to the device, which
            # has to finish all before.
            inputs = data['inputs']
            data['inputs'] = inputs.flip(1) if isinstance(inputs, Tensor) else _flip_each(inputs)
        return super().forward(data, training)


def _flip_each(images: list[Tensor]) -> list[Tensor]:
    return [image.flip(0) for image in images]
