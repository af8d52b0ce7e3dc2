"""--data-root: tools/train.py and tools/test.py on a folder of the user's own images."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from _common import merge_options, place_among_processes, read_config, renamed
from mmengine.config import Config
from rich.console import Console

from ssd_plugin.datasets.config import leaf_datasets
from ssd_plugin.datasets.faults import require_no_faults, write_faults
from ssd_plugin.datasets.own_data.config import fit_data, ignore_crowds, mine_in_empty_images
from ssd_plugin.datasets.own_data.recognise import recognise
from ssd_plugin.datasets.own_data.records import write_text
from ssd_plugin.datasets.own_data.summary import DataSet, make_table, notes_on_classes
from ssd_plugin.engine.recipe import RECIPE, take_recipe
from ssd_plugin.engine.schedule import (
    describe_iterations,
    fit_batch,
    fit_schedule,
    scale_learning_rate,
)
from ssd_plugin.errors import DataRootError

RATE_OPTIONS = ('optim_wrapper.optimizer.lr', 'auto_scale_lr.enable')


def fit_for_training(cfg: Config, args: argparse.Namespace) -> Config:
    """Fit a config to the folder that the user names, and report what is in it.

    1. Recognise the folder's format, and read all that training and evaluation will.
    2. Write into ``data`` in the work directory which images are in which part, and what is wrong
       with them.
    3. Take the recipe for own data, unless the folder is Pascal VOC itself or the user counts in
       iterations: then the config's stays, with its schedule if that counts in iterations, too.
    4. Set data sets, classes, evaluators and the schedule, then once more what the user sets by
       ``--cfg-options``, then the batch and the learning rate for it.

    Returns:
        The config under a name of its own, by which MMEngine will write it into the work directory.

    Raises:
        SSDPluginError: The folder cannot be trained on; the message is one line.
    """
    rank, processes = place_among_processes(args.launcher)
    folder = Path(cfg.work_dir, 'data')
    source = recognise(Path(args.data_root))
    name = name_for(cfg, source.root)
    about_others = note_on_other_data(Path(cfg.work_dir), name)
    data = DataSet(source, source.parts.names, show_progress=rank == 0)
    plain, options = read_config(args.config), args.cfg_options or {}  # plain: without options
    recipe = None
    if not (source.benchmark or 'train_cfg.max_iters' in options):
        plain[RECIPE] = cfg.get(RECIPE)
        recipe = take_recipe(cfg)
        take_recipe(plain)
    leaf = leaf_datasets(cfg.train_dataloader.dataset)[0]
    classes = choose_classes(data, args.classes, leaf.get('metainfo', {}).get('classes'))
    fit(cfg, args, data, classes, folder)
    num_images, about_empty = count_trained_on(cfg, data, classes)
    ignores = data.has_crowds(classes) and ignore_crowds(cfg)
    epochs = options.get('train_cfg.max_epochs', args.epochs)
    as_published = source.benchmark and 'max_iters' in plain.train_cfg
    if not epochs and (as_published or 'train_cfg.max_iters' in options):
        schedule = describe_iterations(cfg, num_images, processes)
    else:
        cfg.train_cfg = plain.train_cfg  # options are merged once more below
        schedule = fit_schedule(cfg, num_images, processes, epochs)
    merge_options(cfg, args)
    if not cfg.get('randomness', {}).get('seed'):
        cfg.merge_from_dict({'randomness.seed': 0})  # so that the config repeats the run
    given = any(option.startswith(RATE_OPTIONS) for option in options)
    lines = [
        about_others,
        f'Parts: {source.parts.origin}.',
        about_empty,
        'Crowds are neither objects nor background.' if ignores else None,
        recipe,
        fit_batch(cfg, num_images, processes),
        scale_learning_rate(cfg, plain.train_dataloader.batch_size, processes, given),
        schedule,
        f'To repeat this run: python tools/train.py {Path(cfg.work_dir, name)}',
    ]
    if rank == 0:
        report(data, classes, folder, lines)
    return renamed(cfg, name)


def read_for_testing(args: argparse.Namespace) -> DataSet:
    """Read the part of the user's folder that a trained detector is tested on."""
    source, (rank, _) = recognise(Path(args.data_root)), place_among_processes(args.launcher)
    return DataSet(source, [source.parts.evaluated], show_progress=rank == 0)


def fit_for_testing(cfg: Config, args: argparse.Namespace, data: DataSet) -> None:
    """Have a config test on data that have been read, with the classes of the checkpoint."""
    rank, _ = place_among_processes(args.launcher)
    folder = Path(cfg.work_dir, 'test_data')  # beside those that training has written
    classes = classes_of(args.checkpoint, args.classes)
    found = data.classes()
    if not set(found) & set(classes):
        raise DataRootError(
            f'{data.source.root} has {", ".join(found) or "no objects"}, '
            f'and the checkpoint knows {", ".join(classes)}'
        )
    fit(cfg, args, data, classes, folder)
    if rank == 0:
        report(data, classes, folder, [f'Parts: {data.source.parts.origin}.'])


