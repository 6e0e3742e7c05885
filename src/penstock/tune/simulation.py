"""What a setting would do, by arithmetic: a closed loop played through with the times that were measured of the parts.

The parts are the load generator, gateways and instances, each with a queue; an instance runs all that waits up to the cap, as the
real one does. Parts that are busy at the same time share the cores. It knows nothing of caches and schedulers: it says which
settings cannot be the best, not which one is.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from penstock.tune.setting import Setting

#: Connections that are played through, and answers until the end.
_CONNECTIONS = (8, 64)
_ANSWERS = 400
_CLIENT, _GATEWAY, _INSTANCE = range(3)
_NOT_PLAYED = {"inter_op": 0, "script_threads": 0, "omp_threads": 0}


class Costs(NamedTuple):
    """Seconds. `batch_s` has, by engine and threads within an operation, what a run of so many rows takes.

    `gateway_s` and `client_s` are CPU time for a request of `rows` rows.
    """

    cores: int
    rows: int
    gateway_s: float
    client_s: float
    batch_s: Mapping[str, Mapping[int, Mapping[int, float]]]

    def run_s(self, engine: str, threads: int, rows: int) -> float:
        """Between sizes that were measured in proportion; beyond the largest as its rows cost. Threads: by Amdahl's law."""
        tables = self.batch_s[engine]
        if threads in tables:
            return _at(tables[threads], rows)
        few, many = min(tables), max(tables)
        if few == many:
            return _at(tables[few], rows)
        slow, quick = _at(tables[few], rows), _at(tables[many], rows)
        apart = (slow - quick) / (1 / few - 1 / many)
        return max(quick, slow + apart * (1 / threads - 1 / few))


class Played(NamedTuple):
    """Answers per second, and the seconds that 99 of 100 took at the most."""

    rate: float
    p99_s: float


def predict(setting: Setting, costs: Costs, limit_s: float) -> float:
    """Answers per second at the better of few and many connections, those with a p99 beyond `limit_s` (0: none) counting less."""
    best = 0.0
    for connections in _CONNECTIONS:
        played = play(setting, costs, connections)
        late = played.p99_s / limit_s if limit_s else 0.0
        best = max(best, played.rate / max(1.0, late))
    return best


def predict_all(settings: Sequence[Setting], costs: Costs, limit_s: float) -> dict[Setting, float]:
    """Each by `predict`; those that differ only in what is not played are played once."""
    found: dict[Setting, float] = {}
    played: dict[Setting, float] = {}
    for setting in settings:
        key = msgspec.structs.replace(setting, **_NOT_PLAYED)
        if key not in played:
            played[key] = predict(key, costs, limit_s)
        found[setting] = played[key]
    return found


def play(setting: Setting, costs: Costs, connections: int) -> Played:
    """A closed loop of so many connections."""
    return _Play(setting, costs, connections).run()


class _Station:
    """A part with its queue. `weight` is how many cores it fills while it is busy."""

    __slots__ = ("free", "queue", "weight")

    def __init__(self, weight: float) -> None:
        self.queue: deque[int] = deque()
        self.free = True
        self.weight = weight


