"""What the training and the testing command share. Light: imports neither torch nor MMDetection."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _data_check import DataNotFoundError, check_data
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.utils import import_modules_from_strings

if importlib.util.find_spec('ssd_plugin') is None:  # a clone that has not been installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that both commands have, named as in MMDetection's."""
    parser.add_argument('--work-dir', help='directory for logs, checkpoints and results')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='replace settings of the config: optim_wrapper.optimizer.lr=0.01, key="[a,b]", '
        'key="[(a,b),(c,d)]"; quote lists, without white space in them',
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help="a folder of your own, of VOC or COCO kind, in place of the config's data",
    )
    parser.add_argument(
        '--classes',
        type=class_names,
        metavar='A,B',
        help='with --data-root: the classes, if not all that there are',
    )
    parser.add_argument(
        '--strict',
        action='store_true',
        help='refuse data with faults, which otherwise are skipped and reported',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes are started; pytorch for torchrun',
    )
    # torch.distributed.launch passes one spelling or the other, by version; torchrun none.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def class_names(text: str) -> list[str]:
    """An argument that is a list of different names, with commas between."""
    names = [name.strip() for name in text.split(',')]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f'{text!r} is no list of different names')
    return names


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; what can't be read ends the program with one line."""
    try:
        args = parser.parse_args()
    except (ValueError, AssertionError) as error:  # how DictAction says that a value is malformed
        sys.exit(f'--cfg-options takes KEY=VALUE pairs: {error}')
    if args.classes and not args.data_root:
        sys.exit('--classes needs --data-root')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> Config:
    """Read the config, with the command line's options in it; importing nothing it names.

    A config that isn't there or can't be read, and options that don't fit it, end the program
    with one line.
    """
    if not os.path.isfile(args.config):
        sys.exit(f'no config file {args.config}')
    try:
        cfg = read_config(args.config)
    except (OSError, SyntaxError) as error:  # OSError: a file in _base_, an unknown extension
        sys.exit(f"can't read {args.config}: {error}")
    merge_options(cfg, args)
    cfg.launcher = args.launcher
    default_work_dir = os.path.join('work_dirs', Path(args.config).stem)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir
    return cfg


def merge_options(cfg: Config, args: argparse.Namespace) -> None:
    """Put the command line's options into a config; if they don't fit, end with one line."""
    try:
        cfg.merge_from_dict(args.cfg_options or {})
    except (KeyError, TypeError) as error:
        sys.exit(f'--cfg-options do not fit {args.config}: {error.args[0]}')


def read_config(path: str) -> Config:
    try:
        return Config.fromfile(path, import_custom_modules=False)
    except ValueError:  # perhaps 'ssd_plugin::NAME' in _base_: it takes the plugin to resolve it
        import ssd_plugin  # noqa: F401

        return Config.fromfile(path, import_custom_modules=False)


def renamed(cfg: Config, name: str) -> Config:
    """The config under another file name: MMEngine writes it so into the work directory."""
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename=name)


def require_checkpoint(path: str | None) -> None:
    """End the program with one line if a checkpoint is to be a local file and is not there."""
    if path and '://' not in path and not os.path.isfile(path):
        sys.exit(f'no checkpoint file {path}')


def has_checkpoint(work_dir: str) -> bool:
    """Whether a run in this directory came as far as a checkpoint that training can go on from."""
    folder = Path(work_dir)
    resumable = (path for path in folder.glob('*.pth') if not path.name.startswith('best_'))
    return (folder / 'last_checkpoint').is_file() or any(resumable)


def require_data(cfg: Config, splits: Iterable[str]) -> None:
    """End the program with one line if data of these splits (train, val, test) are missing."""
    try:
        check_data(cfg, splits)
    except DataNotFoundError as error:
        sys.exit(str(error))


def set_up(cfg: Config) -> None:
    """Do what takes time: import the plugin and what the config asks for, join the processes."""
    import ssd_plugin  # noqa: F401 - first: makes MMDetection importable without compiled ops
    from ssd_plugin.engine.launch import join_cpu_processes

    import_modules_from_strings(**cfg.get('custom_imports', ConfigDict(imports=[])))
    try:
        join_cpu_processes(cfg)
    except ValueError as error:
        sys.exit(str(error))


def require_sound_data(cfg: Config, splits: Iterable[str]) -> None:
    """For --strict: end the program with one line if anything is wrong with the data."""
    from ssd_plugin.datasets.check import require_sound_data

    with refusals():
        require_sound_data(cfg, splits)


@contextmanager
def refusals() -> Iterator[None]:
    """End the program with one line where data or a checkpoint are refused."""
    from ssd_plugin.errors import CheckpointError, DataRefusedError

    try:
        yield
    except (CheckpointError, DataRefusedError) as error:
        sys.exit(str(error))
