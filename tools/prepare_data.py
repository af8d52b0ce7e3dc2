"""Get the data of a config: python tools/prepare_data.py {shapes,voc,coco} OUT"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import _common  # noqa: F401 - finds the package in a clone that has not been installed
from _download import ERRORS, fetch, unpack
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

VOC = (('2007', 'trainval'), ('2007', 'test'), ('2012', 'trainval'))
COCO_URL = 'http://images.cocodataset.org'
ANNOTATIONS = 'annotations/annotations_trainval2017.zip'
COCO = (  # folder, number of files in it, archive, its MD5
    ('train2017', 118287, 'zips/train2017.zip', 'cced6f7f71b7629ddf16f17bbcfab6b2'),
    ('val2017', 5000, 'zips/val2017.zip', '442b8da7639aecaf257c1dceb8ba8c80'),
    ('annotations', 6, ANNOTATIONS, 'f4bbac642086de4f52a3fdda2de5fa2c'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Get the data of a config.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='{shapes,voc,coco}')
    shapes = commands.add_parser('shapes', help='draw the data of configs/demo_shapes.py')
    shapes.add_argument('--train', type=count, default=600, help='images to train on (600)')
    shapes.add_argument('--test', type=count, default=100, help='images to test on (100)')
    shapes.add_argument('--seed', type=count, default=0, help='another seed draws other images')
    shapes.add_argument('--overwrite', action='store_true', help='replace images drawn before')
    voc = commands.add_parser('voc', help='download VOC2007 and VOC2012, 2.8 GB')
    coco = commands.add_parser('coco', help='download COCO 2017, 20 GB')
    runs = (shapes, 'data/shapes', make_shapes), (voc, 'data', download_voc)
    for command, default, run in (*runs, (coco, 'data/coco', download_coco)):
        command.add_argument('out', type=Path, help=f'folder; the configs read {default}')
        command.set_defaults(run=run)
    return parser.parse_args()


def count(text: str) -> int:
    """An argument that is a whole number, not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number >= 0')
    return int(text)


def main() -> None:
    args = parse_args()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f'{args.out} can not be made a folder: {error.strerror}')
    args.run(args)


def make_shapes(args: argparse.Namespace) -> None:
    """Draw the shapes, unless the folder holds exactly these or anything else."""
    from ssd_plugin.datasets.shapes import RECIPE_FILE, write_voc_shapes

    recipe_file = args.out / RECIPE_FILE
    if recipe_file.is_file():
        recipe = json.loads(recipe_file.read_text())
        wanted = dict(num_train=args.train, num_test=args.test, seed=args.seed)
        if recipe | wanted != recipe and not args.overwrite:
            sys.exit(f'{args.out} holds shapes drawn with {recipe}: replace them by --overwrite')
        if all(is_complete(args.out, s) for s in ('trainval', 'test')) and not args.overwrite:
            print(f'{args.out} is complete already; --overwrite draws it again')
            return
    elif any(args.out.iterdir()):
        sys.exit(f'{args.out} holds other files: name an empty or a new folder')

    with Progress() as bar:
        task = bar.add_task('Drawing shapes')
        write_voc_shapes(
            args.out, args.train, args.test, args.seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    print(f'{args.train} images to train on and {args.test} to test on are in {args.out}')
    print('Next: python tools/train.py configs/demo_shapes.py (it reads data/shapes)')


def is_complete(tree: Path, split: str) -> bool:
    """Whether a VOC tree has the list of a split, and each image and annotation in it."""
    names = tree / 'ImageSets' / 'Main' / f'{split}.txt'
    return names.is_file() and all(
        (tree / 'JPEGImages' / f'{name}.jpg').is_file()
        and (tree / 'Annotations' / f'{name}.xml').is_file()
        for name in names.read_text().split()
    )


def download_voc(args: argparse.Namespace) -> None:
    """Download what is missing of VOC, from the addresses that torchvision knows."""
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    for year, split in VOC:
        if is_complete(args.out / 'VOCdevkit' / f'VOC{year}', split):
            print(f'VOC{year} {split} is there already')
            continue
        entry = DATASET_YEAR_DICT[f'{year}-test' if (year, split) == ('2007', 'test') else year]
        archive = args.out / entry['filename']
        download(f'VOC{year} {split}', entry['url'], archive, entry['md5'])
    print(f'VOC2007 and VOC2012 are in {args.out / "VOCdevkit"}; the archives in {args.out}'
          ' are no longer needed')  # fmt: skip
    print('Next: python tools/train.py configs/ssd300_voc.py (it reads data/VOCdevkit)')


def download_coco(args: argparse.Namespace) -> None:
    """Download what is missing of COCO."""
    for folder, files, archive, md5 in COCO:
        if (args.out / folder).is_dir() and len(os.listdir(args.out / folder)) >= files:
            print(f'COCO {folder} is there already')
            continue
        path = args.out / Path(archive).name
        download(f'COCO {folder}', f'{COCO_URL}/{archive}', path, md5)
    print(f'COCO 2017 is in {args.out}; the archives there are no longer needed')
    print('Next: python tools/train.py configs/ssd300_coco.py (it reads data/coco)')


def download(what: str, url: str, archive: Path, md5: str) -> None:
    """Download an archive and unpack it beside itself, with a progress bar for each step.

    A failure ends the program with one line.
    """
    columns = Progress.get_default_columns()
    with Progress(*columns, DownloadColumn(binary_units=True), TransferSpeedColumn()) as bar:
        tasks = {}  # by what is being done

        def tell(doing: str, done: int, total: int | None) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(f'{what}: {doing}')
            bar.update(tasks[doing], completed=done, total=total)

        try:
            fetch(url, archive, md5, tell)
            unpack(archive, archive.parent, tell)
        except ERRORS as error:
            reason = ' '.join(str(error).split()) or type(error).__name__
            sys.exit(f'{what} could not be downloaded to {archive.parent}: {reason} - try again: '
                     'it goes on where it stopped; or put the archive there yourself')  # fmt: skip


if __name__ == '__main__':
    main()