def choose_classes(
    data: DataSet, wanted: Sequence[str] | None, configured: Sequence[str] | None
) -> list[str]:
    """The classes that the user wants, else all, in the config's order if it has the same."""
    root = data.source.root
    found = data.classes()
    if not found:
        raise DataRootError(f'{root}: there are images, but no objects')
    unknown = [name for name in wanted or () if name not in found]
    if unknown:
        close = get_close_matches(unknown[0], found, n=1, cutoff=0.5)
        hint = f'. Did you mean {close[0]}?' if close else ''
        raise DataRootError(f'{root} has no {", ".join(unknown)}; it has {", ".join(found)}{hint}')
    if configured and not wanted and set(configured) == set(found):
        return list(configured)
    return list(wanted or found)


def count_trained_on(cfg: Config, data: DataSet, classes: Sequence[str]) -> tuple[int, str | None]:
    """How many images training will see, and a sentence about those without objects."""
    images, empty = data.images['train'], data.count_empty(classes)['train']
    if empty == len(images):
        raise DataRootError(f'{data.source.root}: no {" or ".join(classes)} to train on')
    leaf = leaf_datasets(cfg.train_dataloader.dataset)[0]
    if not empty or (leaf.get('filter_cfg') or {}).get('filter_empty_gt'):
        return len(images) - empty, 'Images without objects are not trained on.' if empty else None
    negatives = mine_in_empty_images(cfg)
    how = '' if negatives is None else f', with min_negatives={negatives} (docs/losses.md)'
    return len(images), f'Images without objects are trained on, as background{how}.'


def fit(
    cfg: Config, args: argparse.Namespace, data: DataSet, classes: Sequence[str], folder: Path
) -> None:
    """Fit a config to data, which with ``--strict`` have no fault; the user's options win."""
    if args.strict:
        root, faults = data.source.root, [fault for _, fault in data.all_faults(classes)]
        require_no_faults([fault._replace(path=str(root / fault.path)) for fault in faults])
    fit_data(cfg, data.source, classes, data.write(classes, folder))
    merge_options(cfg, args)


def name_for(cfg: Config, root: Path) -> str:
    """The file name of a config that is fitted to a folder; testing writes no such file."""
    stem, ending = Path(cfg.filename).stem, '_on_' + re.sub(r'\W+', '_', root.absolute().name)
    return f'{stem.removesuffix(ending)}{ending}.py'


def note_on_other_data(work_dir: Path, name: str) -> str | None:
    """A sentence if another folder was trained on in a work directory; ``data`` was of that one.

    ``name`` is the file name of the config that is fitted to this folder.
    """
    ending = name[name.rindex('_on_') : -len('.py')]
    stems = [path.stem.removesuffix('_test') for path in work_dir.glob('*_on_*.py')]
    others = [stem for stem in stems if not stem.endswith(ending)]
    if not others:
        return None
    return (
        f'{work_dir} has a training on other data, whose config, {min(others)}.py, is of no use '
        'from now on: another --work-dir keeps both.'
    )


def report(data: DataSet, classes: Sequence[str], folder: Path, lines: Sequence) -> None:
    """Print what was found, and write it into the folder, with a list of the faults."""
    found = data.all_faults(classes)
    table = make_table(data, classes, found)
    lines = [line for line in lines if line]
    fault_file = folder / 'faults.txt'
    fault_file.unlink(missing_ok=True)  # of an earlier run
    if found:
        write_faults(fault_file, found)
        lines.insert(0, f'Faults: each is listed in {fault_file}.')
    lines[:0] = [*data.source.notes, *data.notes, *notes_on_classes(data, classes)]
    text = io.StringIO()
    for console in (Console(width=None if sys.stdout.isatty() else 120), Console(file=text)):
        say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
        say(f'{data.source.root}: {data.source.description}')
        console.print(table)
        for line in lines:
            say(line)
    sys.stdout.flush()
    write_text(folder / 'summary.txt', text.getvalue())


def classes_of(checkpoint: str, wanted: Sequence[str] | None) -> list[str]:
    """The names of a checkpoint's classes, or the user's if it has none."""
    from ssd_plugin.checkpoints.files import Weights
    from ssd_plugin.export.exported import is_exported, open_exported

    classes: Sequence[str] | None
    if is_exported(checkpoint):
        classes = open_exported(checkpoint, test_cfg={}, on_cpu=True).dataset_meta['classes']
    else:
        classes = Weights.read(checkpoint).classes
    if not classes and not wanted:
        raise DataRootError(f"{checkpoint} doesn't name its classes: do it by --classes, in order")
    if classes and wanted and list(classes) != list(wanted):
        raise DataRootError(f'--classes has {", ".join(wanted)}, {checkpoint} {", ".join(classes)}')
    return list(classes or wanted or ())
