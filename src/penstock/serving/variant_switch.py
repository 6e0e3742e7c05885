"""Which of two variants of a model runs the next batch: the one that is wanted, unless deadlines are at risk with it.

Pure: what waits and the time in, a choice out. It goes to the quicker one at once, and back only when there has been time to
spare for a while, so that a load at the edge does not make it change with every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.serving.latency_table import LatencyTable

#: The time that is needed must not be more than this part of the time that is left.
_AT_RISK = 0.8
_AT_EASE = 0.4
#: Choices in a row that must be at ease before it goes back.
_PATIENCE = 16


class Due(NamedTuple):
    """A request that waits: its rows, and when it has to be answered."""

    rows: int
    deadline_ns: int


class VariantSwitch:
    """`table` has the times of the variant that is wanted."""

    __slots__ = ("_at_ease", "_table", "is_quick")

    def __init__(self, table: LatencyTable) -> None:
        self._table = table
        self._at_ease = 0
        self.is_quick = False

    def choose(self, waiting: Sequence[Due], now_ns: int) -> bool:
        """Whether the quicker variant runs next. `waiting` is all that waits, in the order in which it will run."""
        need = self._worst(waiting, now_ns)
        if need > _AT_RISK:
            self.is_quick, self._at_ease = True, 0
        elif self.is_quick:
            self._at_ease = self._at_ease + 1 if need < _AT_EASE else 0
            self.is_quick = self._at_ease < _PATIENCE
        return self.is_quick

    def _worst(self, waiting: Sequence[Due], now_ns: int) -> float:
        """Of all requests the largest part of its time that is needed until its batch has run with the wanted variant."""
        cap = self._table.cap
        batch_s = self._table.seconds(cap)
        worst, rows = 0.0, 0
        for due in waiting:
            rows += due.rows
            one_s = self._table.seconds(min(rows, cap)) if rows <= cap else batch_s
            if one_s is None:
                continue
            needed_s = one_s if rows <= cap else -(-rows // cap) * one_s
            left_s = (due.deadline_ns - now_ns) / 1e9
            worst = max(worst, needed_s / left_s if left_s > 0 else float("inf"))
        return worst
