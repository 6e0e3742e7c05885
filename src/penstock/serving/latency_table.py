"""What runs of a model take by their number of rows, kept up to date while it serves, and the cap of a batch that follows.

Guarantees: it costs a dictionary look-up per run. A cap is only lowered by what was seen often enough, and is tried out again
now and then, since a batch above it is never seen otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

#: What a new time counts for, beside those before it.
_WEIGHT = 0.05
#: Runs after which a size is known.
_KNOWN = 16
#: Between two looks at the table.
_LOOK_EVERY = 64
#: Looks between two trials of everything.
_TRY_EVERY = 32
#: Rows may cost so much more than in the best batch: below it, larger batches only make everyone wait.
_MARGIN = 1.05


class LatencyTable:
    """Times by the power of two that holds the rows. `first` are those that a plan measured, in seconds."""

    __slots__ = ("_most", "_runs", "_seconds", "_seen", "cap")

    def __init__(self, most: int, first: Mapping[int, float]) -> None:
        self._most = most
        self._seconds: dict[int, float] = {_size(rows): seconds for rows, seconds in first.items()}
        self._seen: dict[int, int] = dict.fromkeys(self._seconds, _KNOWN)
        self._runs = 0
        self.cap = self._find()

    def note(self, rows: int, seconds: float) -> bool:
        """A run of `rows` took so long. Whether `cap`, the most rows of a batch, has changed."""
        size = _size(rows)
        # A batch that is not full costs what its rows cost: it stands for the full one.
        full = seconds * size / rows
        before = self._seconds.get(size)
        self._seconds[size] = full if before is None else before + _WEIGHT * (full - before)
        self._seen[size] = self._seen.get(size, 0) + 1
        self._runs += 1
        if self._runs % _LOOK_EVERY:
            return False
        before_cap, self.cap = self.cap, self._most if self._runs // _LOOK_EVERY % _TRY_EVERY == 0 else self._find()
        return self.cap != before_cap

    def seconds(self, rows: int) -> float | None:
        """What a run of so many rows takes, by the size that is nearest of those that were seen; None where none was."""
        if not self._seconds:
            return None
        size = _size(rows)
        if size not in self._seconds:
            size = max((one for one in self._seconds if one < size), default=min(self._seconds))
        return self._seconds[size] * rows / size if rows > size else self._seconds[size]

    def _find(self) -> int:
        """The smallest size whose rows cost about as little as those of the best; `most` where the largest seen is the best."""
        per_row = {size: self._seconds[size] / size for size, seen in self._seen.items() if seen >= _KNOWN}
        if not per_row:
            return self._most
        best = min(per_row.values())
        largest = max(per_row)
        found = min(size for size, cost in per_row.items() if cost <= best * _MARGIN)
        return self._most if found == largest else min(self._most, found)


def _size(rows: int) -> int:
    """The power of two that is not less."""
    return 1 << max(0, rows - 1).bit_length()
