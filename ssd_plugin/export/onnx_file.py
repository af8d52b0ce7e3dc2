"""An ONNX file of a detector, with metadata that describe it."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import torch
from mmdet.models.detectors import SingleStageDetector
from torch import nn

from ssd_plugin.export.graph import BoxesAndScores, Detections, ScoresAndDeltas
from ssd_plugin.version import __version__

OPSET = 17
Graph: TypeAlias = Detections | BoxesAndScores | ScoresAndDeltas
OUTPUTS = {
    Detections: ['boxes', 'scores', 'labels'],
    BoxesAndScores: ['boxes', 'scores'],
    ScoresAndDeltas: ['scores', 'deltas', 'priors'],
}


def build_onnx(
    graph: Graph,
    input_size: tuple[int, int],
    dtype: torch.dtype,
    meta: dict[str, str],
) -> onnx.ModelProto:
    """A detector's graph as ONNX: ``images`` to the graph's results, named by ``OUTPUTS``.

    ``images`` have an ``input_size`` (w, h) in pixels and are uint8 or float32. The metadata
    ``meta`` come from :func:`describe`.
    """
    width, height = input_size
    # The exporter could take a batch of one for a constant; hence two.
    images = torch.zeros(2, 3, height, width, dtype=dtype)
    outputs = OUTPUTS[type(graph)]
    file = io.BytesIO()
    # The tracing exporter works with all versions of PyTorch that the plugin supports, needs no
    # further packages, and takes a tenth of the time of the one based on torch.export.
    legacy: dict[str, Any] = {} if torch.__version__ < '2.5' else dict(dynamo=False)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that it traces, and that shapes become constants
        torch.onnx.export(
            graph.eval(),
            (images,),
            file,  # type: ignore[arg-type] # the tracing exporter takes an open file
            opset_version=OPSET,
            input_names=['images'],
            output_names=outputs,
            dynamic_axes={name: {0: 'batch'} for name in ['images', *outputs] if name != 'priors'},
            **legacy,
        )
        results = graph(images)
    model = onnx.load_model_from_string(file.getvalue())
    # The exporter knows no sizes of what depends on a number of candidates, such as N.
    for output, result in zip(model.graph.output, results, strict=True):
        first = 0 if output.name == 'priors' else 1  # after the batch
        for place in range(first, result.ndim):
            output.type.tensor_type.shape.dim[place].dim_value = result.size(place)
    onnx.helper.set_model_props(model, meta)
    onnx.checker.check_model(model)
    return model


def describe(
    detector: SingleStageDetector,
    classes: tuple[str, ...],
    input_size: tuple[int, int],
    config: str | Path,
    score_thr: dict[str, float] | None = None,
) -> dict[str, str]:
    """The metadata of a file; all but ``ssd_plugin``, ``config`` and ``channel_order`` are JSON.

    Args:
        detector: Its preprocessor and box coder are described.
        classes: Names, by label.
        input_size: (w, h) in pixels.
        config: Its file name is written.
        score_thr: For each class the least score of a detection to show.
    """
    preprocessor, coder = detector.data_preprocessor, detector.bbox_head.bbox_coder
    meta = dict(
        classes=list(classes),
        input_size=list(input_size),
        # What the graph does, for those who replace it: in the order of channel_order.
        mean=_in_input_order(preprocessor, 'mean', 0.0),
        std=_in_input_order(preprocessor, 'std', 1.0),
        delta_means=list(getattr(coder, 'means', ())),
        delta_stds=list(getattr(coder, 'stds', ())),
        **({} if score_thr is None else dict(score_thr=score_thr)),
    )
    return dict(
        ssd_plugin=__version__,
        config=Path(config).name,
        channel_order='BGR',  # as LoadImageFromFile decodes images
        **{key: json.dumps(value, ensure_ascii=False) for key, value in meta.items()},
    )


def _in_input_order(preprocessor: nn.Module, name: str, default: float) -> list[float]:
    """A preprocessor's value of each channel, in the order in which images come."""
    value = getattr(preprocessor, name, None)
    values = [default] * 3 if value is None else [round(v, 6) for v in value.flatten().tolist()]
    return values[::-1] if getattr(preprocessor, '_channel_conversion', False) else values


def signature(model: onnx.ModelProto) -> str:
    """The inputs and outputs, as one line: ``images (batch, 3, 300, 300) uint8 -> ...``."""

    def text(value: onnx.ValueInfoProto) -> str:
        tensor = value.type.tensor_type
        shape = ', '.join(str(d.dim_param or d.dim_value) for d in tensor.shape.dim)
        return f'{value.name} ({shape}) {onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)}'

    inputs, outputs = (map(text, side) for side in (model.graph.input, model.graph.output))
    return f'{", ".join(inputs)} -> {", ".join(outputs)}'
