"""When a batch is cut, and what goes into it: a function of what waits and the time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The bounds of a batch.

    `max_rows` caps what is put together. `timeout_ns` is how long the oldest may wait for others: with 0, a host that is
    free takes all that has arrived and waits for nothing (DESIGN.md 5).
    """

    max_rows: int
    timeout_ns: int = 0


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
