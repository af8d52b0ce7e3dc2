"""The least score of a detection that is kept: one for all classes, or one for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssd_plugin.errors import InputError, shorten


def read_thresholds(path: str | Path, classes: Sequence[str]) -> np.ndarray:
    """The thresholds (C,) float32 in a JSON file ``{class: threshold}``.

    Raises:
        InputError: It is no such file, or not one for these classes.
        OSError: It can't be read.
    """
    try:
        by_class = json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError as error:
        raise InputError(f'{path} is no JSON file: {error}') from error
    return check_thresholds(by_class, classes, path)


def check_thresholds(by_class: Any, classes: Sequence[str], source: str | Path) -> np.ndarray:
    """Thresholds by class as (C,) float32, in the order of the labels.

    Raises:
        InputError: ``source`` has not one threshold from 0 to 1 for each class, and no others.
    """
    if not isinstance(by_class, Mapping):
        raise InputError(f'{source} has no thresholds by class, as {{"{classes[0]}": 0.3}} has')
    for name, value in by_class.items():
        if name not in classes:
            raise InputError(
                f'{source}: the detector has no class {name!r}, but {shorten(classes, 5)}'
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InputError(f'{source}: the threshold of {name!r} is {value!r}, not from 0 to 1')
    missing = [name for name in classes if name not in by_class]
    if missing:
        raise InputError(f'{source}: no threshold for {shorten(missing, 5)}')
    return np.array([by_class[name] for name in classes], np.float32)