class _Play:
    def __init__(self, setting: Setting, costs: Costs, connections: int) -> None:
        self._setting, self._costs = setting, costs
        self._connections = connections
        threads = setting.intra_op or costs.cores
        alone = costs.run_s(setting.engine, 1, 1)
        # An operation that does not get quicker with its threads does not fill their cores.
        filled = min(float(threads), max(1.0, alone / costs.run_s(setting.engine, threads, 1)))
        self._client = _Station(1.0)
        self._gateways = [_Station(1.0) for _ in range(max(setting.gateways, 1))]
        self._instances = [_Station(filled) for _ in range(max(setting.instances, 1))]
        self._threads = threads
        #: Cores that busy instances fill; and seconds that the others have been busy, which is little at a time and often.
        self._filled = 0.0
        self._spent_s = 0.0
        self._events: list[tuple[float, int, int, int, Sequence[int]]] = []
        self._count = 0
        self._begun_s = [0.0] * connections
        self._latencies_s: list[float] = []

    def run(self) -> Played:
        now = 0.0
        self._client.queue.extend(range(self._connections))
        self._start(_CLIENT, 0, now)
        while len(self._latencies_s) < _ANSWERS and self._events:
            now, _, kind, place, done = heapq.heappop(self._events)
            if kind < 0:  # a batch has waited for others as long as it may
                self._start(_INSTANCE, place, now, waited=True)
                continue
            station = self._station(kind, place)
            station.free = True
            if kind == _INSTANCE:
                self._filled -= station.weight
            for connection in done:
                self._go_on(kind, connection, now)
            self._start(kind, place, now)
        # The begin, when all connections ask at once, says nothing.
        settled = sorted(self._latencies_s[len(self._latencies_s) // 4 :])
        if not settled or not now:
            return Played(0.0, 0.0)
        return Played(len(self._latencies_s) / now, settled[int(0.99 * (len(settled) - 1))])

    def _station(self, kind: int, place: int) -> _Station:
        return self._client if kind == _CLIENT else (self._gateways if kind == _GATEWAY else self._instances)[place]

    def _go_on(self, kind: int, connection: int, now: float) -> None:
        """A part is done with a request: `connection`, or minus that less one on the way back."""
        if kind == _CLIENT:
            self._begun_s[connection] = now
            place = connection % len(self._gateways)
            self._gateways[place].queue.append(connection)
            self._start(_GATEWAY, place, now)
        elif kind == _GATEWAY and connection >= 0:
            place = min(range(len(self._instances)), key=self._load)
            self._instances[place].queue.append(connection)
            self._start(_INSTANCE, place, now)
        elif kind == _INSTANCE:
            place = connection % len(self._gateways)
            self._gateways[place].queue.append(-connection - 1)
            self._start(_GATEWAY, place, now)
        else:
            answered = -connection - 1
            self._latencies_s.append(now - self._begun_s[answered])
            self._client.queue.append(answered)
            self._start(_CLIENT, 0, now)

    def _load(self, place: int) -> tuple[int, bool]:
        instance = self._instances[place]
        return len(instance.queue), not instance.free

    def _start(self, kind: int, place: int, now: float, *, waited: bool = False) -> None:
        station = self._station(kind, place)
        if not station.free or not station.queue:
            return
        setting, costs = self._setting, self._costs
        taken: Sequence[int]
        if kind == _INSTANCE:
            cap = max(1, setting.max_batch_size // costs.rows)
            if setting.batch_timeout_us and not waited and len(station.queue) < cap:
                self._count += 1
                heapq.heappush(self._events, (now + setting.batch_timeout_us / 1e6, self._count, -1, place, ()))
                return
            taken = [station.queue.popleft() for _ in range(min(cap, len(station.queue)))]
            seconds = costs.run_s(setting.engine, self._threads, len(taken) * costs.rows)
        else:
            taken = (station.queue.popleft(),)
            seconds = costs.client_s if kind == _CLIENT else costs.gateway_s / 2
        station.free = False
        self._count += 1
        share = min(self._spent_s / now, 1.0 + len(self._gateways)) if now else 0.0
        if kind == _INSTANCE:
            self._filled += station.weight
            demand = self._filled + share
        else:
            self._spent_s += seconds
            demand = self._filled + max(1.0, share)
        stretched = seconds * max(1.0, demand / costs.cores)
        heapq.heappush(self._events, (now + stretched, self._count, kind, place, taken))


def _at(table: Mapping[int, float], rows: int) -> float:
    sizes = sorted(table)
    if rows <= sizes[0]:
        return table[sizes[0]]
    for low, high in pairwise(sizes):
        if rows <= high:
            part = (rows - low) / (high - low)
            return table[low] + part * (table[high] - table[low])
    last = sizes[-1]
    if len(sizes) == 1:
        return table[last] * rows / last
    slope = (table[last] - table[sizes[-2]]) / (last - sizes[-2])
    return table[last] + max(slope, 0.0) * (rows - last)
