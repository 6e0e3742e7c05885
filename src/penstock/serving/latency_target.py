"""The cap of a batch for a time within which requests are to be answered: one more while there is time, a part less when not.

The rule is that of congestion control (AIMD), which Clipper (Crankshaw et al., NSDI 2017) found best for batches. A request that
comes when a batch has just begun waits for it and runs in the next: so one run may take half of the time.
"""

from __future__ import annotations

#: The part that is left when a run took too long: as it took longer, less, down to half.
_DECREASE, _MOST_AT_ONCE = 0.9, 0.5
#: Where nothing is known yet: small, as growing costs less than being late.
_FIRST = 4.0


class LatencyTarget:
    """`cap` is the most rows of a batch. Told of every run."""

    __slots__ = ("_limit_s", "_most", "_rows", "cap")

    def __init__(self, target_s: float, most: int) -> None:
        self._limit_s = target_s / 2
        self._most = most
        self._rows = min(float(most), _FIRST)
        self.cap = int(self._rows)

    def note(self, rows: int, seconds: float) -> bool:
        """A run of `rows` took so long. Whether `cap` has changed."""
        if seconds > self._limit_s:
            # What a batch below the cap took says that the cap is too high all the same.
            self._rows = max(1.0, min(self._rows, rows) * max(_MOST_AT_ONCE, min(_DECREASE, self._limit_s / seconds)))
        elif rows >= self.cap:
            self._rows = min(float(self._most), self._rows + 1)
        else:
            return False
        before, self.cap = self.cap, int(self._rows)
        return self.cap != before
