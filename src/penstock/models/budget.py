"""The memory that all served versions may use together: who has reserved what, who really uses what, who must go.

Guarantees: what is reserved fits into the limit at once or as soon as those chosen to leave have left; nobody leaves in vain.
Pure bookkeeping in bytes: it measures nothing and ends nobody. A key is whatever is loaded and unloaded as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from penstock.errors import ResourceExhausted

#: A host that has loaded half_plus_two: session, threads, TensorFlow's own state, the heap of the Python around it.
HOST_BYTES = 20_000_000
#: Variables are held once; the graph becomes a graph in memory, and what restoring leaves in the heap is not all given back.
BYTES_PER_FILE_BYTE = 1.3

_MARGIN_SHARE = 1 / 16
_MARGIN_BYTES = 1_000_000
_GROWTH_FACTOR = 2
_GROWTH_BYTES = 64_000_000
_MAX_REMEMBERED = 4096
_MB = 1_000_000


class MemoryExhausted(ResourceExhausted):
    """There is no room for a model, even if all that may leave did."""


@dataclass(slots=True)
class _Account:
    """`first_bytes` is the first measurement, 0 while what is used is only a reservation."""

    used_bytes: int
    first_bytes: int = 0
    is_leaving: bool = False

    @property
    def share_bytes(self) -> int:
        return share_of(self.first_bytes)


def share_of(first_bytes: int) -> int:
    """How far what had `first_bytes` may grow before that is too much: batches and caches take more than the first answer did."""
    return _GROWTH_FACTOR * first_bytes + _GROWTH_BYTES


def guess(files_bytes: int) -> int:
    """What a model will need of which nothing but the size of its files is known."""
    return HOST_BYTES + int(BYTES_PER_FILE_BYTE * files_bytes)


class Budget:
    """Memory by key. `reserve`, then `measured` as often as one likes, then `released`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._accounts: dict[str, _Account] = {}
        self._remembered: dict[str, int] = {}

    @property
    def used_bytes(self) -> int:
        """What is reserved or measured, together with those that are still leaving: may be above the limit for a while."""
        return sum(account.used_bytes for account in self._accounts.values())

    @property
    def free_bytes(self) -> int:
        """What is left of the limit; never negative."""
        return max(0, self.limit_bytes - self.used_bytes)

    def estimate(self, key: str, files_bytes: int) -> int:
        """What `key` will need: a little more than it was last measured at, or a guess from the size of its files."""
        last = self._remembered.get(key)
        if last is not None:
            return last + int(last * _MARGIN_SHARE) + _MARGIN_BYTES
        return guess(files_bytes)

    def reserve(self, key: str, needed: int, idle: Sequence[str]) -> list[str]:
        """Reserves `needed` bytes for `key`; the answer is who of `idle` must be released first, [] if nobody.

        `idle` begins with the least recently used, which go first; nobody goes whose place is not needed. From then on those
        count as leaving: their place is given away, once. A reservation that `key` has is replaced. Raises MemoryExhausted, with
        nothing changed, when it does not fit even without all of `idle`.
        """
        others = {one: account for one, account in self._accounts.items() if one != key and not account.is_leaving}
        missing = needed + sum(account.used_bytes for account in others.values()) - self.limit_bytes
        candidates = [(one, others[one].used_bytes) for one in dict.fromkeys(idle) if one in others]
        leaving = _who_goes(candidates, missing)
        if leaving is None:
            raise MemoryExhausted(self._refusal(key, needed, needed - missing, sum(size for _, size in candidates)))
        for one in leaving:
            self._accounts[one].is_leaving = True
        self._accounts[key] = _Account(needed)
        return leaving

    def extend(self, key: str, more: int) -> bool:
        """Reserves `more` bytes for what has a place already, if they are free: whether they were."""
        try:
            self.admit(key, more)
        except MemoryExhausted:
            return False
        account = self._accounts[key]
        account.first_bytes += more if account.first_bytes else 0
        return True

    def admit(self, key: str, more: int) -> None:
        """Reserves `more` bytes beside what `key` has, until it is measured. Raises MemoryExhausted where they are not free."""
        account = self._accounts.get(key)
        if account is None or more > self.free_bytes:
            raise MemoryExhausted(self._refusal(key, more, self.free_bytes, 0))
        account.used_bytes += more

    def renewed(self, key: str) -> None:
        """`key` is another model now: what it is measured at next is its first measurement."""
        account = self._accounts.get(key)
        if account is not None:
            account.first_bytes = 0

    def measured(self, key: str, used_bytes: int, *, is_whole: bool = True) -> None:
        """What `key` really uses takes the place of its reservation, and is the next estimate; unknown keys are passed over.

        Not `is_whole`: some of its processes are still to come, and their place is kept for them.

        Growth beyond its share is not remembered: whoever is loaded again begins small. 0 means that its processes are being
        started anew: the place that they first took is kept for them.
        """
        account = self._accounts.get(key)
        if account is None:
            return
        if used_bytes <= 0:
            account.used_bytes = account.first_bytes or account.used_bytes
            return
        if not is_whole:
            account.used_bytes = max(account.used_bytes, used_bytes)
            return
        account.used_bytes = used_bytes
        account.first_bytes = account.first_bytes or used_bytes
        self._remembered.pop(key, None)
        self._remembered[key] = min(used_bytes, account.share_bytes)
        if len(self._remembered) > _MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def released(self, key: str) -> None:
        """`key` uses nothing any more; its last measurement is kept for the next estimate."""
        self._accounts.pop(key, None)

    def excess_bytes(self, key: str) -> int:
        """How far `key` has grown past its share, which is twice its first measurement and 64 MB; 0 if it has not."""
        account = self._accounts.get(key)
        if account is None or not account.first_bytes:
            return 0
        return max(0, account.used_bytes - account.share_bytes)

    def to_restart(self, passed_over: Collection[str] = ()) -> str | None:
        """While all together are over the limit: of those that have outgrown their share, the one that has grown the most."""
        staying = {key: account for key, account in self._accounts.items() if not account.is_leaving}
        if sum(account.used_bytes for account in staying.values()) <= self.limit_bytes:
            return None
        grown = [key for key in staying if self.excess_bytes(key) > 0 and key not in passed_over]
        return max(grown, key=lambda key: staying[key].used_bytes - staying[key].first_bytes, default=None)

    def _refusal(self, key: str, needed: int, free: int, idle: int) -> str:
        room = f"{_mb(max(0, free))} of {_mb(self.limit_bytes)} are free"
        evictable = f" and {_mb(idle)} could be made so" if idle else ""
        return f"Memory exhausted: {key} needs {_mb(needed)}; {room}{evictable}"


def _who_goes(candidates: Sequence[tuple[str, int]], missing: int) -> list[str] | None:
    """The first of `candidates` (key, size) that free `missing` bytes, less whom the others make needless; None: not enough."""
    chosen: list[tuple[str, int]] = []
    for candidate in candidates:
        if missing <= 0:
            break
        chosen.append(candidate)
        missing -= candidate[1]
    if missing > 0:
        return None
    spare = -missing
    for candidate in reversed(chosen):
        if candidate[1] <= spare:
            chosen.remove(candidate)
            spare -= candidate[1]
    return [key for key, _ in chosen]


def _mb(size: int) -> str:
    return f"{-(-size // _MB)} MB"
