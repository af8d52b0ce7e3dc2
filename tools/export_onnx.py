"""A detector as one ONNX file: python tools/export_onnx.py CONFIG CHECKPOINT OUT"""

from __future__ import annotations

import argparse
import importlib.util
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
    text = 'output the boxes and scores of all priors, before thresholds and NMS'
    parser.add_argument('--no-nms', action='store_true', help=text)
    return common.parse_args(parser)


def main() -> None:
    args = parse_args()
    check_arguments(args)
    part = args.out.with_name(f'{args.out.name}.{os.getpid()}.part')
    with common.one_line_errors(args):
        try:
            cfg = common.prepare(args, (), args.checkpoint)
            export(cfg, args, part)
        finally:
            part.unlink(missing_ok=True)


def check_arguments(args: argparse.Namespace) -> None:
    """Check what can be checked before anything heavy is imported."""
    for name in ('onnx', 'onnxruntime'):
        if importlib.util.find_spec(name) is None:
            sys.exit(f"{name} is not installed: pip install 'ssd-plugin[export]'")
    if args.out.suffix != '.onnx':
        sys.exit(f'OUT is an ONNX file, NAME.onnx, not {args.out}')
    if not args.out.parent.is_dir():
        sys.exit(f'no folder {args.out.parent} for {args.out}')


def export(cfg: Config, args: argparse.Namespace, part: Path) -> None:
    """Write ``part``, compare it with the detector, and rename it if the detections agree."""
    import onnx

    from ssd_plugin.checkpoints.load import load_detector
    from ssd_plugin.datasets.config import input_size
    from ssd_plugin.export.check import check_file, read_images
    from ssd_plugin.export.graph import BoxesAndScores, Detections
    from ssd_plugin.export.onnx_file import build_onnx, describe, signature

    with tempfile.TemporaryDirectory() as folder, common.console().status('Exporting'):
        paths, kind = choose_images(args, cfg, folder)
        images = read_images(cfg, paths)
        detector, classes = load_detector(cfg, args.checkpoint)
        size = input_size(cfg)
        graph = (BoxesAndScores if args.no_nms else Detections)(detector, size)
        meta = describe(classes, size, args.config)
        model = build_onnx(graph, size, images[0]['inputs'].dtype, meta)
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
    part.replace(args.out)
    print(f'{args.out}: {signature(model)}')
    print(f'ONNX Runtime and PyTorch agree {on}')


def choose_images(args: argparse.Namespace, cfg: Config, folder: str) -> tuple[list[str], str]:
    """Paths of the images to check on, and what they are; drawn ones are put into the folder."""
    from mmdet.apis.det_inferencer import IMG_EXTENSIONS

    from ssd_plugin.datasets.samples import build_dataset, spread
    from ssd_plugin.datasets.shapes import write_voc_shapes
    from ssd_plugin.inference.inputs import find_inputs

    if args.images:
        return sample(find_inputs(args.images, suffixes=IMG_EXTENSIONS)), 'images'
    split = 'test' if cfg.get('test_dataloader') else 'val'
    try:
        check_data(cfg, [split])
    except DataNotFoundError:
        root = write_voc_shapes(folder, num_train=0, num_test=NUM_IMAGES)
        return sorted(map(str, root.glob('JPEGImages/*'))), 'drawn images'
    dataset = build_dataset(cfg, split)
    paths = [dataset.get_data_info(i)['img_path'] for i in spread(dataset, NUM_IMAGES)]
    return paths, f'images of the {split} set'


def sample(paths: list[str]) -> list[str]:
    """The paths, or ``MAX_IMAGES`` evenly spaced among more."""
    number = min(len(paths), MAX_IMAGES)
    return [paths[i * len(paths) // number] for i in range(number)]


if __name__ == '__main__':
    main()
