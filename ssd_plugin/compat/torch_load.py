"""Checkpoints are read as data and run no code: `compat`'s entries about that."""

from __future__ import annotations

import argparse
import codecs
import functools
import inspect
import pickle
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

from ssd_plugin.compat.restricted_pickle import RestrictedPickle


def allow_what_mmengine_checkpoints_hold() -> None:
    """Let `torch.load` read MMEngine's checkpoints with `weights_only` on.

    Broken: PyTorch >= 2.6 loads only tensors and plain containers unless told otherwise, and
    MMEngine (all of 0.10) keeps its log history and NumPy numbers in a checkpoint; resuming and
    testing fail.
    We: allow-list exactly those types. They are data; nothing on the list calls code that a
    checkpoint chooses. The history names its methods with the built-in `getattr`, which would let
    a checkpoint reach anything: `_checkpoint_attribute` stands in for it, and knows only them.
    Until: MMEngine does the same.
    """
    if torch.__version__ < (2, 6):
        return
    named = _what_mmengine_checkpoints_hold().items()
    torch.serialization.add_safe_globals([(found, name) for name, found in named])


def read_no_code_on_older_pytorch() -> None:
    """Have `torch.load` read data only, where PyTorch's own does otherwise.

    Broken: reading a pickle runs what it asks for, and `weights_only` is off by default; turned
    on, it refuses MMEngine's checkpoints.
    Versions: PyTorch < 2.6.
    We: unless it is told `weights_only=False` or another `pickle_module`, it reads with a pickle
    that knows PyTorch's list and MMEngine's types and nothing else, as PyTorch 2.6 does.
    Until: PyTorch 2.6 is the oldest that we support.
    """
    if torch.__version__ >= (2, 6):
        return
    from torch._weights_only_unpickler import _get_allowed_globals

    allowed = {
        **_get_allowed_globals(),
        # On the list of PyTorch 2.6: NumPy's bytes are written as text to encode, and a
        # MultiStepLR counts its milestones. With 2.6 `checkpoints.load_data` puts Namespace there.
        '_codecs.encode': codecs.encode,
        'collections.Counter': Counter,
        'argparse.Namespace': argparse.Namespace,
        **_what_mmengine_checkpoints_hold(),
    }
    data_only = RestrictedPickle(allowed)
    load = torch.load

    @functools.wraps(load)
    def load_data(
        f: object,
        map_location: object = None,
        pickle_module: object = None,
        *,
        weights_only: bool | None = None,
        **kwargs,
    ) -> object:
        if weights_only is not False and pickle_module is None:
            weights_only, pickle_module = False, data_only
        return load(f, map_location, pickle_module, weights_only=bool(weights_only), **kwargs)

    torch.load = load_data


def read_no_code_from_addresses() -> None:
    """Have MMEngine read a checkpoint from the web as it reads a file: data, no code.

    Broken: MMEngine gets it by `torch.hub`, which turns `weights_only` off.
    Versions: PyTorch to 2.11 at least, MMEngine, all of 0.10. On the oldest PyTorch `torch.hub`
    has no such switch, and leaves it to `torch.load`.
    Until: `torch.hub` or MMEngine turns it on.
    """
    from mmengine.runner import checkpoint

    if 'weights_only' in inspect.signature(checkpoint.load_url).parameters:
        checkpoint.load_url = functools.partial(checkpoint.load_url, weights_only=True)


def read_no_code_after_all() -> None:
    """Have the fork `onedl-mmengine` refuse what PyTorch refuses.

    Broken: it warns, and reads the checkpoint once more with `weights_only` off. Where nothing is
    refused, it takes its own types off PyTorch's list, and ours with them.
    Versions: onedl-mmengine 0.10.12. Until: it does neither.
    """
    from mmengine.runner import checkpoint

    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = torch.load


def name_what_is_refused() -> None:
    """Have MMEngine say which checkpoint is refused and why, in one line.

    Broken: PyTorch's error does not name the file, is ten lines long, and tells how to run the
    code after all.
    Versions: PyTorch >= 2.6.
    We: `CheckpointLoader.load_checkpoint`, by which all of MMEngine's checkpoints come, raises
    `ssd_plugin.checkpoints.files.CheckpointError` where code is asked for.
    Until: PyTorch's error is a user's to read.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    load_checkpoint = CheckpointLoader.load_checkpoint

    @functools.wraps(load_checkpoint)
    def load(filename: str, *args, **kwargs) -> dict:
        try:
            return load_checkpoint(filename, *args, **kwargs)
        except pickle.UnpicklingError as error:
            code = code_asked_for(error)
            if code is None:
                raise
            from ssd_plugin.errors import CheckpointError

            message = f'{filename} is refused: to read it would run {code}'
            raise CheckpointError(message) from error

    CheckpointLoader.load_checkpoint = staticmethod(load)


def code_asked_for(error: Exception) -> str | None:
    """The full name of what a pickle was refused for; None if the error is about something else."""
    found = re.search(r'Unsupported (?:global: GLOBAL|class) ([\w.]+)', str(error))
    return found and found[1]


def _what_mmengine_checkpoints_hold() -> dict[str, object]:
    """What MMEngine's checkpoints need beside tensors and containers, by its name in a pickle."""
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    scalar, (reconstruct, *_) = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()
    codes = np.typecodes['AllInteger'] + np.typecodes['AllFloat'] + '?'
    classes = [
        HistoryBuffer,
        OneCycleParamScheduler,  # OneCycleLR keeps its annealing function in its state
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in codes},
    ]
    return {
        **{f'{found.__module__}.{found.__qualname__}': found for found in classes},
        'builtins.getattr': _checkpoint_attribute,
        '__builtin__.getattr': _checkpoint_attribute,  # as it is written, for Python 2 to read
        # NumPy 2 moved these two; a checkpoint has the name of the NumPy that wrote it.
        'numpy.core.multiarray.scalar': scalar,
        'numpy._core.multiarray.scalar': scalar,
        'numpy.core.multiarray._reconstruct': reconstruct,
        'numpy._core.multiarray._reconstruct': reconstruct,
    }


def _checkpoint_attribute(owner: type, name: str) -> Callable:
    """`getattr` as checkpoints may use it: for the methods that MMEngine stores by name.

    Raises:
        pickle.UnpicklingError: any other attribute is asked for.
    """
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(owner, name)
    if owner is OneCycleParamScheduler and name in ('_annealing_cos', '_annealing_linear'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'the checkpoint asks for attribute {name!r} of {owner!r}; no checkpoint of MMEngine does'
    )
