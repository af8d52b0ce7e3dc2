"""Python's pickle, limited to objects that are named."""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Mapping
from typing import BinaryIO


class RestrictedPickle(types.ModuleType):
    """What ``torch.load`` takes as its ``pickle_module``; reads, and calls nothing else.

    A pickle names the classes and functions that it is put together with, and reading it calls
    them. Here it gets those of ``allowed``, and no others ("Restricting Globals" in the
    documentation of Python's ``pickle``).

    Args:
        allowed: Classes and functions by their full names in pickles, 'module.name'.
    """

    def __init__(self, allowed: Mapping[str, object]) -> None:
        super().__init__('restricted_pickle')  # PyTorch asks for the name

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> object:
                if f'{module}.{name}' in allowed:
                    return allowed[f'{module}.{name}']
                # As PyTorch says it.
                raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {module}.{name}')

        self.Unpickler = Unpickler

    def load(self, file: BinaryIO, **kwargs) -> object:
        """``pickle.load``.

        Raises:
            pickle.UnpicklingError: It names what is not allowed.
        """
        return self.Unpickler(file, **kwargs).load()

    def loads(self, data: bytes, **kwargs) -> object:
        """``pickle.loads``.

        Raises:
            pickle.UnpicklingError: It names what is not allowed.
        """
        return self.load(io.BytesIO(data), **kwargs)
