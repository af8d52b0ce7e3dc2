"""Errors that a user can meet: a tool catches their base class and ends with the message."""

from __future__ import annotations

from collections.abc import Iterable


class SSDPluginError(Exception):
    """Base class of the errors below; the message is one line that says what to do."""


class ConfigError(SSDPluginError, ValueError):
    """A config does not suit what is asked of it."""


class InputError(SSDPluginError, ValueError):
    """What a user names can't be used: an image, a folder, a device, an exported file, a log."""


class MissingPackageError(SSDPluginError, ImportError):
    """A package is not installed, or only in a version that does not work here."""


class MissingOperationError(MissingPackageError, NotImplementedError):
    """An operation of mmcv is needed that mmcv-lite lacks."""


class CheckpointError(SSDPluginError, ValueError):
    """A file is not the checkpoint that it should be."""


class DamagedCheckpointError(SSDPluginError, ValueError):
    """The checkpoint to resume from is incomplete."""


class DataRefusedError(SSDPluginError, ValueError):
    """A data set cannot be trained or evaluated on."""


class DataRootError(SSDPluginError, ValueError):
    """A folder given by ``--data-root`` cannot be trained or tested on."""


class NonFiniteLossError(SSDPluginError, RuntimeError):
    """A loss or a weight is NaN or infinite."""


class SSDPluginWarning(RuntimeWarning):
    """Something that a user should know and may change; the commands print it as one line."""


def one_line(error: Exception) -> str:
    """What another library's error says, in one line of at most 200 characters."""
    return ' '.join(str(error).split())[:200]


def shorten(names: Iterable[str], most: int = 20) -> str:
    """The first of some names, each once, and how many more there are; "none" of none."""
    names = list(dict.fromkeys(names))
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return (', '.join(names[:most]) or 'none') + more
