"""An ONNX file of a detector, with metadata that describe it."""

from __future__ import annotations

import io
import json
import warnings
from typing import Any, TypeAlias

import onnx
import torch

from ssd_plugin.export.graph import BoxesAndScores, Detections, ScoresAndDeltas

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
    meta: dict[str, Any],
) -> onnx.ModelProto:
    """A detector's graph as ONNX: ``images`` to the graph's results, named by ``OUTPUTS``.

    ``images`` have an ``input_size`` (w, h) in pixels and are uint8 or float32. The metadata
    ``meta`` come from ``metadata.describe``.
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
    texts = {key: _as_text(value) for key, value in meta.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model)
    return model


def _as_text(value: Any) -> str:
    """A value of the metadata: text as it is, and all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def signature(model: onnx.ModelProto) -> str:
    """The inputs and outputs, as one line: ``images (batch, 3, 300, 300) uint8 -> ...``."""

    def text(value: onnx.ValueInfoProto) -> str:
        tensor = value.type.tensor_type
        shape = ', '.join(str(d.dim_param or d.dim_value) for d in tensor.shape.dim)
        return f'{value.name} ({shape}) {onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)}'

    inputs, outputs = (map(text, side) for side in (model.graph.input, model.graph.output))
    return f'{", ".join(inputs)} -> {", ".join(outputs)}'
