"""A detector as a file for LiteRT: python tools/export_tflite.py CONFIG CHECKPOINT OUT.tflite"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
import tempfile
from pathlib import Path

# Of TensorFlow, which the converter is made of: errors only. They are read at its import.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import _common as common
import _export as exporting
from mmengine.config import Config

HOW_TO_INSTALL = (
    'litert-torch is not installed; it pins packages, so give it an environment of its own: '
    "python -m venv litert && litert/bin/pip install 'ssd-plugin[lite,litert]' (in a clone '.[lite,"
    "litert]'), then litert/bin/python tools/export_tflite.py ..."
)


def parse_args() -> argparse.Namespace:
    text = 'Write a detector as a file for LiteRT (TensorFlow Lite): decoded boxes and scores.'
    parser = argparse.ArgumentParser(description=text)
    exporting.add_arguments(parser, '.tflite')
    return common.parse_args(parser)


def main() -> None:
    args = parse_args()
    if importlib.util.find_spec('litert_torch') is None:
        sys.exit(HOW_TO_INSTALL)
    exporting.check_out(args.out, '.tflite', 'a file for LiteRT')
    part = exporting.part_of(args.out)
    with common.one_line_errors(args):
        try:
            cfg = common.prepare(args, (), args.checkpoint)
            said = export(cfg, args, part)
            part.replace(args.out)
        finally:
            part.unlink(missing_ok=True)
    print(*said, sep='\n')


def export(cfg: Config, args: argparse.Namespace, part: Path) -> list[str]:
    """Write ``part`` and compare it with the detector; returns what to print."""
    from ssd_plugin.checkpoints.load import load_detector
    from ssd_plugin.datasets.config import input_size
    from ssd_plugin.export.graph import BoxesAndScores
    from ssd_plugin.export.metadata import describe

    logging.getLogger('torch.utils._pytree').setLevel(logging.ERROR)  # it warns of torchao
    from ssd_plugin.export.tflite_file import write_tflite

    with tempfile.TemporaryDirectory() as folder, common.console().status('Exporting'):
        images = exporting.read_images(args, cfg, folder)
        detector, classes = load_detector(cfg, args.checkpoint)
        size, score_thr = input_size(cfg), exporting.thresholds(args, classes)
        graph = BoxesAndScores(detector, size)
        meta = describe(detector, classes, size, args.config, score_thr, channel_order='RGB')
        write_tflite(graph, size, part, meta)
        same = exporting.require_same(args.out, part, detector, images, 'LiteRT')
    (width, height), num_priors = size, len(graph.priors)
    shapes = f'images (1, {height}, {width}, 3) float32 -> boxes (1, {num_priors}, 4) float32, '
    shapes += f'scores (1, {num_priors}, {len(classes)}) float32'
    return [f'{args.out}: {shapes}', same]


if __name__ == '__main__':
    main()
