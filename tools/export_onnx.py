"""A detector as one ONNX file: python tools/export_onnx.py CONFIG CHECKPOINT OUT"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

import _common as common
import _export as exporting
from _data_check import DataNotFoundError, check_data
from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    text = 'Write a detector as an ONNX file with the same detections.'
    parser = argparse.ArgumentParser(description=text)
    exporting.add_arguments(parser, '.onnx')
    outputs = parser.add_mutually_exclusive_group()
    text = 'output the boxes and scores of all priors, before thresholds and NMS'
    outputs.add_argument('--no-nms', action='store_true', help=text)
    text = 'output scores, deltas and priors, for a program that decodes the boxes itself'
    outputs.add_argument('--raw', action='store_true', help=text)
    text = 'take images as float32, for runtimes that do not take bytes'
    parser.add_argument('--float32', action='store_true', help=text)
    text = 'quantise convolutions to INT8, by 32 of these images (files, folders or patterns)'
    parser.add_argument('--int8', nargs='+', metavar='INPUT', help=text)
    return common.parse_args(parser)


def main() -> None:
    args = parse_args()
    check_arguments(args)
    part = exporting.part_of(args.out)
    quantized = part.with_suffix('.int8.onnx')
    with common.one_line_errors(args):
        try:
            cfg = common.prepare(args, (), args.checkpoint)
            samples = calibration_images(cfg, args) if args.int8 else []
            said = export(cfg, args, part)
            if args.int8:
                said += write_int8(part, quantized, samples)
            (quantized if args.int8 else part).replace(args.out)
            print(*said, sep='\n', flush=True)
            if args.int8:
                print(*say_what_it_costs(cfg, args, part), sep='\n')
        finally:
            part.unlink(missing_ok=True)
            quantized.unlink(missing_ok=True)


def check_arguments(args: argparse.Namespace) -> None:
    """Check what can be checked before anything heavy is imported."""
    for name in ('onnx', 'onnxruntime'):
        if importlib.util.find_spec(name) is None:
            sys.exit(f"{name} is not installed: pip install 'ssd-plugin[export]'")
    exporting.check_out(args.out, '.onnx', 'an ONNX file')


def export(cfg: Config, args: argparse.Namespace, part: Path) -> list[str]:
    """Write ``part`` and compare it with the detector; returns what to print."""
    import onnx
    import torch

    from ssd_plugin.checkpoints.load import load_detector
    from ssd_plugin.datasets.config import input_size
    from ssd_plugin.export.graph import BoxesAndScores, Detections, ScoresAndDeltas
    from ssd_plugin.export.metadata import describe
    from ssd_plugin.export.onnx_file import Graph, build_onnx, signature

    with tempfile.TemporaryDirectory() as folder, common.console().status('Exporting'):
        images = exporting.read_images(args, cfg, folder)
        dtype = torch.float32 if args.float32 else images.samples[0]['inputs'].dtype
        detector, classes = load_detector(cfg, args.checkpoint)
        size, score_thr = input_size(cfg), exporting.thresholds(args, classes)
        graph: Graph
        if args.raw:
            graph = ScoresAndDeltas(detector, size)
        else:
            graph = (BoxesAndScores if args.no_nms else Detections)(detector, size)
        meta = describe(detector, classes, size, args.config, score_thr)
        model = build_onnx(graph, size, dtype, meta)
        onnx.save(model, part)
        same = exporting.require_same(args.out, part, detector, images, 'ONNX Runtime')
    return [f'{args.out}: {signature(model)}', same]


def calibration_images(cfg: Config, args: argparse.Namespace) -> list[dict]:
    """The images of ``--int8``, read before anything is exported."""
    from mmdet.apis.det_inferencer import IMG_EXTENSIONS

    from ssd_plugin.export.check import read_images
    from ssd_plugin.export.quantize import NUM_CALIBRATION
    from ssd_plugin.inference.inputs import find_inputs

    paths = find_inputs(args.int8, suffixes=IMG_EXTENSIONS)
    return read_images(cfg, exporting.sample(paths, NUM_CALIBRATION))


def write_int8(path: Path, out: Path, samples: list[dict]) -> list[str]:
    """Quantise a file; returns what to print."""
    from ssd_plugin.export.quantize import quantize

    with common.console().status('Quantising'):
        quantize(path, out, samples)
    before, after = (file.stat().st_size / 1e6 for file in (path, out))
    return [f'INT8: {before:.1f} -> {after:.1f} MB, calibrated on {len(samples)} images']


def say_what_it_costs(cfg: Config, args: argparse.Namespace, path: Path) -> list[str]:
    """The mAP of the float file at ``path`` and of the INT8 file, in lines to print."""
    from ssd_plugin.errors import InputError
    from ssd_plugin.export.quantize import LOSS_TO_WARN_OF, mean_average_precisions

    if args.raw:
        return ['INT8: what it costs was not measured, for a file of --raw']
    try:
        if not cfg.get('test_dataloader'):
            raise InputError(f'{args.config} has no test_dataloader')
        check_data(cfg, ['test'])
        name, (float_map, int8_map) = mean_average_precisions(cfg, (path, args.out))
    except (DataNotFoundError, InputError) as error:
        return [f'INT8: what it costs could not be measured: {error}']
    said = [f'INT8: {name} {float_map:.4f} -> {int8_map:.4f} on the test set']
    if int8_map < float_map - LOSS_TO_WARN_OF:
        said.append(
            f'WARNING: INT8 LOSES {float_map - int8_map:.4f} {name}. Calibrate on other images, '
            'like those that the file will see, or use it without --int8.'
        )
    return said


if __name__ == '__main__':
    main()
