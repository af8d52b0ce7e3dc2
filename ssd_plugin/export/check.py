"""Whether an exported file answers as the detector that it was made from."""

from __future__ import annotations

from pathlib import Path

import torch
from mmdet.models.detectors import SingleStageDetector
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from ssd_plugin.export.difference import Difference, compare
from ssd_plugin.export.runtime import PROVIDERS, OnnxDetector, open_session
from ssd_plugin.models.postprocess import detect


def check_file(
    path: str | Path, detector: SingleStageDetector, samples: list[dict], with_nms: bool = True
) -> Difference:
    """Compare ONNX Runtime's detections with the detector's own, image by image and in a batch.

    Both run on the CPU.

    Args:
        path: The exported file.
        detector: On the CPU, in evaluation mode.
        samples: What the test pipeline makes of some: ``inputs`` and ``data_samples``.
        with_nms: Whether the file does NMS; the detector's is done here otherwise.

    Returns:
        The difference over all images, each taken twice.
    """
    test_cfg = detector.bbox_head.test_cfg
    images = [sample['inputs'] for sample in samples]
    if with_nms:
        run = OnnxDetector(path, PROVIDERS[-1:]).detect
    else:
        session = open_session(path, PROVIDERS[-1:])

        def run(images: list[Tensor]) -> list[InstanceData]:
            outputs = session.run(None, dict(images=torch.stack(images).numpy()))
            return suppress(*map(torch.from_numpy, outputs), test_cfg)

    expected = predict(detector, samples)
    found = [run([image])[0] for image in images] + run(images)
    return Difference.total(compare(*both, test_cfg) for both in zip(expected * 2, found))


@torch.no_grad()
def predict(detector: SingleStageDetector, samples: list[dict]) -> list[InstanceData]:
    """The detector's detections, boxes in pixels of the network input."""
    batch = detector.data_preprocessor(pseudo_collate(samples))
    found = detector.predict(batch['inputs'], batch['data_samples'], rescale=False)
    return [sample.pred_instances for sample in found]


def suppress(boxes: Tensor, scores: Tensor, test_cfg: dict) -> list[InstanceData]:
    """Detections of boxes (B, P, 4) and scores (B, P, C), by the plugin's own steps."""

    return detect(scores, boxes, boxes[0], DecodedBoxes(), test_cfg)


class DecodedBoxes:
    """The coder of boxes that are decoded already."""

    def decode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """The boxes themselves."""
        return boxes
