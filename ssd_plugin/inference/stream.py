"""Images in batches through the detector and into the writers."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from mmengine.structures import InstanceData

from ssd_plugin.datasets.faults import DataFault
from ssd_plugin.inference.inferencer import StreamInferencer
from ssd_plugin.inference.inputs import Image
from ssd_plugin.inference.threads import WriteBehind, work_ahead
from ssd_plugin.inference.writers import Writer


@dataclass
class Tally:
    """What has been done so far."""

    images: int = 0
    detections: int = 0
    faults: list[DataFault] = field(default_factory=list)  # images that can't be decoded
    batch: list[tuple[Image, InstanceData]] = field(default_factory=list)  # the last one

    @property
    def read(self) -> int:
        """Number of images, with those that can't be decoded."""
        return self.images + len(self.faults)


def detect_stream(
    inferencer: StreamInferencer,
    stream: Iterable[Image | DataFault],
    writers: Sequence[Writer],
    batch_size: int,
    score_thr: float | np.ndarray,
    workers: int = 1,
) -> Generator[Tally, None, None]:
    """Detect on images and hand each to the writers, which write in a thread of their own.

    Each writer gets all images with their detections, the highest score first and those with a
    score below ``score_thr`` left out. Yields the tally, always the same object, after each batch.
    ``workers`` threads detect on a batch each. In memory are at most their batches, one more if
    they are several, and what waits for the writers. Close it where it is left early: what waits is
    not written then.
    """
    stream, tally = iter(stream), Tally()
    batches = iter(lambda: list(islice(stream, batch_size)), [])

    def detect(batch: list[Image | DataFault]) -> tuple[list, list[InstanceData]]:
        pixels = [item.pixels for item in batch if isinstance(item, Image)]
        return batch, inferencer.detect(pixels) if pixels else []

    with (
        WriteBehind(writers, batch_size) as behind,
        closing(work_ahead(detect, batches, workers)) as detected,
    ):
        for batch, found in detected:
            images = [item for item in batch if isinstance(item, Image)]
            tally.faults += [item for item in batch if isinstance(item, DataFault)]
            shown = [
                above_threshold(to_file_pixels(*pair), score_thr) for pair in zip(found, images)
            ]
            tally.batch = list(zip(images, shown))
            for image, instances in tally.batch:
                behind.write(image, instances)
                tally.images += 1
                tally.detections += len(instances)
            yield tally


def to_file_pixels(found: InstanceData, image: Image) -> InstanceData:
    """Detections with their boxes in pixels of the image's file."""
    if image.whole:
        ratio = np.divide(image.whole, image.pixels.shape[1::-1], dtype=np.float32)
        found.bboxes = found.bboxes * np.tile(ratio, 2)
    return found


def above_threshold(found: InstanceData, score_thr: float | np.ndarray) -> InstanceData:
    """Detections with a score of ``score_thr`` or more, by falling score.

    It is one number, or (C,) float32 with one for each class.
    """
    least = score_thr[found.labels] if isinstance(score_thr, np.ndarray) else score_thr
    kept = found[found.scores >= least]
    return kept[np.argsort(-kept.scores, kind='stable')]
