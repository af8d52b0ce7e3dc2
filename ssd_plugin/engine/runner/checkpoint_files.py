"""Checkpoint files: written completely or not at all, and the last complete one found."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from ssd_plugin.errors import DamagedCheckpointError

LAST_CHECKPOINT = 'last_checkpoint'  # MMEngine's file with the path of the last checkpoint
UNFINISHED = '.unfinished'  # ends the name of a file that is being written
NAMES = 'epoch_*.pth', 'iter_*.pth', 'preempted.pth'  # of the checkpoints of a training


def write_file(path: Path, content: bytes) -> None:
    """Write a small file; if the process is killed meanwhile, the old content is still there."""
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_bytes(content)
    finish(unfinished)


def finish(unfinished: Path) -> None:
    """Flush a file that was written under an unfinished name to disk, and give it its name."""
    with open(unfinished, 'rb') as file:
        os.fsync(file.fileno())
    os.replace(unfinished, unfinished.with_name(unfinished.name.removesuffix(UNFINISHED)))


def remove_unfinished(folder: Path) -> None:
    """Remove files that a kill left unfinished. No other run may be writing into the folder."""
    for path in folder.glob(f'*{UNFINISHED}'):
        path.unlink()


def is_complete(path: Path) -> bool:
    """Whether a checkpoint's file has all of the content that it was written with.

    Checkpoints are zip archives with a checksum for each part, which PyTorch does not verify. A
    directory, as DeepSpeed writes them, can't be checked and counts as complete.
    """
    if path.is_dir():
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        return False


def has_checkpoints(work_dir: Path) -> bool:
    """Whether there are, or were, checkpoints of a training, whole or not."""
    return (work_dir / LAST_CHECKPOINT).is_file() or any(
        True for name in NAMES for _ in work_dir.glob(name)
    )


def find_checkpoint(work_dir: Path, warn: Callable[[str], None]) -> Path | None:
    """The checkpoint to resume from.

    It is the one that ``last_checkpoint`` names; in a copy of a work directory, the copy of it. If
    that file was cut off, or names a checkpoint that is missing or incomplete, it is the newest
    complete one, and a warning says so. Other files than checkpoints of a training are no
    candidates: MMEngine writes ``best_*`` without the optimizer's state. None where there is no
    checkpoint at all.

    Raises:
        DamagedCheckpointError: There are checkpoints, and none is complete.
    """
    pointer = work_dir / LAST_CHECKPOINT
    named = Path(pointer.read_text().strip()) if pointer.is_file() else None
    folders = {work_dir}
    if named is not None and named.suffix:  # else the file was cut off
        copy = work_dir / named.name
        named = copy if copy.exists() else named
        if named.exists() and is_complete(named):
            return named
        folders.add(named.parent)
    candidates = [path for folder in folders for name in NAMES for path in folder.glob(name)]
    candidates.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in candidates:
        if is_complete(path):
            if named is not None:
                warn(f'{pointer} names {str(named)!r}, which is missing or damaged: using {path}')
            return path
        warn(f'{path} is damaged (cut off or changed): looking for the one before')
    if candidates:
        raise DamagedCheckpointError(
            f'none of the {len(candidates)} checkpoints in {work_dir} is whole: remove them to '
            'begin anew, or name another with --resume'
        )
    return None
