"""Checkpoints are read as data and run no code: `compat`'s entries about `torch.load`."""

from __future__ import annotations

import argparse
import codecs
import functools
import inspect
import pickle
import re
import types
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ssd_plugin.errors import CheckpointError

# --- entries -------------------------------------------------------------------------------------
# MMEngine is imported inside of them: that works only once OpenCV is known to load.


def allow_mmengine_types() -> None:
    """Let `torch.load` read MMEngine's checkpoints with `weights_only` on.

    Broken: PyTorch >= 2.6 loads only tensors and plain containers unless told otherwise, and
    MMEngine (all of 0.10) keeps its log history and NumPy numbers in a checkpoint; resuming and
    testing fail.
    We: allow-list exactly those types. They are data; nothing on the list calls code that a
    checkpoint chooses. The history names its methods with the built-in `getattr`, which would let
    a checkpoint reach anything: `checkpoint_attribute` stands in for it, and knows only them.
    Until: MMEngine does the same.
    """
    if torch.__version__ < '2.6':  # compares versions, not text
        return
    allowed = _types_in_mmengine_checkpoints()
    torch.serialization.add_safe_globals([(found, name) for name, found in allowed.items()])


def restrict_older_pytorch() -> None:
    """Have `torch.load` read data only, where PyTorch's own default is to run code.

    Broken: reading a pickle runs what it asks for, and `weights_only` is off by default; turned
    on, it refuses MMEngine's checkpoints.
    Versions: PyTorch < 2.6.
    We: unless told `weights_only=False` or another `pickle_module`, read with a pickle that knows
    PyTorch's list and MMEngine's types and nothing else, as PyTorch 2.6 does.
    Until: PyTorch 2.6 is the oldest that we support.
    """
    if torch.__version__ >= '2.6':  # compares versions, not text
        return
    from torch._weights_only_unpickler import _get_allowed_globals  # older PyTorch only

    allowed = {
        **_get_allowed_globals(),
        # On the list of PyTorch 2.6: NumPy's bytes are written as text to encode, and a
        # MultiStepLR counts its milestones. With 2.6, `checkpoints.files` adds Namespace.
        '_codecs.encode': codecs.encode,
        'collections.Counter': Counter,
        'argparse.Namespace': argparse.Namespace,
        **_types_in_mmengine_checkpoints(),
    }
    restricted = restricted_pickle(allowed)
    load = torch.load

    @functools.wraps(load)
    def load_data(
        f: Any,
        map_location: Any = None,
        pickle_module: object = None,
        *,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> object:
        if weights_only is not False and pickle_module is None:
            weights_only, pickle_module = False, restricted
        return load(f, map_location, pickle_module, weights_only=bool(weights_only), **kwargs)

    torch.load = load_data


def restrict_downloads() -> None:
    """Have MMEngine read a checkpoint from the web as it reads a file: data, no code.

    Broken: MMEngine gets it by `torch.hub`, which turns `weights_only` off.
    Versions: PyTorch to 2.11 at least, MMEngine, all of 0.10. On the oldest PyTorch `torch.hub`
    has no such switch, and leaves it to `torch.load`.
    Until: `torch.hub` or MMEngine turns it on.
    """
    from mmengine.runner import checkpoint

    if 'weights_only' in inspect.signature(checkpoint.load_url).parameters:
        checkpoint.load_url = functools.partial(checkpoint.load_url, weights_only=True)


def forbid_pickle_fallback() -> None:
    """Have the fork `onedl-mmengine` refuse what PyTorch refuses.

    Broken: it warns, and reads the checkpoint once more with `weights_only` off. Where nothing is
    refused, it takes its own types off PyTorch's list, and ours with them.
    Versions: onedl-mmengine 0.10.12. Until: it does neither.
    """
    from mmengine.runner import checkpoint

    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = torch.load


def explain_weights_only_errors() -> None:
    """Have MMEngine say which checkpoint is refused and why, in one line.

    Broken: PyTorch's error does not name the file, is ten lines long, and tells how to run the
    code after all.
    Versions: PyTorch >= 2.6.
    We: `CheckpointLoader.load_checkpoint`, by which all of MMEngine's checkpoints come, raises
    `CheckpointError` where a checkpoint asks for code.
    Until: PyTorch's error is a user's to read.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    load_checkpoint = CheckpointLoader.load_checkpoint

    @functools.wraps(load_checkpoint)
    def load(filename: str, *args: Any, **kwargs: Any) -> dict:
        try:
            return load_checkpoint(filename, *args, **kwargs)
        except pickle.UnpicklingError as error:
            require_no_code(filename, error)
            raise

    CheckpointLoader.load_checkpoint = staticmethod(load)


# --- what the entries share ----------------------------------------------------------------------


def require_no_code(path: object, error: Exception) -> None:
    """Raise a one-line error if reading a checkpoint has failed because it asks for code to run.

    Raises:
        CheckpointError: It names the class or function that the checkpoint asks for.
    """
    found = re.search(r'Unsupported (?:global: GLOBAL|class) ([\w.]+)', str(error))
    if found:
        raise CheckpointError(f'{path} is refused: to read it would run {found[1]}') from error


def restricted_pickle(allowed: Mapping[str, object]) -> types.ModuleType:
    """A `pickle_module` for `torch.load` that reads data and calls nothing but what is allowed.

    A pickle names the classes and functions that it is put together with, and reading it calls
    them. Here it gets those of `allowed`, by their full names ('module.name'), and no others
    ("Restricting Globals" in the documentation of Python's `pickle`). Any other raises
    `pickle.UnpicklingError`.
    """

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            if f'{module}.{name}' in allowed:
                return allowed[f'{module}.{name}']
            # In PyTorch's words, which `require_no_code` looks for.
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {module}.{name}')

    module = types.ModuleType('restricted_pickle')  # PyTorch asks for the name
    load = lambda file, **options: Unpickler(file, **options).load()  # noqa: E731
    vars(module).update(Unpickler=Unpickler, load=load)
    return module


def _types_in_mmengine_checkpoints() -> dict[str, Any]:
    """What MMEngine's checkpoints hold beside tensors and containers, by its name in a pickle."""
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    scalar, reconstruct = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]
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
        'builtins.getattr': checkpoint_attribute,
        '__builtin__.getattr': checkpoint_attribute,  # as it is written, for Python 2 to read
        # NumPy 2 moved these two; a checkpoint has the name of the NumPy that wrote it.
        'numpy.core.multiarray.scalar': scalar,
        'numpy._core.multiarray.scalar': scalar,
        'numpy.core.multiarray._reconstruct': reconstruct,
        'numpy._core.multiarray._reconstruct': reconstruct,
    }


def checkpoint_attribute(owner: type, name: str) -> Callable:
    """`getattr` as checkpoints may use it: for the methods that MMEngine stores by name.

    Raises:
        pickle.UnpicklingError: Any other attribute is asked for.
    """
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    is_statistic = owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean')
    annealing = '_annealing_cos', '_annealing_linear'
    if is_statistic or (owner is OneCycleParamScheduler and name in annealing):
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'the checkpoint asks for attribute {name!r} of {owner!r}; no checkpoint of MMEngine does'
    )
