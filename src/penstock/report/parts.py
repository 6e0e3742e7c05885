"""What a report is made of, before it is HTML or Markdown. All text may hold what others wrote; whoever writes it escapes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """`align` has l, r or s (left, in one line) for each column; `notes` has a line below each row, empty for none.

    `won` is the place of the row that stands out.
    """

    header: Sequence[str]
    align: str
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    won: int = -1


class Part(NamedTuple):
    """A heading with what is below it, in this order."""

    title: str
    texts: Sequence[str] = ()
    table: Table | None = None
    items: Sequence[str] = ()
    command: str = ""
