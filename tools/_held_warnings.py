"""Warnings of libraries, held back from the console and kept for the log file.

Import this first: the first warnings come when MMEngine is imported. Python's own switches,
``python -W default`` and ``PYTHONWARNINGS``, leave them on the console.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

held: list[str] = []
show = warnings.showwarning


def hold(message: Warning | str, category: type[Warning], *place: Any, **kwargs: Any) -> None:
    """Hold a warning back; one of this package is for the user, and printed as one line."""
    if category.__module__.partition('.')[0] == 'ssd_plugin':
        print(f'warning: {message}', file=sys.stderr, flush=True)
    else:
        held.append(warnings.formatwarning(message, category, *place[:2]).strip())


def release() -> None:
    """Show warnings again, and those that were held back."""
    warnings.showwarning = show
    sys.stderr.write(''.join(f'{text}\n' for text in held))
    held.clear()


def hand_to(logger: logging.Logger) -> None:
    """Write the warnings that were held back into a log, whose console is quiet."""
    for text in held:
        logger.info(text)
    held.clear()


if not sys.warnoptions:
    warnings.showwarning = hold
