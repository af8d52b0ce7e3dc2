"""What the exporting commands share: options, images to compare on, thresholds, the comparison."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import _common as common
from _data_check import DataNotFoundError, check_data
from mmengine.config import Config

if TYPE_CHECKING:  # they import PyTorch
    from mmdet.models.detectors import SingleStageDetector

NUM_IMAGES = 4  # of the test set that the file is checked on, if no images are named
MAX_IMAGES = 16  # of those that are named: one batch has them all


class Images(NamedTuple):
    """What a file is checked on."""

    paths: list[str]
    kind: str  # in words
    samples: list[dict]  # from ssd_plugin.export.check.read_images


def add_arguments(parser: argparse.ArgumentParser, suffix: str) -> None:
    """Add what all exporting commands take; their file has that suffix."""
    common.add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    text = f'file to write, NAME{suffix}'
    parser.add_argument('out', type=Path, metavar='OUT', help=text)
    text = "images, folders or patterns 'a/**/*.jpg' to check it on: up to 16 images, by default "
    text += "4 of the test set, or drawn ones if it isn't there"
    parser.add_argument('--images', nargs='+', metavar='INPUT', help=text)
    text = 'least score of a detection to show, which the file carries: a number, or a JSON file '
    text += 'with one for each class'
    parser.add_argument('--score-thr', type=common.score_thr, metavar='SCORE', help=text)


def check_out(out: Path, suffix: str, kind: str) -> None:
    """End the program if the file can't be written there."""
    if out.suffix != suffix:
        sys.exit(f'OUT is {kind}, NAME{suffix}, not {out}')
    if not out.parent.is_dir():
        sys.exit(f'no folder {out.parent} for {out}')
    common.require_writable(out)


def part_of(out: Path) -> Path:
    """Where the file is written until it has been checked."""
    return out.with_name(f'{out.stem}.{os.getpid()}.part{out.suffix}')


def read_images(args: argparse.Namespace, cfg: Config, folder: str) -> Images:
    """The images to check on; drawn ones are put into the folder."""
    from ssd_plugin.export import check

    paths, kind = choose_images(args, cfg, folder)
    return Images(paths, kind, check.read_images(cfg, paths))


def choose_images(args: argparse.Namespace, cfg: Config, folder: str) -> tuple[list[str], str]:
    """Paths of the images to check on, and what they are; drawn ones are put into the folder."""
    from mmdet.apis.det_inferencer import IMG_EXTENSIONS

    from ssd_plugin.datasets.faults import DataFault, read_image
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
    readable = [path for path in paths if not isinstance(read_image(path), DataFault)]
    return readable or paths, f'images of the {split} set'


def sample(paths: list[str], most: int) -> list[str]:
    """The paths, or so many evenly spaced among more."""
    number = min(len(paths), most)
    return [paths[i * len(paths) // number] for i in range(number)]


def thresholds(args: argparse.Namespace, classes: tuple[str, ...]) -> dict[str, float] | None:
    """The threshold of each class that the options ask for."""
    from ssd_plugin.inference.thresholds import read_thresholds

    if isinstance(args.score_thr, Path):
        values = read_thresholds(args.score_thr, classes)
        return {name: round(float(value), 6) for name, value in zip(classes, values, strict=True)}
    return None if args.score_thr is None else dict.fromkeys(classes, args.score_thr)


def require_same(
    out: Path, part: Path, detector: SingleStageDetector, images: Images, runtime: str
) -> str:
    """End the program unless ``part`` detects what the detector does; what to print if so."""
    from ssd_plugin.export.check import check_file

    difference = check_file(part, detector, images.samples)
    on = f'on {len(images.paths)} {images.kind}, alone and in a batch: {difference}'
    if not difference.is_small:
        sys.exit(f'{out} was not written: {runtime} and PyTorch differ {on}')
    if not difference.detections:
        sys.exit(
            f'{out} was not written: nothing is detected {on}; name images with objects '
            'by --images, or lower --cfg-options model.test_cfg.score_thr'
        )
    return f'{runtime} and PyTorch agree {on}'
