"""A detector as one ONNX file: python tools/export_onnx.py CONFIG CHECKPOINT OUT"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

import _common as common
from _data_check import DataNotFoundError, check_data
from mmengine.config import Config

NUM_IMAGES = 4  # of the test set that the file is checked on, if no images are named
MAX_IMAGES = 16  # of those that are named: one batch has them all


def parse_args() -> argparse.Namespace:
    text = 'Write a detector as an ONNX file with the same detections.'
    parser = argparse.ArgumentParser(description=text)
    common.add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', type=Path, metavar='OUT', help='file to write, NAME.onnx')
    text = "images, folders or patterns 'a/**/*.jpg' to check it on: up to 16 images, by default "
    text += "4 of the test set, or drawn ones if it isn't there"
    parser.add_argument('--images', nargs='+', metavar='INPUT', help=text)
    outputs = parser.add_mutually_exclusive_group()
    text = 'output the boxes and scores of all priors, before thresholds and NMS'
    outputs.add_argument('--no-nms', action='store_true', help=text)
    text = 'output scores, deltas and priors, for a program that decodes the boxes itself'
    outputs.add_argument('--raw', action='store_true', help=text)
    text = 'take images as float32, for runtimes that do not take bytes'
    parser.add_argument('--float32', action='store_true', help=text)
    text = 'least score of a detection to show, which the file carries: a number, or a JSON file '
    text += 'with one for each class'
    parser.add_argument('--score-thr', metavar='SCORE', help=text)
    text = 'quantise convolutions to INT8, by 32 of these images (files, folders or patterns)'
    parser.add_argument('--int8', nargs='+', metavar='INPUT', help=text)
    return common.parse_args(parser)


def main() -> None:
    args = parse_args()
    check_arguments(args)
    part = args.out.with_name(f'{args.out.name}.{os.getpid()}.part')
    quantized = part.with_suffix('.int8.part')
    with common.one_line_errors(args):
        try:
            cfg = common.prepare(args, (), args.checkpoint)
            said = export(cfg, args, part)
            if args.int8:
                said += write_int8(cfg, args, part, quantized)
            (quantized if args.int8 else part).replace(args.out)
        finally:
            part.unlink(missing_ok=True)
            quantized.unlink(missing_ok=True)
    print(*said, sep='\n')


def check_arguments(args: argparse.Namespace) -> None:
    """Check what can be checked before anything heavy is imported."""
    for name in ('onnx', 'onnxruntime'):
        if importlib.util.find_spec(name) is None:
            sys.exit(f"{name} is not installed: pip install 'ssd-plugin[export]'")
    if args.out.suffix != '.onnx':
        sys.exit(f'OUT is an ONNX file, NAME.onnx, not {args.out}')
    if not args.out.parent.is_dir():
        sys.exit(f'no folder {args.out.parent} for {args.out}')


def export(cfg: Config, args: argparse.Namespace, part: Path) -> list[str]:
    """Write ``part`` and compare it with the detector; returns what to print."""
    import onnx
    import torch

    from ssd_plugin.checkpoints.load import load_detector
    from ssd_plugin.datasets.config import input_size
    from ssd_plugin.export.check import check_file, read_images
    from ssd_plugin.export.graph import BoxesAndScores, Detections, ScoresAndDeltas
    from ssd_plugin.export.onnx_file import Graph, build_onnx, describe, signature

    with tempfile.TemporaryDirectory() as folder, common.console().status('Exporting'):
        paths, kind = choose_images(args, cfg, folder)
        images = read_images(cfg, paths)
        dtype = torch.float32 if args.float32 else images[0]['inputs'].dtype
        detector, classes = load_detector(cfg, args.checkpoint)
        size = input_size(cfg)
        graph: Graph
        if args.raw:
            graph = ScoresAndDeltas(detector, size)
        else:
            graph = (BoxesAndScores if args.no_nms else Detections)(detector, size)
        meta = describe(detector, classes, size, args.config, thresholds(args, classes))
        model = build_onnx(graph, size, dtype, meta)
        onnx.save(model, part)
        difference = check_file(part, detector, images)

    on = f'on {len(paths)} {kind}, alone and in a batch: {difference}'
    if not difference.is_small:
        sys.exit(f'{args.out} was not written: ONNX Runtime and PyTorch differ {on}')
    if not difference.detections:
        sys.exit(
            f'{args.out} was not written: nothing is detected {on}; name images with objects '
            'by --images, or lower --cfg-options model.test_cfg.score_thr'
        )
    return [f'{args.out}: {signature(model)}', f'ONNX Runtime and PyTorch agree {on}']


def thresholds(args: argparse.Namespace, classes: tuple[str, ...]) -> dict[str, float] | None:
    """The threshold of each class that the options ask for."""
    from ssd_plugin.errors import InputError

    if args.score_thr is None:
        return None
    try:
        value = json.loads(
            Path(args.score_thr).read_text(encoding='utf-8')
            if os.path.isfile(args.score_thr)
            else args.score_thr
        )
        by_class = value if isinstance(value, dict) else dict.fromkeys(classes, value)
        chosen = {name: float(by_class[name]) for name in classes}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f'--score-thr {args.score_thr} is no number, and no JSON file with one for each of the '
            f'classes {", ".join(classes)}'
        ) from error
    unknown = by_class.keys() - chosen.keys()
    if unknown or not all(0 <= score <= 1 for score in chosen.values()):
        raise InputError(
            f'--score-thr {args.score_thr}: scores are from 0 to 1, for the classes '
            f'{", ".join(classes)} only'
        )
    return chosen


def write_int8(cfg: Config, args: argparse.Namespace, path: Path, out: Path) -> list[str]:
    """Quantise a file, and measure what it costs; returns what to print."""
    from mmdet.apis.det_inferencer import IMG_EXTENSIONS

    from ssd_plugin.export.check import read_images
    from ssd_plugin.export.quantize import (
        LOSS_TO_WARN_OF,
        NUM_CALIBRATION,
        mean_average_precisions,
        quantize,
    )
    from ssd_plugin.inference.inputs import find_inputs

    paths = find_inputs(args.int8, suffixes=IMG_EXTENSIONS)
    paths = sample(paths, NUM_CALIBRATION)
    with common.console().status('Quantising'):
        quantize(path, out, read_images(cfg, paths))
    before, after = (file.stat().st_size / 1e6 for file in (path, out))
    said = [f'INT8: {before:.1f} -> {after:.1f} MB, calibrated on {len(paths)} images']
    if args.raw:
        return [*said, 'INT8: what it costs was not measured, for a file of --raw']
    try:
        check_data(cfg, ['test'])
    except DataNotFoundError as error:
        return [*said, f'INT8: what it costs could not be measured: {error}']
    name, (float_map, int8_map) = mean_average_precisions(cfg, (path, out))
    said.append(f'INT8: {name} {float_map:.4f} -> {int8_map:.4f} on the test set')
    if int8_map < float_map - LOSS_TO_WARN_OF:
        said.append(
            f'WARNING: INT8 LOSES {float_map - int8_map:.4f} {name}. Calibrate on other images, '
            'like those that the file will see, or use it without --int8.'
        )
    return said


def choose_images(args: argparse.Namespace, cfg: Config, folder: str) -> tuple[list[str], str]:
    """Paths of the images to check on, and what they are; drawn ones are put into the folder."""
    from mmdet.apis.det_inferencer import IMG_EXTENSIONS

    from ssd_plugin.datasets.samples import build_dataset, spread
    from ssd_plugin.datasets.shapes import write_voc_shapes
    from ssd_plugin.inference.inputs import find_inputs

    if args.images:
        return sample(find_inputs(args.images, suffixes=IMG_EXTENSIONS), MAX_IMAGES), 'images'
    split = 'test' if cfg.get('test_dataloader') else 'val'
    try:
        check_data(cfg, [split])
    except DataNotFoundError:
        root = write_voc_shapes(folder, num_train=0, num_test=NUM_IMAGES)
        return sorted(map(str, root.glob('JPEGImages/*'))), 'drawn images'
    dataset = build_dataset(cfg, split)
    paths = [dataset.get_data_info(i)['img_path'] for i in spread(dataset, NUM_IMAGES)]
    return paths, f'images of the {split} set'


def sample(paths: list[str], most: int) -> list[str]:
    """The paths, or so many evenly spaced among more."""
    number = min(len(paths), most)
    return [paths[i * len(paths) // number] for i in range(number)]


if __name__ == '__main__':
    main()
