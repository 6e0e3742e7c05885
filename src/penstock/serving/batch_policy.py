"""When a batch is cut, and what goes into it: a function of what waits and the time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The bounds of a batch, and its shape.

    `max_rows` caps what is put together. `timeout_ns` is how long the oldest may wait for others: with 0, a host that is
    free takes all that has arrived and waits for nothing (DESIGN.md 5).

    A request with more rows than `max_request_rows` is refused (0: none is); one with more than `max_rows` runs whole, or in
    parts where the policy `splits`. Batches are filled up to one of `allowed_rows`, ascending. `pads_shapes`: what differs in
    shape, but not in rank, may be put together.
    """

    max_rows: int
    timeout_ns: int = 0
    max_request_rows: int = 0
    splits: bool = False
    allowed_rows: tuple[int, ...] = ()
    pads_shapes: bool = False

    def takes_as_it_is(self, rows: int) -> bool:
        """Whether a batch of `rows` is run as it came."""
        return self.filled(rows) == rows and len(self.cuts(rows)) == 1

    def filled(self, rows: int) -> int:
        """The number of rows that a batch of `rows` is run with: the next that is allowed, if there is one."""
        return next((allowed for allowed in self.allowed_rows if allowed >= rows), rows)

    def cuts(self, rows: int) -> list[int]:
        """The sizes of the parts that `rows` are run in."""
        if not self.splits or rows <= self.max_rows:
            return [rows]
        whole, rest = divmod(rows, self.max_rows)
        return [self.max_rows] * whole + ([rest] if rest else [])


class Waiting(NamedTuple):
    """What waits, in the order of arrival: `key` says what may be put together (None: nothing)."""

    key: Hashable
    rows: int
    arrived_ns: int


def cut(waiting: Sequence[Waiting], policy: BatchPolicy, now_ns: int) -> tuple[list[int], int]:
    """The places in `waiting` that run now, and, where nothing runs yet, for how many ns to wait.

    The oldest decides the key; others of its key join in order of arrival until the cap. A batch is due when it is full,
    when its oldest has waited for `timeout_ns`, or when nothing can join it.
    """
    if not waiting:
        return [], -1
    first = waiting[0]
    places = [0]
    rows = first.rows
    is_full = first.key is None or rows >= policy.max_rows
    if not is_full:
        for place in range(1, len(waiting)):
            item = waiting[place]
            if item.key != first.key:
                continue
            if rows + item.rows > policy.max_rows:
                is_full = True
                break
            places.append(place)
            rows += item.rows
        is_full = is_full or rows >= policy.max_rows
    if policy.timeout_ns and not is_full:
        left = first.arrived_ns + policy.timeout_ns - now_ns
        if left > 0:
            return [], left
    return places, 0
