"""Figures of what a detector does: python tools/show.py {priors,matches,augment,...} CONFIG"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _common as common

COMMANDS = '{priors,matches,augment,curves,errors,pr}'
DEFAULT_THRESHOLD = 0.3  # of a class of which nothing right was detected


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw what a detector does, as PNG files.')
    commands = parser.add_subparsers(dest='command', required=True, metavar=COMMANDS)

    def add(function: Callable, name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=function)
        command.add_argument('--out-dir', type=Path, help='for the PNG, by default WORK_DIR/show')
        return command

    command = add(show_priors, 'priors', 'the priors of one cell of each level, with their sizes')
    common.add_config(command)
    text = 'to draw on, by default one of the training set'
    command.add_argument('--image', help=text)
    command = add(show_matches, 'matches', 'matched priors of each box, and hard negatives')
    common.add_config(command)
    command.add_argument('--checkpoint', help='to mine hard negatives with')
    command.add_argument('--index', type=int, help='of the image in the training set')
    command.add_argument('--seed', type=int, default=0, help='of the augmentation')
    command = add(show_augment, 'augment', 'training images as they are and augmented')
    common.add_config(command)
    command.add_argument('--num', type=common.positive, default=4, help='images (4)')
    text = 'augmentations of each (5)'
    command.add_argument('--draws', type=common.positive, default=5, help=text)
    command.add_argument('--seed', type=int, default=0, help='of the augmentation')
    command = add(show_curves, 'curves', 'loss, mAP and learning rate of runs')
    command.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR')
    command = add(show_errors, 'errors', 'the worst images, and errors by kind and class')
    add_evaluation(command)
    command.add_argument('--score-thr', type=float, default=0.3, help='of detections (0.3)')
    command.add_argument('--num', type=common.positive, default=12, help='images on the sheet (12)')
    command = add(show_pr, 'pr', 'precision over recall of each class')
    add_evaluation(command)
    text = 'write for each class the score with the best F1 at IoU 0.5, for detect.py --score-thr'
    command.add_argument('--best-thresholds', type=Path, metavar='FILE.json', help=text)
    return common.parse_args(parser)


def add_evaluation(command: argparse.ArgumentParser) -> None:
    """Add what it takes to detect on a data set."""
    common.add_config(command)
    command.add_argument('checkpoint', help='checkpoint file')
    command.add_argument('--split', choices=['val', 'test'], default='val', help='data set (val)')
    command.add_argument('--device', help='where to compute: cpu, cuda:0; by default the best')


def main() -> None:
    args = parse_args()
    with common.one_line_errors(args):
        paths = args.run(args)
    print(*paths, sep='\n')


def show_priors(args: argparse.Namespace) -> list[Path]:
    cfg = common.prepare(args, () if args.image else ('train',))
    from ssd_plugin.analysis.prior_grid import prior_grid
    from ssd_plugin.datasets.samples import build_dataset, original, read_image, typical
    from ssd_plugin.visualization.priors import draw_priors

    if args.image:
        image = read_image(args.image)
    else:
        dataset = build_dataset(cfg, 'train')
        image = original(dataset, typical(dataset)).image
    return save(args, cfg.work_dir, priors=draw_priors(prior_grid(cfg), image, config_name(args)))


def show_matches(args: argparse.Namespace) -> list[Path]:
    cfg = common.prepare(args, ('train',), args.checkpoint)
    from mmengine.runner import set_random_seed

    from ssd_plugin.analysis.matches import build_model, match
    from ssd_plugin.datasets.samples import build_dataset, packed, typical
    from ssd_plugin.visualization.matches import describe, draw_matches

    dataset = build_dataset(cfg, 'train')
    index = typical(dataset) if args.index is None else args.index
    if not 0 <= index < len(dataset):
        sys.exit(f'--index goes from 0 to {len(dataset) - 1}')
    model = build_model(cfg, args.checkpoint)
    set_random_seed(args.seed)
    item = dataset[index]
    sample, matches = packed(item), match(model, item)
    if not args.checkpoint:  # what an untrained network finds hard says nothing
        matches = matches._replace(mined=None)
    print(describe(sample, matches))
    strides = [stride[0] for stride in model.bbox_head.prior_generator.strides]
    title = f'{config_name(args)}, {sample.name}'
    figure = draw_matches(sample, matches, dataset.metainfo['classes'], strides, title)
    return save(args, cfg.work_dir, matches=figure)


def show_augment(args: argparse.Namespace) -> list[Path]:
    cfg = common.prepare(args, ('train',))
    from mmengine.runner import set_random_seed

    from ssd_plugin.datasets.samples import build_dataset, original, packed, spread
    from ssd_plugin.visualization.augmentations import draw_augment

    dataset = build_dataset(cfg, 'train')
    set_random_seed(args.seed)
    rows = []
    for i in spread(dataset, args.num):
        rows.append((original(dataset, i), [packed(dataset[i]) for _ in range(args.draws)]))
    title = f'{config_name(args)}: training images, and what augmentation makes of them'
    figure = draw_augment(rows, dataset.metainfo['classes'], title)
    return save(args, cfg.work_dir, augment=figure)


def show_curves(args: argparse.Namespace) -> list[Path]:
    from ssd_plugin.visualization.curves import draw_curves, read_work_dir

    runs = {str(path): read_work_dir(path) for path in args.work_dirs}
    return save(args, args.work_dirs[0], curves=draw_curves(runs, 'Training'))


def show_errors(args: argparse.Namespace) -> list[Path]:
    work_dir, results, classes, _ = detect_on_split(args)
    from ssd_plugin.evaluation import errors
    from ssd_plugin.visualization.errors import draw_counts, draw_errors

    diagnoses = [errors.diagnose(result, args.score_thr) for result in results]
    counts = errors.count_by_class(diagnoses, len(classes))
    common.console().print(errors.count_table(counts, classes))
    for line in errors.confusion_lines(diagnoses, classes):
        print(line)
    title = f'{config_name(args)}, {args.split}, {len(results)} images, '
    title += f'detections with a score of {args.score_thr:g} or more'
    figures: dict[str, Any] = dict(error_counts=draw_counts(counts, classes, title))
    # An image that can't be read can't be drawn.
    worst = errors.worst([d for d in diagnoses if not d.result.unreadable], args.num)
    if worst:
        title = f'The worst {len(worst)} of {title}'
        figures['errors'] = draw_errors(worst, errors.total(counts), classes, title)
    else:
        print('no errors')
    return save(args, work_dir, **figures)


def show_pr(args: argparse.Namespace) -> list[Path]:
    if args.best_thresholds:
        common.require_writable(args.best_thresholds)
    work_dir, results, classes, evaluator = detect_on_split(args)
    from ssd_plugin.evaluation.pr import compute_curves, mean_ap, rule_of
    from ssd_plugin.visualization.pr import draw_pr

    rule = rule_of(evaluator)
    curves = compute_curves(results, classes, rule)
    if not curves:
        sys.exit('no objects to find: no precision and no recall')
    for curve in curves:
        print(f'{curve.name:20} AP {curve.ap:.3f}, {curve.num_gts} objects')
    print(f'{"mean":20} AP {mean_ap(curves):.3f}')
    if args.best_thresholds:
        save_best_thresholds(args.best_thresholds, results, classes)
    how = f'IoU {rule.iou_thr:g}, {rule.eval_mode}'
    title = f'{config_name(args)}, {args.split}: mAP {mean_ap(curves):.3f} ({how})'
    return save(args, work_dir, pr=draw_pr(curves, title))


def save_best_thresholds(path: Path, results: list, classes: tuple[str, ...]) -> None:
    """Write the thresholds that ``tools/detect.py --score-thr`` takes."""
    from ssd_plugin.evaluation.pr import Rule, best_thresholds, compute_curves

    best = best_thresholds(compute_curves(results, classes, Rule()), classes, DEFAULT_THRESHOLD)
    path.write_text(f'{json.dumps(best, indent=2, ensure_ascii=False)}\n', encoding='utf-8')
    print(path)


def detect_on_split(args: argparse.Namespace) -> tuple:
    """Detections on a split: work directory, results, class names and the config's evaluator."""
    cfg = common.prepare(args, (args.split,), args.checkpoint)
    common.require_writable(folder_of(args, cfg.work_dir) / 'figure.png')
    from rich.progress import track

    from ssd_plugin.evaluation.results import build_loader, detect_all

    loader = build_loader(cfg, args.split)
    dataset: Any = loader.dataset
    found = detect_all(cfg, args.checkpoint, loader, args.device)
    results = list(track(found, 'Detecting', total=len(dataset)))
    unreadable = [result.path for result in results if result.unreadable]
    if unreadable:
        first = f'nothing is found in them: {unreadable[0]}'
        print(f'{len(unreadable)} images can not be read, and {first}')
    classes = dataset.metainfo['classes']
    return cfg.work_dir, results, classes, cfg.get(f'{args.split}_evaluator')


def config_name(args: argparse.Namespace) -> str:
    return Path(args.config).name


def folder_of(args: argparse.Namespace, work_dir: str | Path) -> Path:
    """Where the figures go."""
    return args.out_dir or Path(work_dir, 'show')


def save(args: argparse.Namespace, work_dir: str | Path, **figures: Any) -> list[Path]:
    """Write figures of matplotlib and sheets, which are arrays, each under its name."""
    from matplotlib.figure import Figure
    from mmcv import imwrite

    from ssd_plugin.visualization.style import save as save_figure

    folder = folder_of(args, work_dir)
    paths = [folder / f'{name}.png' for name in figures]
    for path, figure in zip(paths, figures.values()):
        if isinstance(figure, Figure):
            save_figure(figure, path)
        else:
            imwrite(figure, path)
    return paths


if __name__ == '__main__':
    main()
