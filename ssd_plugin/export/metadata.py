"""What an exported file says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.models.detectors import SingleStageDetector
from torch import nn

from ssd_plugin.version import __version__


class Metadata(NamedTuple):
    """What a program that detects with a file needs of it."""

    classes: tuple[str, ...]  # names, by label
    input_size: tuple[int, int]  # (w, h) in pixels
    config: str  # the file name of the config that it was exported with
    score_thr: dict[str, float] | None  # of each class: the least score of a detection to keep
    test_cfg: dict[str, Any] | None  # of the post-processing, which may be inside

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Metadata:
        """From values as :func:`describe` gives them."""
        width, height = values['input_size']
        classes = tuple(values['classes'])
        rest = values['config'], values.get('score_thr'), values.get('test_cfg')
        return cls(classes, (width, height), *rest)


def describe(
    detector: SingleStageDetector,
    classes: tuple[str, ...],
    input_size: tuple[int, int],
    config: str | Path,
    score_thr: dict[str, float] | None = None,
    channel_order: str = 'BGR',
) -> dict[str, Any]:
    """The metadata of a file: texts, numbers, lists, and a dict of thresholds.

    Args:
        detector: Its preprocessor, box coder and post-processing are described.
        classes: Names, by label.
        input_size: (w, h) in pixels.
        config: Its file name is written.
        score_thr: For each class the least score of a detection to show.
        channel_order: Of the file's images, ``BGR`` or ``RGB``.
    """
    preprocessor, coder = detector.data_preprocessor, detector.bbox_head.bbox_coder
    return dict(
        ssd_plugin=__version__,
        config=Path(config).name,
        channel_order=channel_order,
        classes=list(classes),
        input_size=list(input_size),
        # What the graph does, for those who replace it: in the order of channel_order.
        **normalisation(preprocessor, channel_order),
        delta_means=list(getattr(coder, 'means', ())),
        delta_stds=list(getattr(coder, 'stds', ())),
        test_cfg=dict(detector.bbox_head.test_cfg),
        **({} if score_thr is None else dict(score_thr=score_thr)),
    )


def normalisation(preprocessor: nn.Module, channel_order: str) -> dict[str, list[float]]:
    """``mean`` and ``std`` of the channels in that order; the preprocessor's is the network's."""
    swaps = getattr(preprocessor, 'swaps_channels', False)  # ours
    swaps = swaps or getattr(preprocessor, '_channel_conversion', False)  # MMDetection's
    own = 'RGB' if swaps else 'BGR'  # pipelines load images as BGR
    found = {}
    for name, default in (('mean', 0.0), ('std', 1.0)):
        value = getattr(preprocessor, name, None)
        values = [default] * 3 if value is None else [round(v, 6) for v in value.flatten().tolist()]
        found[name] = values if channel_order == own else values[::-1]
    return found
