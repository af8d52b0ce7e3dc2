"""Checkpoint files: reading the weights in them, running nothing, and writing them."""

from __future__ import annotations

import argparse
import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.fileio import get_local_path
from torch import Tensor

from ssd_plugin.checkpoints.caffe import SUFFIX, read_caffemodel
from ssd_plugin.checkpoints.classes import classes_in
from ssd_plugin.checkpoints.file_kinds import describe, is_text
from ssd_plugin.compat.torch_load import require_no_code
from ssd_plugin.errors import CheckpointError

State = dict[str, Tensor]


class Weights(NamedTuple):
    """The weights of a model in a checkpoint, what it says of them, and where it is."""

    source: str
    state: State
    meta: dict

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, by label, if the checkpoint says them."""
        return classes_in(self.meta)

    @classmethod
    def read(cls, checkpoint: str) -> Weights:
        """Read a checkpoint, named by its path or address; see :func:`read`."""
        with get_local_path(checkpoint) as path:
            return cls(checkpoint, *read(path))

    @classmethod
    def loaded(cls, checkpoint: dict, source: str) -> Weights:
        """The same from a checkpoint that MMEngine has read."""
        return cls(source, weights_in(checkpoint, source), checkpoint.get('meta') or {})


def read(path: str | Path) -> tuple[State, dict]:
    """Read the state dict and the ``meta`` of a checkpoint, running nothing that it holds.

    The state dict may lie in it under ``state_dict`` (MMEngine) or ``model`` (torchvision's
    training script), and its names may begin with ``module.``, as those of a model that was wrapped
    for several processes do. A .caffemodel is one of Caffe.

    Raises:
        CheckpointError: The file is not a checkpoint, or would run code.
        MissingPackageError: It is Caffe's, and protobuf is not installed.
        OSError: The file can't be read.
    """
    if Path(path).is_dir():
        raise CheckpointError(f'{path} is a folder: name a checkpoint in it, a .pth file')
    if Path(path).suffix.lower() == SUFFIX:
        return read_caffemodel(path), {}
    try:
        loaded = load_data(path)
    except OSError:
        raise
    except Exception as error:  # for what is no checkpoint, PyTorch raises nearly anything
        if not is_text(path):  # of which any letter is an instruction to a pickle's reader
            require_no_code(path, error)
        raise CheckpointError(f'{path} is not a checkpoint of PyTorch: {describe(path)}') from error
    meta = loaded.get('meta') if isinstance(loaded, dict) else None
    return weights_in(loaded, path), meta if isinstance(meta, dict) else {}


def load_data(path: str | Path) -> object:
    """What a file of ``torch.save`` holds: tensors, plain containers, and what is as harmless."""
    if hasattr(torch.serialization, 'add_safe_globals'):
        # Attributes, no code: torchvision's training script stores its command line so.
        torch.serialization.add_safe_globals([argparse.Namespace])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about old formats, beside the error that follows
        return torch.load(path, map_location='cpu', weights_only=True)


def weights_in(loaded: object, path: str | Path) -> State:
    """The state dict in what the checkpoint file ``path`` holds; see :func:`read`.

    Raises:
        CheckpointError: There is none.
    """
    contents = loaded if isinstance(loaded, dict) else {}
    wrapped = [contents[key] for key in ('state_dict', 'model') if key in contents]
    state = (wrapped or [contents])[0]
    if not (isinstance(state, dict) and state):
        raise CheckpointError(f'{path} holds no state dict, as it is or as state_dict or model')
    for name, value in state.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise CheckpointError(f'{path} holds no state dict: {name!r} is of type {kind}')
    return {re.sub(r'^module\.', '', name): value for name, value in state.items()}


def save(checkpoint: dict, path: str | Path) -> None:
    """Write a checkpoint; it takes its name, and another file's place, once it is complete.

    Raises:
        OSError: It can't be written.
    """
    path = Path(path)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        with part.open('xb') as file:
            torch.save(checkpoint, file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
