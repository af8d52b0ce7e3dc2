"""What a file is that PyTorch can't read as a checkpoint."""

from __future__ import annotations

import zipfile
from pathlib import Path

BEGINNING = 512  # bytes that are looked at


def describe(path: str | Path) -> str:
    """What a file that is no checkpoint is instead, and what to do: the end of a sentence."""
    path = Path(path)
    with path.open('rb') as file:
        start = file.read(BEGINNING)
    if not start:
        return 'the file is empty'
    if path.suffix.lower() == '.onnx' or (start[:1] == b'\x08' and b'pytorch' in start[:32]):
        return (
            'it is an ONNX file, which tools/detect.py and tools/test.py take; name the .pth it '
            'was made from'
        )
    if start.startswith(b'PK'):
        return _describe_zip(path)
    if start.startswith(b'\x80'):
        return 'it is cut off or damaged: copy it again'
    if start.startswith(b'version https://git-lfs'):
        return 'it is a pointer of Git LFS: get the file itself by `git lfs pull`'
    if start.lstrip()[:1] == b'<':
        return 'it is a web page or XML: download the file itself'
    if is_text(path):
        return 'it is a text file; a checkpoint is a .pth that training has written'
    return 'a checkpoint is a .pth that training has written'


def _describe_zip(path: Path) -> str:
    if not zipfile.is_zipfile(path):  # its table of contents comes last
        return 'it is cut off or damaged: copy it again'
    with zipfile.ZipFile(path) as archive:
        names = [Path(name).name for name in archive.namelist()]
    if 'constants.pkl' in names:
        return 'it is a TorchScript file; name the .pth it was made from'
    if 'data.pkl' in names:
        return 'it is damaged: copy it again'
    return 'it is a zip archive: unpack it, and name the .pth in it'


def is_text(path: str | Path) -> bool:
    """Whether a file begins with text, in UTF-8."""
    with Path(path).open('rb') as file:
        start = file.read(BEGINNING)
    try:
        text = start[: BEGINNING - 4].decode()  # a character has at most 4 bytes
    except UnicodeDecodeError as error:
        return error.start > len(start) - 8 and error.start > 0
    return bool(text) and all(char.isprintable() or char.isspace() for char in text)
