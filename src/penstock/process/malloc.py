"""glibc's malloc, made to give memory back. Where there is no glibc, nothing is done.

glibc raises its threshold for mapped blocks with every large block, and keeps up to twice that: a gateway that has seen
bodies of a few megabytes went from 17 MB to 118. And one small block at the top of the heap keeps all below it: 89 MB (measured).
"""

from __future__ import annotations

import ctypes
import mmap
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Blocks from here on are mapped, and given back, one by one.
_LARGE_BLOCK_BYTES = 4 << 20
#: What malloc keeps: with less, each request of 600 KB would fault its pages in anew (0.2 ms).
_KEPT_BYTES = 8 << 20
#: Sweeps after the last growth at which it is still looked whether what was in use then has been freed since.
_LONGEST_PAUSE = 32


class Malloc:
    """Keeps the memory of this process near what it uses."""

    __slots__ = ("_pause", "_resident_bytes", "_since", "_trim")

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        mallopt = getattr(library, "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        self._trim = getattr(library, "malloc_trim", None) if sys.platform == "linux" else None
        self._resident_bytes = 0
        self._since, self._pause = 0, 1

    def sweep(self) -> None:
        """Gives free pages back when the process has grown, and 1, 2, 4 … 32 calls later again. To be called about once a second.

        Once is not enough: what is in use at that moment and freed afterwards stays with malloc, and shows as no growth.
        Each time takes 0.5 to 5 ms for 50 to 150 MB, so it ends.
        """
        if self._trim is None:
            return
        self._since += 1
        if _resident_bytes() > self._resident_bytes + _KEPT_BYTES:
            self._pause = 1
        elif self._since < self._pause or self._pause > _LONGEST_PAUSE:
            return
        else:
            self._pause *= 2
        self._trim(ctypes.c_size_t(_KEPT_BYTES))
        self._resident_bytes = _resident_bytes()
        self._since = 0


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE
