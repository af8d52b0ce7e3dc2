"""Show what the demo's detector found: python tools/demo_report.py CONFIG CHECKPOINT"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import _common as common
import cv2
import numpy as np
from mmengine.config import Config

if TYPE_CHECKING:  # it imports PyTorch
    from ssd_plugin.visualization.sheet import Cell

METRIC = 'pascal_voc/mAP'
ZOOM = 2  # the demo's images are small: enlarged, their labels are readable
COLUMNS, WIDTH = 3, 480  # of the contact sheet; of an image on it, in pixels


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw detections on test images and sum up.')
    parser.add_argument('config', nargs='?', default='configs/demo_shapes.py', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='by default the last in the work dir')
    parser.add_argument('--work-dir', type=Path, help='of training and testing')
    parser.add_argument('--out-dir', type=Path, help='for the images; WORK_DIR/detections')
    parser.add_argument('--num', type=int, default=6, help='how many images')
    parser.add_argument('--score-thr', type=float, default=0.5, help='of detections drawn')
    args = parser.parse_args()
    args.work_dir = args.work_dir or Path('work_dirs', Path(args.config).stem)
    args.out_dir = args.out_dir or args.work_dir / 'detections'
    return args


def main() -> None:
    args = parse_args()
    try:
        args.checkpoint = args.checkpoint or last_checkpoint(args.work_dir)
        mean_ap = read_map(args.work_dir)
        cfg = Config.fromfile(args.config, import_custom_modules=False)
    except FileNotFoundError as error:
        sys.exit(str(error))
    common.require_checkpoint(args.checkpoint)
    common.require_data(cfg, ('test',))
    common.set_up(cfg)
    from mmcv import imwrite

    from ssd_plugin.visualization.detections import draw_boxes
    from ssd_plugin.visualization.sheet import draw_sheet

    paths = choose_images(cfg, args.num)
    cells = detect(cfg, args.checkpoint, paths, args.score_thr)
    for cell in cells:
        drawn = draw_boxes(cell.image, cell.bboxes, cell.texts, cell.colors)
        imwrite(drawn, args.out_dir / f'{Path(cell.line).stem}.png')
    sheet = args.out_dir / 'detections.png'
    title = f'mAP {mean_ap:.3f}, detections with a score of {args.score_thr:g} or more'
    imwrite(draw_sheet(title, cells, COLUMNS, WIDTH), sheet)
    print_ending(args, mean_ap, sheet)


def last_checkpoint(work_dir: Path) -> str:
    """The checkpoint that training has written last, which MMEngine names in a file."""
    note = work_dir / 'last_checkpoint'
    if not note.is_file():
        raise FileNotFoundError(f'no checkpoint in {work_dir}: run tools/train.py first')
    return os.path.relpath(note.read_text().strip())


def read_map(work_dir: Path) -> float:
    """The mAP of the last evaluation in a work dir, as MMEngine leaves it in TIME/TIME.json."""
    files = sorted(work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    for path in reversed(files):
        metrics = json.loads(path.read_text())
        if METRIC in metrics:
            return metrics[METRIC]
    raise FileNotFoundError(f'no {METRIC} in {work_dir}: run tools/test.py first')


def choose_images(cfg: Config, num: int) -> list[str]:
    """Paths of ``num`` test images with two or more objects, evenly spaced through the set."""
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    images = [dataset.get_data_info(i) for i in range(len(dataset))]
    images = [p for p in images if len(p['instances']) >= 2] or images
    indices = np.linspace(0, len(images) - 1, min(num, len(images))).round().astype(int)
    return [images[i]['img_path'] for i in indices]


def detect(cfg: Config, checkpoint: str, paths: list[str], score_thr: float) -> list[Cell]:
    """The images, enlarged, with their detections."""
    from mmcv import imread
    from mmdet.apis import DetInferencer

    from ssd_plugin.inference.stream import above_threshold
    from ssd_plugin.visualization.detections import colors_of, texts_of
    from ssd_plugin.visualization.sheet import Cell

    cfg.visualizer.vis_backends = []  # the files are written here
    inferencer = DetInferencer(cfg, checkpoint, show_progress=False)
    classes = inferencer.model.dataset_meta['classes']
    results = inferencer(paths, return_datasamples=True, no_save_vis=True)
    cells = []
    for path, sample in zip(paths, results['predictions']):
        found = above_threshold(sample.pred_instances.cpu().numpy(), score_thr)
        image = imread(path)
        image = cv2.resize(image, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
        texts, colors = texts_of(found, classes), colors_of(found.labels)
        cells.append(Cell(Path(path).name, image, found.bboxes * ZOOM, texts, colors))
    return cells


def print_ending(args: argparse.Namespace, mean_ap: float, sheet: Path) -> None:
    """Print the mAP, where the files are, and commands to go on with."""
    python = sys.executable.removeprefix(f'{Path.cwd()}/')
    print(f"""
mAP        {mean_ap:.3f} at IoU 0.5, on test images that training has not seen
checkpoint {args.checkpoint}
images     {sheet}, and each by itself beside it

What to try next:
  detections on all test images, {args.work_dir}/TIME/all:
    {python} tools/test.py {args.config} {args.checkpoint} --show-dir all
  other shapes, more of them, then train again:
    {python} tools/prepare_data.py shapes data/shapes --train 1000 --seed 1 --overwrite
  the real thing, SSD300 on Pascal VOC (2.8 GB; better with a GPU):
    {python} tools/prepare_data.py voc data && {python} tools/train.py configs/ssd300_voc.py""")


if __name__ == '__main__':
    main()
