"""What became of each request: four numbers each, 20 bytes, appended while the load runs and read when it is over.

Nothing is counted up or sorted meanwhile: that would be time in which the next request is late.
"""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

#: The kind of outcome that is not an error.
OK = 0
Times = npt.NDArray[np.int64]


class Record:
    """Outcomes in the order in which they came. Times are nanoseconds of one clock."""

    __slots__ = ("due_ns", "ended_ns", "example", "kind", "kinds", "which")

    def __init__(self) -> None:
        self.due_ns = array("q")
        self.ended_ns = array("q")
        self.which = array("H")
        self.kind = array("H")
        self.kinds: list[str] = ["ok"]
        #: What a server said with its first error.
        self.example = ""

    def answered(self, due_ns: int, ended_ns: int, which: int) -> None:
        self.due_ns.append(due_ns)
        self.ended_ns.append(ended_ns)
        self.which.append(which)
        self.kind.append(OK)

    def failed(self, due_ns: int, ended_ns: int, which: int, kind: str, example: str = "") -> None:
        if kind not in self.kinds:
            self.kinds.append(kind)
        self.example = self.example or example
        self.due_ns.append(due_ns)
        self.ended_ns.append(ended_ns)
        self.which.append(which)
        self.kind.append(self.kinds.index(kind))

    def __len__(self) -> int:
        return len(self.kind)


class Window:
    """The outcomes of a stretch of time: those that were due in it (`by_due`: an open loop), or that ended in it."""

    def __init__(self, record: Record, begin_ns: int, end_ns: int, *, by_due: bool) -> None:
        due, ended = (np.array(times, np.int64) for times in (record.due_ns, record.ended_ns))
        at = due if by_due else ended
        inside = (at >= begin_ns) & (at < end_ns)
        kind = np.array(record.kind, np.uint16)[inside]
        self.seconds = (end_ns - begin_ns) / 1e9
        self._is_ok = kind == OK
        self._begin_ns = begin_ns
        self._at = at[inside]
        self._latency_ns = (ended - due)[inside]
        self._which = np.array(record.which, np.uint16)[inside]
        counts = np.bincount(kind, minlength=len(record.kinds))
        self.requests = int(counts[OK])
        self.errors = {name: int(count) for name, count in zip(record.kinds[1:], counts[1:], strict=True) if count}

    def latencies_ms(self, which: int | None = None) -> npt.NDArray[np.float64]:
        """Of the requests that were answered, of all or of one sort."""
        chosen = self._is_ok if which is None else self._is_ok & (self._which == which)
        found: npt.NDArray[np.float64] = self._latency_ns[chosen] / 1e6
        return found

    def seconds_of(self) -> list[npt.NDArray[np.float64]]:
        """The latencies in milliseconds of each whole second of it."""
        second = (self._at[self._is_ok] - self._begin_ns) // 1_000_000_000
        latencies = self._latency_ns[self._is_ok] / 1e6
        return [latencies[second == number] for number in range(int(self.seconds))]
