"""System shared memory that clients on this machine have registered, as a gateway sees it.

Guarantees: a region is a regular file directly in /dev/shm; nothing outside a region is read or written. Regions are read and
written like files and never mapped: a client that shortens one gets an error, where a mapping would end the process.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from typing import NamedTuple

from penstock.codec.oip_request import Place
from penstock.errors import InvalidArgument, PenstockError

FOLDER = "/dev/shm"
_KEY = re.compile(r"/?(?!\.{1,2}\Z)([^/\0]{1,255})", re.DOTALL)
_MAX_SIZE = (1 << 63) - 1


class Region(NamedTuple):
    """`size` bytes at `offset` of the shared memory object `key`, under a name of the client's."""

    name: str
    key: str
    offset: int
    size: int


class SharedMemory:
    """All regions of a server. A tensor in them may have `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._files: dict[str, int] = {}
        self.regions: dict[str, Region] = {}

    def update(self, regions: Sequence[Region]) -> None:
        """Takes in what is registered now, whole each time. One that cannot be opened any more is an error when it is used."""
        wanted = {one.name: one for one in regions}
        for name in [name for name, one in self.regions.items() if wanted.get(name) != one]:
            del self.regions[name]
            os.close(self._files.pop(name))
        for name, one in wanted.items():
            if name not in self.regions:
                try:
                    self._files[name] = _open(one)
                except PenstockError:
                    continue
                self.regions[name] = one

    def read(self, place: Place) -> bytes:
        """The bytes at a place. Raises InvalidArgument for one that is not in a region."""
        fd, at = self._find(place)
        parts: list[bytes] = []
        left = place.size
        while left:
            part = os.pread(fd, left, at)
            if not part:
                raise InvalidArgument(f"The shared memory of region '{place.region}' has become shorter than it was registered")
            parts.append(part)
            at += len(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, place: Place, data: bytes) -> None:
        """Writes to a place. Raises InvalidArgument for one that is not in a region, or that has no room."""
        fd, at = self._find(place)
        view = memoryview(data)[: place.size]
        try:
            while view:
                count = os.pwrite(fd, view, at)
                at += count
                view = view[count:]
        except OSError as error:
            raise InvalidArgument(f"Region '{place.region}' cannot be written: {error.strerror}") from None

    def _find(self, place: Place) -> tuple[int, int]:
        """The file of a place, and where it begins there."""
        region = self.regions.get(place.region)
        if region is None:
            raise InvalidArgument(f"There is no shared memory region '{place.region[:80]}'; register it first")
        if place.offset + place.size > region.size:
            raise InvalidArgument(
                f"{place.size} bytes at {place.offset} are outside of region '{place.region}', which has {region.size}"
            )
        if place.size > self._max_bytes:
            raise InvalidArgument(f"A tensor of {place.size} bytes is larger than the {self._max_bytes} that are allowed")
        return self._files[place.region], region.offset + place.offset


def check_region(region: Region) -> None:
    """Raises InvalidArgument for a region that cannot be opened."""
    os.close(_open(region))


def _open(region: Region) -> int:
    """A descriptor of the file that a region is in. Raises InvalidArgument for one that is not there, or not as large."""
    found = _KEY.fullmatch(region.key)
    if found is None:
        raise InvalidArgument(f"Shared memory key {region.key[:80]!r}: expected the name of an object, as shm_open takes it")
    if not (0 <= region.offset <= _MAX_SIZE and 0 < region.size <= _MAX_SIZE):
        raise InvalidArgument(f"Region '{region.name}': expected an offset of 0 or more and a byte_size of 1 or more")
    where = f"Shared memory '{region.key}'"
    try:
        # Without O_NONBLOCK a named pipe would hold the process up.
        fd = os.open(f"{FOLDER}/{found[1]}", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a file"
        raise InvalidArgument(f"{where} cannot be opened: {reason}") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or region.offset + region.size > status.st_size:
        os.close(fd)
        raise InvalidArgument(f"{where} has {status.st_size} bytes; {region.size} at {region.offset} are not in it")
    return fd
