"""Images of what a detector does: python tools/show.py {priors,matches,augment,...} CONFIG"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import _config
from mmengine.config import Config

COMMANDS = '{priors,matches,augment,curves,errors,pr}'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw what a detector does, as PNG files.')
    commands = parser.add_subparsers(dest='command', required=True, metavar=COMMANDS)

    def add(
        function: Callable, name: str, text: str, config: bool = True
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=function)
        if config:
            _config.add_config(command)
        command.add_argument('--out-dir', type=Path, help='for the PNG, by default WORK_DIR/show')
        return command

    command = add(show_priors, 'priors', "each level's priors of one cell, with their sizes")
    command.add_argument(
        '--image', '--picture', help='to draw on, by default one of the training set'
    )
    command = add(show_matches, 'matches', 'which priors learn which object, and hard negatives')
    command.add_argument('--checkpoint', help='to mine hard negatives with')
    command.add_argument('--index', type=int, help='of the image in the training set')
    add_seed(command)
    command = add(show_augment, 'augment', 'training images as they are and augmented')
    command.add_argument('--num', type=_config.positive, default=4, help='images (4)')
    command.add_argument(
        '--draws', type=_config.positive, default=5, help='augmentations of each (5)'
    )
    add_seed(command)
    command = add(show_curves, 'curves', 'loss, mAP and learning rate of runs', config=False)
    command.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR')
    command = add(show_errors, 'errors', 'the worst images, and errors by kind and class')
    add_pass(command)
    command.add_argument('--score-thr', type=float, default=0.3, help='of detections (0.3)')
    command.add_argument(
        '--num', type=_config.positive, default=12, help='images on the sheet (12)'
    )
    command = add(show_pr, 'pr', 'precision over recall of each class')
    add_pass(command)
    return _config.parse_args(parser)


def add_seed(command: argparse.ArgumentParser) -> None:
    command.add_argument('--seed', type=int, default=0, help='of the augmentation')


def add_pass(command: argparse.ArgumentParser) -> None:
    """Add what a pass over a data set needs."""
    command.add_argument('checkpoint', help='checkpoint file')
    command.add_argument('--split', choices=['val', 'test'], default='val', help='data set (val)')
    command.add_argument('--device', help='where to compute: cpu, cuda:0; by default the best')


def show_priors(args: argparse.Namespace) -> list[Path]:
    cfg = _config.read(args, () if args.image else ('train',))
    from ssd_plugin.analysis.prior_grid import prior_grid
    from ssd_plugin.datasets.samples import build_dataset, original, read_image, typical
    from ssd_plugin.visualization.priors import draw_priors

    if args.image:
        image = read_image(args.image)
    else:
        dataset = build_dataset(cfg, 'train')
        image = original(dataset, typical(dataset)).image
    figure = draw_priors(prior_grid(cfg), image, Path(args.config).name)
    return save(args, cfg, priors=figure)


def show_matches(args: argparse.Namespace) -> list[Path]:
    cfg = _config.read(args, ('train',), args.checkpoint)
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
    if not args.checkpoint:  # the network knows nothing, and what it finds hard says nothing
        matches = matches._replace(mined=None)
    print(describe(sample, matches))
    strides = [stride[0] for stride in model.bbox_head.prior_generator.strides]
    classes = dataset.metainfo['classes']
    figure = draw_matches(
        sample, matches, classes, strides, f'{Path(args.config).name}, {sample.name}'
    )
    return save(args, cfg, matches=figure)


def show_augment(args: argparse.Namespace) -> list[Path]:
    cfg = _config.read(args, ('train',))
    from mmengine.runner import set_random_seed

    from ssd_plugin.datasets.samples import build_dataset, original, packed, spread
    from ssd_plugin.visualization.augmentations import draw_augment

    dataset = build_dataset(cfg, 'train')
    set_random_seed(args.seed)
    rows = [
        (original(dataset, i), [packed(dataset[i]) for _ in range(args.draws)])
        for i in spread(dataset, args.num)
    ]
    title = f'{Path(args.config).name}: training images, and what augmentation makes of them'
    return save(args, cfg, augment=draw_augment(rows, dataset.metainfo['classes'], title))


def show_curves(args: argparse.Namespace) -> list[Path]:
    from ssd_plugin.visualization.curves import draw_curves, read_work_dir
    from ssd_plugin.visualization.style import save as save_figure

    try:
        runs = {str(path): read_work_dir(path) for path in args.work_dirs}
    except FileNotFoundError as error:
        sys.exit(str(error))
    out_dir = args.out_dir or args.work_dirs[0] / 'show'
    return [save_figure(draw_curves(runs, 'Training'), out_dir / 'curves.png')]


def show_errors(args: argparse.Namespace) -> list[Path]:
    cfg, results, classes = pass_over_data(args)
    from ssd_plugin.evaluation.error_report import confusion_lines, count_table
    from ssd_plugin.evaluation.errors import count_by_class, diagnose, total, worst
    from ssd_plugin.visualization.errors import draw_counts, draw_sheet

    diagnoses = [diagnose(result, args.score_thr) for result in results]
    counts = count_by_class(diagnoses, len(classes))
    _config.console().print(count_table(counts, classes))
    for line in confusion_lines(diagnoses, classes):
        print(line)
    title = f'{Path(args.config).name}, {args.split}, {len(results)} images'
    title = f'{title}, detections with a score of {args.score_thr:g} or more'
    figures = dict(error_counts=draw_counts(counts, classes, title))
    chosen = worst(diagnoses, args.num)
    if chosen:
        figures['errors'] = draw_sheet(
            chosen, total(counts), classes, f'The worst {len(chosen)} of {title}'
        )
    else:
        print('no errors')
    return save(args, cfg, **figures)


def show_pr(args: argparse.Namespace) -> list[Path]:
    cfg, results, classes = pass_over_data(args)
    from ssd_plugin.evaluation.pr import compute_curves, mean_ap, rule_of
    from ssd_plugin.visualization.pr import draw_pr

    rule = rule_of(cfg.get(f'{args.split}_evaluator'))
    curves = compute_curves(results, classes, rule)
    if not curves:
        sys.exit('no objects to find: no precision and no recall')
    for curve in curves:
        print(f'{curve.name:20} AP {curve.ap:.3f}, {curve.num_objects} objects')
    print(f'{"mean":20} AP {mean_ap(curves):.3f}')
    how = f'IoU {rule.iou_thr:g}, {rule.eval_mode}'
    title = f'{Path(args.config).name}, {args.split}: mAP {mean_ap(curves):.3f} ({how})'
    return save(args, cfg, pr=draw_pr(curves, title))


def pass_over_data(args: argparse.Namespace) -> tuple:
    """The config, the results of all images of a split, and the names of the classes."""
    cfg = _config.read(args, (args.split,), args.checkpoint)
    from rich.progress import track

    from ssd_plugin.evaluation.results import build_loader, detect_all

    loader = build_loader(cfg, args.split)
    passing = detect_all(cfg, args.checkpoint, loader, args.device)
    results = list(track(passing, 'Detecting', total=len(loader.dataset)))
    return cfg, results, loader.dataset.metainfo['classes']


def save(args: argparse.Namespace, cfg: Config | None, **figures) -> list[Path]:
    """Write figures, each under its name."""
    from ssd_plugin.visualization.style import save as save_figure

    folder = args.out_dir or Path(cfg.work_dir, 'show')
    return [save_figure(figure, folder / f'{name}.png') for name, figure in figures.items()]


def main() -> None:
    args = parse_args()
    try:
        paths = args.run(args)
    except ValueError as error:
        sys.exit(f'{getattr(args, "config", args.command)}: {error}')
    print(*paths, sep='\n')


if __name__ == '__main__':
    main()
