"""A detector as a file for LiteRT, with metadata that describe it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import litert_torch
import torch
from torch import Tensor, nn

from ssd_plugin.export.graph import BoxesAndScores
from ssd_plugin.export.litert import LABELS, METADATA


class ForDevices(nn.Module):
    """A graph that takes images as cameras and Android's bitmaps have them: one, (1, h, w, 3) RGB.

    Others take BGR, as OpenCV reads files.
    """

    def __init__(self, graph: BoxesAndScores) -> None:
        super().__init__()
        self.boxes_and_scores = graph

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Boxes (1, P, 4) in pixels and scores (1, P, C) for ``images`` (1, h, w, 3) float32."""
        boxes, scores = self.boxes_and_scores(images.flip(3).permute(0, 3, 1, 2))
        return dict(boxes=boxes, scores=scores)


def write_tflite(
    graph: BoxesAndScores, input_size: tuple[int, int], path: Path, meta: dict[str, Any]
) -> None:
    """Write a detector's graph; ``input_size`` is (w, h) in pixels.

    The metadata ``meta`` of ``metadata.describe`` become a zip archive at the end of the file, with
    the names of the classes in a file of their own, one a line, as Android's libraries expect it.
    LiteRT does not read so far.
    """
    width, height = input_size
    litert_torch.config.show_progress = False
    images = torch.zeros(1, height, width, 3)
    with torch.no_grad():
        converted = litert_torch.convert(
            ForDevices(graph).eval(), sample_kwargs=dict(images=images)
        )
    converted.export(str(path))
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(LABELS, '\n'.join(meta['classes']) + '\n')
        archive.writestr(METADATA, json.dumps(meta, ensure_ascii=False, indent=1) + '\n')
