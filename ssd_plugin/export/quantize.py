"""Convolutions of an exported file in 8-bit integers: ONNX Runtime's static quantisation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from mmengine.config import Config
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from ssd_plugin.engine.launch import build_runner
from ssd_plugin.errors import InputError
from ssd_plugin.export.evaluation import fit_to_data, use_exported

NUM_CALIBRATION = 32  # images; more change the mAP by less than another choice of them does
LOSS_TO_WARN_OF = 0.005  # of mAP


def quantize(path: Path, out: Path, samples: list[dict]) -> None:
    """Write a file with the convolutions of another in INT8, but for the first.

    The first costs an EfficientNet-Lite0 0.014 of its mAP on blood cells, and saves no time. Nor do
    other operations save as much time as they cost accuracy, and signed activations are slower than
    float on x86.

    Args:
        path: A float file of ``tools/export_onnx.py``.
        out: The file to write.
        samples: Images to measure the ranges of activations on, from ``check.read_images``.
    """
    model = onnx.load(path)
    meta = {entry.key: entry.value for entry in model.metadata_props}
    dtype = onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / 'prepared.onnx'  # with batch normalisation folded, and shapes
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node  # in the order in which they are computed
        first = next(node.name for node in nodes if node.op_type == 'Conv')
        quantize_static(
            str(prepared),
            str(out),
            _Reader(samples, dtype),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=['Conv'],
            nodes_to_exclude=[first],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    quantized = onnx.load(out)
    onnx.helper.set_model_props(quantized, meta)
    onnx.save(quantized, out)


class _Reader(CalibrationDataReader):
    """Hands images to ONNX Runtime, one by one."""

    def __init__(self, samples: list[dict], dtype: np.dtype) -> None:
        self.batches: Iterator[dict[str, Any]] = (
            dict(images=sample['inputs'].numpy()[None].astype(dtype)) for sample in samples
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self.batches, None)


def mean_average_precisions(cfg: Config, paths: Sequence[Path]) -> tuple[str, list[float]]:
    """The mAP of exported files on the config's test data: the metric's name, and its values.

    The data must be there.

    Raises:
        InputError: The evaluator gives no mAP: it only writes files, or nothing was detected.
    """
    values = []
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):
            changed = Config(cfg.to_dict())
            use_exported(changed, str(path))
            name = f'{Path(folder).name}_{number}'
            changed.update(work_dir=folder, experiment_name=name, log_level='WARNING')
            # One by the config's name would outlive the folder that it writes to.
            changed.visualizer = dict(type='Visualizer', name=name)
            runner = build_runner(changed)
            fit_to_data(runner)
            metrics = runner.test()
            name = next((name for name in metrics if name.endswith('mAP')), '')
            if not name:
                what = 'float' if number == 0 else 'INT8'
                raise InputError(f'the test evaluator gives no mAP for the {what} file')
            values.append(float(metrics[name]))
    return name, values
