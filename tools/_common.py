"""What the commands share: options, reading a config, checks, and errors of one line.

Light: imports neither PyTorch nor MMDetection, so that a mistake in the arguments is told at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import _held_warnings  # before MMEngine, which causes some
from _data_check import DataNotFoundError, check_data
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.utils import import_modules_from_strings
from rich.console import Console

if TYPE_CHECKING:  # it imports PyTorch
    from mmengine.runner import Runner

if importlib.util.find_spec('ssd_plugin') is None:  # a clone that has not been installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


# Environment variables in which launchers tell a process its rank and how many processes there are.
VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config and the option that replaces settings of it."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='replace settings of the config: optim_wrapper.optimizer.lr=0.01, key="[a,b]", '
        'key="[(a,b),(c,d)]"; quote lists, and leave no white space in them',
    )
    parser.add_argument(
        '--size',
        type=input_size,
        metavar='W[xH]',
        help='another network input, in pixels: 512, 640x384; pipelines and priors follow',
    )
    parser.set_defaults(work_dir=None, launcher='none', data_root=None, verbose=False)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of training and testing, named as in MMDetection's commands."""
    parser.add_argument('--work-dir', help='directory for logs, checkpoints and results')
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help="a folder of your own, as VOC, COCO or YOLO, in place of the config's data",
    )
    parser.add_argument(
        '--classes',
        type=class_names,
        metavar='A,B',
        help='with --data-root: the classes to use, by default all that the annotations name',
    )
    parser.add_argument(
        '--strict',
        action='store_true',
        help='refuse data with faults, which are skipped and reported otherwise',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes are started; pytorch stands for torchrun',
    )
    parser.add_argument(
        '--verbose',
        action='store_true',
        help="MMEngine's console: environment, config, hooks and every line of the log",
    )
    # torch.distributed.launch passes one spelling or the other, by version; torchrun none.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def class_names(text: str) -> list[str]:
    """The type of an argument that lists different names, separated by commas."""
    names = [name.strip() for name in text.split(',')]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f'{text!r} is no list of different names')
    return names


def input_size(text: str) -> tuple[int, int]:
    """The type of an argument that is a side in pixels, or W x H."""
    width, cross, height = text.lower().partition('x')
    try:
        return positive(width), positive(height if cross else width)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f'{text!r} is no size: write 512 or 640x384') from None


def score_thr(text: str) -> float | Path:
    """The type of an argument that is a score from 0 to 1, or a file of them."""
    try:
        score = float(text)
    except ValueError:
        if not os.path.isfile(text):
            raise argparse.ArgumentTypeError(f'{text!r} is no number, and no such file') from None
        return Path(text)
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f'{text} is no score from 0 to 1')
    return score


def positive(text: str) -> int:
    """The type of an argument that is a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1')
    return int(text)


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; what can't be read ends the program with one line."""
    try:
        args = parser.parse_args()
    except (ValueError, AssertionError) as error:  # how DictAction says that a value is malformed
        sys.exit(f'--cfg-options takes KEY=VALUE pairs: {error}')
    if 'verbose' in args and args.verbose:
        _held_warnings.release()
    if 'local_rank' in args:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
        if args.classes and not args.data_root:
            sys.exit('--classes needs --data-root')
        if args.data_root and not os.path.isdir(args.data_root):
            sys.exit(f'no folder {args.data_root}')
    return args


@contextmanager
def one_line_errors(
    args: argparse.Namespace, also: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[None]:
    """End the program with one line at an error that its user can mend.

    These are the plugin's own errors and, while inputs are read and checked, those of files and
    folders (``also``). Any other error is a fault in the code and keeps its traceback.
    """
    try:
        yield
    except Exception as error:
        # The plugin takes seconds to import. Before it is, none of its errors has been raised.
        errors = sys.modules.get('ssd_plugin.errors')
        if errors is None or not isinstance(error, (errors.SSDPluginError, *also)):
            raise
        prefix = f'{args.config}: ' if isinstance(error, errors.ConfigError) else ''
        sys.exit(f'{prefix}{error}')


def prepare(
    args: argparse.Namespace, splits: Iterable[str], checkpoint: str | None = None
) -> Config:
    """Read the config, check that its data and a checkpoint exist, and import the plugin."""
    cfg = load_config(args)
    require_checkpoint(checkpoint)
    require_data(cfg, splits)
    set_up(cfg, args.verbose)
    fit_input(cfg, args)
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """Read the config, with the command line's options in it; importing nothing it names.

    A config that does not exist or can't be read, and options that don't fit it, end the program
    with one line.
    """
    cfg = read_config(args.config)
    merge_options(cfg, args)
    cfg.launcher = args.launcher
    default_work_dir = os.path.join('work_dirs', Path(args.config).stem)
    if not isinstance(cfg.get('model', {}).get('type', ''), str):
        sys.exit(f'{args.config} has classes for types: write their names, as type="RetinaNet"')
    head = cfg.get('model', {}).get('bbox_head')
    if isinstance(head, dict) and head.get('type') in ('SSDHead', 'mmdet.SSDHead'):
        sys.exit(
            f"{args.config}: MMDetection's SSDHead can't predict; for what to change to "
            'SSDMultiBoxHead, which takes its checkpoints, see docs/from_mmdetection.md'
        )
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir
    return cfg


def read_config(path: str) -> Config:
    """Read a config, importing nothing it names; if it can't be read, end with one line."""
    if not os.path.isfile(path):
        sys.exit(f'no config file {path}')
    try:
        try:
            return Config.fromfile(path, import_custom_modules=False)
        except ValueError:  # perhaps 'ssd_plugin::NAME' in _base_: the plugin has to resolve it
            import ssd_plugin  # noqa: F401

            return Config.fromfile(path, import_custom_modules=False)
    except (OSError, SyntaxError) as error:  # OSError: a file in _base_, an unknown extension
        sys.exit(f"can't read {path}: {error}")


def merge_options(cfg: Config, args: argparse.Namespace) -> None:
    """Merge the command line's options into a config; if they don't fit, end with one line."""
    try:
        cfg.merge_from_dict(args.cfg_options or {})
    except (KeyError, TypeError) as error:
        sys.exit(f'--cfg-options do not fit {args.config}: {error.args[0]}')


def renamed(cfg: Config, name: str) -> Config:
    """The config under another file name, by which MMEngine writes it into the work directory."""
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename=name)


def require_checkpoint(path: str | None) -> None:
    """End the program with one line if a checkpoint is a local path where there is no file."""
    if path and os.path.isdir(path):
        sys.exit(f'{path} is a folder: name a checkpoint in it, a .pth file')
    if path and '://' not in path and not os.path.isfile(path):
        sys.exit(f'no checkpoint file {path}')


def require_writable(path: Path) -> None:
    """Make a file's folder, and end the program with one line if it can't be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"can't write {path}: {error.strerror}")
    if path.is_dir():
        sys.exit(f'{path} is a folder: name a file')
    if not os.access(path.parent, os.W_OK):
        sys.exit(f"can't write {path}: no permission to write in {path.parent}")


def require_data(cfg: Config, splits: Iterable[str]) -> None:
    """End the program with one line if data of these splits (train, val, test) are missing."""
    try:
        check_data(cfg, splits)
    except DataNotFoundError as error:
        sys.exit(str(error))


def set_up(cfg: Config, verbose: bool = False) -> None:
    """Import the plugin and what the config asks for, and join the processes; takes seconds."""
    import_plugin(cfg, verbose)
    from ssd_plugin.engine.host_memory import keep_freed_memory
    from ssd_plugin.engine.launch import join_cpu_processes

    keep_freed_memory()
    join_cpu_processes(cfg)


def with_console(runner: Runner, args: argparse.Namespace) -> Runner:
    """Have a runner print progress and metrics in few lines, unless the user wants MMEngine's."""
    from ssd_plugin.engine.hooks import ConsoleHook

    if not args.verbose:
        _held_warnings.hand_to(runner.logger)
        runner.register_hook(ConsoleHook())
    return runner


def place_among_processes(launcher: str) -> tuple[int, int]:
    """Rank of this process and number of processes, before they are joined."""
    if launcher == 'none':
        return 0, 1
    rank, processes = VARIABLES[launcher]
    return int(os.environ.get(rank, 0)), int(os.environ.get(processes, 1))


def import_plugin(cfg: Config, verbose: bool) -> None:
    """Import the plugin and what the config asks for, and quieten libraries; takes seconds."""
    import ssd_plugin  # noqa: F401 - first: makes MMDetection importable without compiled ops
    from ssd_plugin.engine.console import quieten

    if not verbose:
        quieten()
    import_modules_from_strings(**cfg.get('custom_imports', ConfigDict(imports=[])))


def fit_input(cfg: Config, args: argparse.Namespace) -> None:
    """Give the config the network input of ``--size``, and check that its priors fit its input."""
    import_plugin(cfg, args.verbose)
    from ssd_plugin.analysis.input_size import check_input, resize_config

    if args.size:
        resize_config(cfg, args.size)
        merge_options(cfg, args)
    check_input(cfg)


def console() -> Console:
    """A console for tables: in a file, which has no width, they take the width they need."""
    return Console() if sys.stdout.isatty() else Console(width=110)
