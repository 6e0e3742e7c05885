"""Unpacking a model's archive (`model.tar.gz`) into a cache folder.

Guarantees: nothing is written outside the cache; only plain files and folders are made; what an archive may take of
disk and memory is bounded; a folder in the cache is complete, because it appears there by a rename. Archives with the
same content share one folder. Assumes that nobody else writes into the cache.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from penstock.errors import UsageError

SUFFIXES = (".tar.gz", ".tgz", ".tar")

MAX_BYTES = 64 << 30
MAX_MEMBERS = 100_000
_MAX_READ = 16 << 20
_CHUNK = 1 << 20

#: What tarfile, gzip and the file system raise for broken archives.
_BROKEN = (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, ArithmeticError, RecursionError)


def unpack(archive: Path, cache: Path) -> Path:
    """The folder in `cache` with the content of `archive`.

    Raises UsageError for an archive that is unsafe, broken or too large.
    """
    try:
        target = cache / _sha256(archive)
        if target.is_dir():
            return target
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=cache) as scratch:
            folder = Path(scratch) / "content"
            folder.mkdir()
            with archive.open("rb") as file:
                _extract(file, folder)
            _publish(folder, target)
    except UsageError as error:
        raise UsageError(f"{archive}: {error}") from error.__cause__
    except _BROKEN as error:
        raise UsageError(f"{archive}: cannot be unpacked: {error}") from error
    return target


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _publish(folder: Path, target: Path) -> None:
    """Renames into place; where another process was first, its folder is as good."""
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise


class _BoundedReader:
    """A stream of which no single read may be large: tarfile reads headers whole, whatever size they claim."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        if size > _MAX_READ:
            raise UsageError(f"a header of {size} bytes; at most {_MAX_READ} are accepted")
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        if position > MAX_BYTES:
            raise UsageError(f"more than {MAX_BYTES >> 30} GiB")
        return self._stream.seek(max(0, position))  # Python 3.10 goes to -1 in an archive that is empty

    def tell(self) -> int:
        return self._stream.tell()


def _extract(file: BinaryIO, folder: Path) -> None:
    is_gzip = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_gzip else file
    reader = cast(BinaryIO, _BoundedReader(stream))
    with tarfile.open(fileobj=reader, mode="r:") as tar:
        for member in _members(tar):
            path = folder / _safe_name(member.name)
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None  # of a plain file it never is
            with content, path.open("wb") as out:
                shutil.copyfileobj(content, out, _CHUNK)
    _check_rest(stream)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The plain files and folders of the archive. Raises UsageError for any other kind, and past the bounds."""
    count = total = 0
    while (member := tar.next()) is not None:
        cast(Any, tar).members.clear()  # keeps memory bounded; nothing is looked up by name
        count += 1
        total += max(0, member.size)
        if count > MAX_MEMBERS:
            raise UsageError(f"more than {MAX_MEMBERS} files")
        if total > MAX_BYTES:
            raise UsageError(f"more than {MAX_BYTES >> 30} GiB of files")
        if not (member.isreg() or member.isdir()):
            kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
            raise UsageError(f"{member.name!a} is {kind}; a model's archive may hold files and folders only")
        yield member


def _safe_name(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(f"{name!a} leads out of the folder that the archive is unpacked into")
    return path


def _check_rest(stream: BinaryIO) -> None:
    """Reads to the end, where gzip keeps the checksum of it all."""
    left = MAX_BYTES
    while chunk := stream.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise UsageError(f"more than {MAX_BYTES >> 30} GiB after the last file")
