"""Keeps the messages of libraries off the console: the commands say what matters themselves."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger, logger
from pycocotools import coco, cocoeval

PACKAGE = Path(__file__).parents[1]  # not resolved: records name files as they were imported


@functools.cache
def quieten() -> None:
    """Show errors and this package's warnings alone, as one line each; once for the process.

    - MMEngine's loggers, those that exist and those to come, keep the rest for their log files:
      environment, config, hooks, losses, evaluation.
    - What pycocotools prints, and MMEngine where it has no logger, goes to the current log.
    - Of other libraries' loggers, as timm's, only errors show.
    """
    for existing in MMLogger._instance_dict.values():
        quieten_logger(existing)
    if logging.lastResort:  # handles what comes from a logger that nobody has given a handler
        logging.lastResort.setLevel(logging.ERROR)
    create = MMLogger.__init__

    @functools.wraps(create)
    def create_quiet(self: MMLogger, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        quieten_logger(self)

    MMLogger.__init__ = create_quiet
    for module in (coco, cocoeval, logger):
        module.print = log_instead  # found before the built-in function


def quieten_logger(chatty: logging.Logger) -> None:
    """Have a logger's handlers of the console show only what concerns a user, without a prefix."""
    for handler in chatty.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(concerns_user)
            handler.setFormatter(logging.Formatter('%(message)s'))


def concerns_user(record: logging.LogRecord) -> bool:
    """Whether a record is an error, or a warning of this package."""
    ours = PACKAGE in Path(record.pathname).parents
    return record.levelno >= (logging.WARNING if ours else logging.ERROR)


def log_instead(*values: object, **kwargs: Any) -> None:
    """Log what would be printed."""
    MMLogger.get_current_instance().info(' '.join(map(str, values)))
