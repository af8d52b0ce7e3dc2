"""An ONNX file of a detector, with metadata that describe it."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch

from ssd_plugin.export.graph import BoxesAndScores, Detections
from ssd_plugin.version import __version__

OPSET = 17
OUTPUTS = {BoxesAndScores: ['boxes', 'scores'], Detections: ['boxes', 'scores', 'labels']}


def build_onnx(
    graph: BoxesAndScores | Detections,
    input_size: tuple[int, int],
    dtype: torch.dtype,
    meta: dict[str, str],
) -> onnx.ModelProto:
    """A detector's graph as ONNX: ``images`` to ``boxes``, ``scores`` and, after NMS, ``labels``.

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
            dynamic_axes={name: {0: 'batch'} for name in ['images', *outputs]},
            **legacy,
        )
    model = onnx.load_model_from_string(file.getvalue())
    onnx.helper.set_model_props(model, meta)
    onnx.checker.check_model(model)
    return model


def describe(
    classes: tuple[str, ...], input_size: tuple[int, int], config: str | Path
) -> dict[str, str]:
    """The metadata of a file: names of the classes, input size (w, h), name of the config, ..."""
    return dict(
        ssd_plugin=__version__,
        config=Path(config).name,
        classes=json.dumps(list(classes)),
        input_size=json.dumps(list(input_size)),
        channel_order='BGR',  # as LoadImageFromFile decodes images
    )


def signature(model: onnx.ModelProto) -> str:
    """The inputs and outputs, as one line: ``images (batch, 3, 300, 300) uint8 -> ...``."""

    def text(value: onnx.ValueInfoProto) -> str:
        tensor = value.type.tensor_type
        shape = ', '.join(str(d.dim_param or d.dim_value) for d in tensor.shape.dim)
        return f'{value.name} ({shape}) {onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)}'

    inputs, outputs = (map(text, side) for side in (model.graph.input, model.graph.output))
    return f'{", ".join(inputs)} -> {", ".join(outputs)}'
