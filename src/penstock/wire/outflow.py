"""What a client has not taken yet of what was sent to it: a large answer may take its time as long as enough of it is taken."""

from __future__ import annotations


class Outflow:
    """Watches how much waits in a connection's transport."""

    __slots__ = ("_unsent",)

    def __init__(self) -> None:
        self._unsent = 0

    def begin(self, unsent: int) -> None:
        """So many bytes wait from now on."""
        self._unsent = unsent

    def moves(self, unsent: int, since_s: float, min_bytes_per_s: int) -> bool:
        """Whether more than the least was taken in the `since_s` seconds since it last was; `unsent` bytes wait now."""
        if unsent > self._unsent:
            self._unsent = unsent
        elif self._unsent - unsent > min_bytes_per_s * since_s:
            self._unsent = unsent
            return True
        return False
