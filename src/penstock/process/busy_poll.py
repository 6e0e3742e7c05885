"""Looking for what comes next instead of sleeping.

A process that sleeps is woken by way of the system, on a core that has gone to sleep too and whose caches others have used
meanwhile: of a lone call's time that is a quarter to a third (benchmarks/grpc_latency.py).
"""

from __future__ import annotations

import asyncio
import time


class BusyPoll:
    """Keeps an event loop awake until `seconds` after the last `touch`: it looks at its sockets again and again."""

    __slots__ = ("_is_awake", "_loop", "_seconds", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._until = 0.0
        self._is_awake = False

    def touch(self) -> None:
        """Something has come."""
        self._until = time.monotonic() + self._seconds
        if not self._is_awake:
            self._is_awake = True
            self._loop.call_soon(self._stay_awake)

    def _stay_awake(self) -> None:
        # A loop that has something to call looks at its sockets, and does not wait for them.
        if time.monotonic() < self._until:
            self._loop.call_soon(self._stay_awake)
        else:
            self._is_awake = False
