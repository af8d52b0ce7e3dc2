"""What commands share that read a config and its data, and train nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

import _common as common
from mmengine.config import Config, DictAction
from rich.console import Console


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config and the options that replace settings of it."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='replace settings of the config, as in tools/train.py',
    )
    parser.set_defaults(work_dir=None, launcher='none', data_root=None)


def positive(text: str) -> int:
    """An argument that is a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1')
    return int(text)


def console() -> Console:
    """Where tables are printed: a file, which has no width, gets what they take."""
    return Console() if sys.stdout.isatty() else Console(width=110)


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; what can't be read ends the program with one line."""
    try:
        return parser.parse_args()
    except (ValueError, AssertionError) as error:  # how DictAction says that a value is malformed
        sys.exit(f'--cfg-options takes KEY=VALUE pairs: {error}')


def read(args: argparse.Namespace, splits: Iterable[str], checkpoint: str | None = None) -> Config:
    """Read the config, see that its data and a checkpoint are there, import the plugin."""
    cfg = common.load_config(args)
    common.require_checkpoint(checkpoint)
    common.require_data(cfg, splits)
    common.set_up(cfg)
    return cfg
