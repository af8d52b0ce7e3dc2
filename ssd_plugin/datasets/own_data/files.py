"""Finding folders and images by name, and writing files."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def list_images(folder: Path) -> dict[str, str]:
    """The names of the images in a folder, by their stems."""
    names = [name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES)]
    return {os.path.splitext(name)[0]: name for name in sorted(names, reverse=True)}  # jpg wins


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, without hidden ones."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return [folder / name for name in names if not name.startswith('.')]


def subfolder(folder: Path, *names: str) -> Path | None:
    """The subfolder with the first of these names, in small or capital letters."""
    found = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((found[name] for name in names if name in found), None)


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: the processes of one training all write it, and read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(text, encoding='utf-8')
    part.replace(path)
