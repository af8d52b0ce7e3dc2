"""Downloads that go on where they broke, and archives that are unpacked where they shall be."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte
# What a connection ends with that has broken. URLError is none: it didn't come about.
BROKEN = (ConnectionError, TimeoutError, http.client.HTTPException)

Tell = Callable[[str, int, 'int | None'], None]  # what is being done, bytes so far, bytes in all


class DownloadError(RuntimeError):
    """A file is not what it should be; the message is one line."""


def fetch(url: str, path: Path, md5: str, tell: Tell) -> None:
    """Download a file, or the rest of it; what is there already is left alone.

    1. It grows under the name of ``path`` with ``.part``. What an earlier call left of that is
       gone on with, if the server can.
    2. A connection that breaks is taken up again, as long as each has brought something.
    3. It takes its own name once its checksum is right, and is deleted if it is wrong.

    Args:
        url: Where it is.
        path: What to call it.
        md5: Its checksum, in hexadecimal.
        tell: Called often, with what is being done and how far that is.

    Raises:
        DownloadError: The checksum is wrong.
        OSError, http.client.HTTPException: The server or the disk refuse.
    """
    if path.is_file() and checksum(path, tell) == md5:
        return
    part = path.with_name(f'{path.name}.part')
    while True:
        before = size_of(part)
        try:
            receive(url, part, tell)
            break
        except BROKEN:
            if size_of(part) <= before:
                raise
    found = checksum(part, tell)
    if found != md5:
        part.unlink()
        raise DownloadError(f'{url} is corrupted: its MD5 is {found}, not {md5}')
    part.replace(path)


def receive(url: str, part: Path, tell: Tell) -> None:
    """Append to a file what of a download it has not; all, if the server knows no ranges."""
    have = size_of(part)
    request = urllib.request.Request(url, headers={'User-Agent': 'ssd_plugin'})
    if have:
        request.add_header('Range', f'bytes={have}-')
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing lies beyond: the checksum will tell if it's all
            return
        raise
    with response:
        ranged = response.status == 206
        start = response.headers.get('Content-Range', '').partition('-')[0]
        if ranged and start != f'bytes {have}':
            raise DownloadError(f'{url}: asked for bytes from {have}, the server sends {start}')
        done = have if ranged else 0
        total = None if response.length is None else done + response.length
        with part.open('ab' if ranged else 'wb') as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                tell('downloading', done, total)
    if total is not None and done < total:
        raise ConnectionError(f'{url}: the connection broke at {done} of {total} bytes')


def size_of(path: Path) -> int:
    """The bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def checksum(path: Path, tell: Tell) -> str:
    """A file's MD5, in hexadecimal."""
    digest, total = hashlib.md5(usedforsecurity=False), size_of(path)
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            tell('checking', file.tell(), total)
    return digest.hexdigest()


class Member(NamedTuple):
    """A file or folder in an archive."""

    name: str
    kind: str  # file, folder or other: a link, a device
    size: int
    open: Callable[[], BinaryIO]


def unpack(archive: Path, out: Path, tell: Tell) -> None:
    """Unpack a tar or zip; each file takes its name once it is complete.

    Nothing is written if any member is a link or a device, or would land outside ``out``.

    Raises:
        DownloadError: One is or would.
        OSError, tarfile.TarError, zipfile.BadZipFile: The disk or the archive is at fault.
    """
    with opened(archive) as members:
        for member in members:
            path = PurePosixPath(member.name.replace('\\', '/'))
            outside = path.is_absolute() or '..' in path.parts or ':' in ''.join(path.parts[:1])
            if outside or member.kind == 'other':
                why = 'leads out of the folder' if outside else 'is neither a file nor a folder'
                raise DownloadError(f'{archive} is not unpacked: {member.name!r} in it {why}')
        done, total = 0, sum(member.size for member in members)
        for member in members:
            target = out / member.name
            if member.kind == 'folder':
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f'{target.name}.part')
            with member.open() as source, part.open('wb') as file:
                shutil.copyfileobj(source, file)
            part.replace(target)
            done += member.size
            tell('unpacking', done, total)


@contextmanager
def opened(archive: Path) -> Iterator[list[Member]]:
    """The members of a tar or zip."""
    if archive.suffix == '.zip':
        with zipfile.ZipFile(archive) as file:
            yield [
                Member(
                    info.filename,
                    'folder' if info.is_dir() else 'file',
                    info.file_size,
                    lambda info=info: file.open(info),
                )
                for info in file.infolist()
            ]
    else:
        with tarfile.open(archive) as file:
            yield [
                Member(
                    info.name,
                    'folder' if info.isdir() else 'file' if info.isfile() else 'other',
                    info.size,
                    lambda info=info: file.extractfile(info),
                )
                for info in file.getmembers()
            ]
