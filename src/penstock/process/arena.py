"""Shared memory for large tensors: one side allocates and writes, the other reads and gives back.

Guarantees: a block is 64-byte aligned (so that an engine may take it without a copy) and belongs to one tensor until it is
released; pages are given back to the system when nothing is in use. The mapping is sparse: its size is a bound, not a cost.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from bisect import bisect_left

import numpy as np

from penstock.tensors import Array

ALIGNMENT = 64
#: What stays allocated for the next tensor when the arena becomes empty.
_KEPT_BYTES = 2 << 20


def create_arena(size: int) -> int:
    """A descriptor of `size` bytes of anonymous memory that can be sent to other processes."""
    if sys.platform == "linux":
        fd = os.memfd_create("penstock-arena", os.MFD_CLOEXEC)
    else:
        fd, path = tempfile.mkstemp()
        os.unlink(path)
    os.ftruncate(fd, size)
    return fd


class ArenaView:
    """An arena that the other side allocates from."""

    __slots__ = ("_bytes", "_map", "size")

    def __init__(self, fd: int) -> None:
        self.size = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, self.size)
        os.close(fd)
        self._bytes: Array = np.frombuffer(self._map, np.uint8)

    def view(self, offset: int, size: int) -> Array:
        """`size` bytes at `offset`, without a copy: valid until the block is released. Raises ValueError outside the arena."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"block of {size} bytes at {offset} is outside of an arena of {self.size}")
        return self._bytes[offset : offset + size]


class Arena(ArenaView):
    """An arena with its allocator: first fit over a sorted list of free ranges, for the few tensors that are large."""

    __slots__ = ("_free", "_high", "_used")

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._free: list[tuple[int, int]] = [(0, self.size)]
        self._used: dict[int, int] = {}
        self._high = 0

    def allocate(self, size: int) -> int | None:
        """The offset of a new block of at least `size` bytes, None where there is no room."""
        size = max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
        for index, (offset, length) in enumerate(self._free):
            if length >= size:
                if length == size:
                    del self._free[index]
                else:
                    self._free[index] = (offset + size, length - size)
                self._used[offset] = size
                self._high = max(self._high, offset + size)
                return offset
        return None

    def release(self, offset: int) -> None:
        """Takes a block back; one that is not in use is ignored, since the other side is not trusted."""
        size = self._used.pop(offset, None)
        if size is None:
            return
        index = bisect_left(self._free, (offset, 0))
        if index < len(self._free) and offset + size == self._free[index][0]:
            size += self._free.pop(index)[1]
        if index > 0 and sum(self._free[index - 1]) == offset:
            index -= 1
            offset, before = self._free.pop(index)
            size += before
        self._free.insert(index, (offset, size))
        if not self._used and self._high > _KEPT_BYTES:
            self._give_back()

    def _give_back(self) -> None:
        if hasattr(mmap, "MADV_REMOVE"):
            self._map.madvise(mmap.MADV_REMOVE, _KEPT_BYTES, -(-(self._high - _KEPT_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._high = 0

    @property
    def used_blocks(self) -> int:
        return len(self._used)
