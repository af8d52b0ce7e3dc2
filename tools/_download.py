"""Downloads that continue where they broke off, and archives that are unpacked safely."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte
# A connection that was made and has broken ends with these, one that was never made with URLError.
BROKEN = (ConnectionError, TimeoutError, http.client.HTTPException)

Tell = Callable[[str, int, 'int | None'], None]  # what is being done, bytes so far, bytes in all


class DownloadError(RuntimeError):
    """A file is not what it should be; the message is one line."""


# What fetch and unpack raise if the server, the disk or the file is at fault.
ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile)
ERRORS = (DownloadError, OSError, http.client.HTTPException, *ARCHIVE_ERRORS)


def fetch(url: str, path: Path, md5: str, tell: Tell) -> None:
    """Download a file with an MD5, in hexadecimal, to ``path``, unless it is there already.

    1. It is written to ``path`` with the suffix ``.part``. What an earlier call left of that is
       continued, if the server supports ranges.
    2. A broken connection is made again, as long as each one has transferred something.
    3. The suffix is dropped once the checksum is right; a file with a wrong one is deleted.

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
    """Append what is missing to a file, or write all of it if the server supports no ranges."""
    have = size_of(part)
    headers = {'User-Agent': 'ssd_plugin'} | ({'Range': f'bytes={have}-'} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, None, headers), None, TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing is missing, unless the checksum says otherwise
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
    """The size of a file in bytes; 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def checksum(path: Path, tell: Tell) -> str:
    """The MD5 of a file, in hexadecimal."""
    digest, total = hashlib.md5(usedforsecurity=False), size_of(path)
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            tell('checking', file.tell(), total)
    return digest.hexdigest()


def unpack(archive: Path, out: Path, tell: Tell) -> None:
    """Unpack a tar or zip; each file gets its name once it is complete.

    Nothing is written if any member is a link or a device, or would be written outside ``out``.

    Raises:
        DownloadError: There is such a member.
        OSError, tarfile.TarError, zipfile.BadZipFile: The disk or the archive is at fault.
    """
    open_member: Any  # a function from a member to a file object
    members: list[tuple[Any, str, int, bool, bool]]  # name, size, is it a folder, is it a file
    with zipfile.ZipFile(archive) if archive.suffix == '.zip' else tarfile.open(archive) as file:
        if isinstance(file, zipfile.ZipFile):
            members = [(m, m.filename, m.file_size, m.is_dir(), True) for m in file.infolist()]
            open_member = file.open
        else:
            members = [(m, m.name, m.size, m.isdir(), m.isfile()) for m in file.getmembers()]
            open_member = file.extractfile
        for _, name, _, is_folder, is_file in members:
            path = PurePosixPath(name.replace('\\', '/'))
            outside = path.is_absolute() or '..' in path.parts or ':' in ''.join(path.parts[:1])
            if outside or not (is_folder or is_file):
                why = 'leads out of the folder' if outside else 'is neither a file nor a folder'
                raise DownloadError(f'{archive} is not unpacked: {name!r} in it {why}')
        done, total = 0, sum(size for _, _, size, _, _ in members)
        for member, name, size, is_folder, _ in members:
            target = out / name
            (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            if is_folder:
                continue
            part = target.with_name(f'{target.name}.part')
            with open_member(member) as source, part.open('wb') as target_file:
                shutil.copyfileobj(source, target_file)
            part.replace(target)
            done += size
            tell('unpacking', done, total)
