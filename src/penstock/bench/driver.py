"""Sends requests when they are due, and takes their answers: one thread, one selector, as little as can be for each request.

Guarantees: in an open loop a request's time begins when it is due, whether or not a connection is free; every request that was
begun or due has one outcome in the record; a connection that fails is opened anew. What it costs is in the result: whether the
load generator was the limit.
"""

from __future__ import annotations

import select
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from penstock.bench.connection import Address, Connection, Events, Opening, Ticket, kind_of
from penstock.bench.record import Record
from penstock.errors import Unavailable

_SWEEP_NS = 50_000_000
#: How long a refused connection waits before it is tried again.
_RETRY_NS = 100_000_000
#: The end of a wait goes to select(), which knows microseconds; epoll rounds up to a millisecond, and may wake later.
_FINE_NS, _COARSE_NS = 4_000_000, 3_000_000
_NEVER = 1 << 62
_BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE

#: Makes a connection of a socket.
Open = Callable[[socket.socket, Events], Connection]


class Driver(Events):
    """Drives `connections` connections with `requests` in the `order` given, again and again."""

    def __init__(
        self,
        address: Address,
        open_connection: Open,
        requests: Sequence[bytes],
        order: Sequence[int],
        connections: int,
        timeout_s: float,
        record: Record,
    ) -> None:
        self._address = address
        self._open_connection = open_connection
        self._requests = requests
        self._order = order
        self._at = 0
        self._count = connections
        self._timeout_s = timeout_s
        self._record = record
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        #: What is being opened again, and the event that each waits for.
        self._openings: dict[Opening, int] = {}
        #: Family and address of the first connection: where all further ones go to, without another look-up.
        self._peer: tuple[int, Any] = (socket.AF_INET, ())
        #: Room for one request each: a connection is in it as often as it takes one more.
        self._idle: deque[Connection] = deque()
        self._refused_ns: list[int] = []
        self._due: Iterator[int] | None = None
        self._begin_ns = self._end_ns = self._next_ns = 0
        #: How late requests were sent although a connection was free: the client's own doing.
        self.lag_ns: list[int] = []
        #: Requests of an open loop that were due while no connection was free.
        self.waited = 0

    def connect(self) -> None:
        """Opens all connections. Raises Unavailable where nobody listens."""
        try:
            for _ in range(self._count):
                sock = self._address.connect(self._timeout_s)
                self._peer = sock.family, sock.getpeername()
                self._add(sock)
        except OSError as error:
            self.close()
            raise Unavailable(f"{self._address.host}:{self._address.port}: {kind_of(error)}") from None

    def run(self, seconds: float, due: Iterator[int] | None, tick: Callable[[int], None]) -> tuple[int, int]:
        """Drives for so long: in a closed loop, or as `due` says. Returns the begin and the end, without what is waited for then.

        `tick` is called with the time about twenty times a second.
        """
        clock = time.perf_counter_ns
        self._begin_ns = begin_ns = clock()
        self._end_ns = end_ns = begin_ns + int(seconds * 1e9)
        self._due = due
        self._next_ns = begin_ns if due is None else begin_ns + next(due, _NEVER)
        sweep_ns = begin_ns + _SWEEP_NS
        now_ns = begin_ns
        while now_ns < end_ns:
            while self._idle and self._next_ns <= now_ns:
                if due is not None:
                    self.lag_ns.append(now_ns - self._next_ns)
                self._send_next(self._idle.popleft(), now_ns)
            self._take(min(self._next_ns if self._idle else _NEVER, sweep_ns, end_ns) - now_ns)
            now_ns = clock()
            if now_ns >= sweep_ns:
                self._sweep(now_ns)
                tick(now_ns)
                now_ns = clock()
                sweep_ns = now_ns + _SWEEP_NS
        self._drain()
        return begin_ns, end_ns

    def _drain(self) -> None:
        """Waits for the answers that are due, and says of all others that they did not come."""
        until_ns = self._end_ns + int(self._timeout_s * 1e9)
        while self._due is not None and self._idle and self._next_ns < self._end_ns:  # due in the last moment
            self._send_next(self._idle.popleft(), time.perf_counter_ns())
        self._idle.clear()
        while any(one.tickets for one in self._connections) and time.perf_counter_ns() < until_ns:
            self._take(_SWEEP_NS)
            self._sweep(time.perf_counter_ns())
        for connection in list(self._connections):
            if connection.tickets:
                self.broke(connection, "no answer in time")
        if self._due is not None:
            now_ns = time.perf_counter_ns()
            while self._next_ns < self._end_ns:
                self._record.failed(self._next_ns, now_ns, self._order[self._at], "not sent: all connections were busy")
                self._next_ns = self._begin_ns + next(self._due, _NEVER)

    def _take(self, wait_ns: int) -> None:
        """Takes what has come, after waiting for it no longer than so."""
        if 0 < wait_ns < _FINE_NS:
            select.select([self._selector], [], [], wait_ns / 1e9)
            wait_ns = 0
        elif wait_ns > 0:
            wait_ns -= _COARSE_NS
        for key, events in self._selector.select(max(wait_ns, 0) / 1e9):
            connection: Connection | Opening = key.data
            if isinstance(connection, Opening):
                self._advance(connection)
                continue
            if events & selectors.EVENT_WRITE:
                connection.write()
            if events & selectors.EVENT_READ and connection in self._connections:
                connection.read()

    # What connections tell

    def answered(self, connection: Connection, ticket: Ticket, kind: str, example: bytes, is_last: bool) -> None:
        if kind:
            # Nothing may have been received: a call that could not even begin.
            self._record.failed(ticket.due_ns, time.perf_counter_ns(), ticket.which, kind, example.decode(errors="replace"))
        else:
            self._record.answered(ticket.due_ns, connection.received_ns, ticket.which)
        if connection not in self._connections:
            return
        now_ns = time.perf_counter_ns()
        if is_last:
            self._reopen(connection, now_ns)
        elif now_ns < self._end_ns:
            if self._next_ns > now_ns:
                self._idle.append(connection)
                return
            if self._due is not None:
                if self._idle:
                    self.lag_ns.append(now_ns - self._next_ns)
                else:
                    self.waited += 1
            self._send_next(connection, now_ns)

    def broke(self, connection: Connection, kind: str) -> None:
        if connection not in self._connections:
            return
        now_ns = time.perf_counter_ns()
        for ticket in connection.tickets:
            self._record.failed(ticket.due_ns, now_ns, ticket.which, kind)
        self._reopen(connection, now_ns)

    def blocked(self, connection: Connection, *, is_blocked: bool) -> None:
        self._selector.modify(connection.sock, _BOTH if is_blocked else selectors.EVENT_READ, connection)

    # Connections

    def _send_next(self, connection: Connection, now_ns: int) -> None:
        which = self._order[self._at]
        self._at = self._at + 1 if self._at + 1 < len(self._order) else 0
        if self._due is not None:
            due_ns = self._next_ns
            self._next_ns = self._begin_ns + next(self._due, _NEVER)
        else:
            due_ns = now_ns = time.perf_counter_ns()
        connection.send(self._requests[which], Ticket(which, due_ns, now_ns))

    def _add(self, sock: socket.socket) -> None:
        connection = self._open_connection(sock, self)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, connection)
        self._idle.extend([connection] * connection.room)

    def _reopen(self, connection: Connection, now_ns: int) -> None:
        """A connection that has ended is another one; where that is refused it is tried again later."""
        self._shut(connection)
        if now_ns < self._end_ns:
            self._try_again(now_ns)

    def _try_again(self, now_ns: int) -> None:
        try:
            opening = Opening(self._address, *self._peer)
        except OSError as error:
            self._refused(now_ns, now_ns, kind_of(error))
            return
        self._openings[opening] = 0
        self._advance(opening)

    def _advance(self, opening: Opening) -> None:
        try:
            wanted = opening.advance()
            if not wanted:
                self._forget(opening)
                self._add(opening.sock)
                return
        except OSError as error:
            self._abandon(opening, kind_of(error))
            return
        if self._openings[opening]:
            self._selector.modify(opening.sock, wanted, opening)
        else:
            self._selector.register(opening.sock, wanted, opening)
        self._openings[opening] = wanted

    def _abandon(self, opening: Opening, kind: str) -> None:
        self._forget(opening)
        opening.sock.close()
        self._refused(opening.begun_ns, time.perf_counter_ns(), kind)

    def _forget(self, opening: Opening) -> None:
        if self._openings.pop(opening, 0):
            self._selector.unregister(opening.sock)

    def _refused(self, begun_ns: int, now_ns: int, kind: str) -> None:
        self._record.failed(begun_ns, now_ns, 0, kind)
        self._refused_ns.append(now_ns)

    def _shut(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle = deque(one for one in self._idle if one is not connection)
        self._selector.unregister(connection.sock)
        connection.close()

    def _sweep(self, now_ns: int) -> None:
        late_ns = now_ns - int(self._timeout_s * 1e9)
        for connection in list(self._connections):
            if any(ticket.sent_ns < late_ns for ticket in connection.tickets):
                self.broke(connection, "no answer in time")
        for opening in [one for one in self._openings if one.begun_ns < late_ns]:
            self._abandon(opening, "no connection in time")
        refused, self._refused_ns = self._refused_ns, []
        for refused_ns in refused:
            if now_ns >= self._end_ns:
                break
            if refused_ns + _RETRY_NS <= now_ns:
                self._try_again(now_ns)
            else:
                self._refused_ns.append(refused_ns)

    def close(self) -> None:
        for connection in list(self._connections):
            self._shut(connection)
        for opening in list(self._openings):
            self._forget(opening)
            opening.sock.close()
        self._selector.close()
