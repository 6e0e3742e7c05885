"""A connection of the load generator, whatever it speaks: it begins requests, and tells the driver what became of each."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
from time import perf_counter_ns
from typing import Any, NamedTuple, Protocol


class Address(NamedTuple):
    """Where connections go to; `tls` where they are encrypted."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    def connect(self, timeout_s: float) -> socket.socket:
        """A connection that does not block any more. Raises OSError."""
        sock = socket.create_connection((self.host, self.port), timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            sock = self.tls.wrap_socket(sock, server_hostname=self.host)
        sock.setblocking(False)
        return sock


class Opening:
    """A connection to `peer`, whose name has been looked up before, that is opened while others go on."""

    def __init__(self, address: Address, family: int, peer: Any) -> None:
        """Raises OSError where there can be no socket."""
        self.begun_ns = perf_counter_ns()
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self._address = address
        self._peer = peer
        self._is_connected = False

    def advance(self) -> int:
        """Goes on as far as it can. Returns the selector's event that it waits for then, 0 when it is open. Raises OSError."""
        if not self._is_connected:
            number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or self.sock.connect_ex(self._peer)
            if number in (errno.EINPROGRESS, errno.EALREADY):
                return selectors.EVENT_WRITE
            if number not in (0, errno.EISCONN):
                raise OSError(number, os.strerror(number))
            self._is_connected = True
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if (tls := self._address.tls) is not None:
                self.sock = tls.wrap_socket(self.sock, server_hostname=self._address.host, do_handshake_on_connect=False)
        if isinstance(self.sock, ssl.SSLSocket):
            try:
                self.sock.do_handshake()
            except ssl.SSLWantReadError:
                return selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                return selectors.EVENT_WRITE
        return 0


class Ticket:
    """A request under way: which one, when it was due, and when it was sent."""

    __slots__ = ("due_ns", "sent_ns", "which")

    def __init__(self, which: int, due_ns: int, sent_ns: int) -> None:
        self.which = which
        self.due_ns = due_ns
        self.sent_ns = sent_ns


class Events(Protocol):
    """Who hears what becomes of requests."""

    def answered(self, connection: Connection, ticket: Ticket, kind: str, example: bytes, is_last: bool) -> None:
        """A request is over. `kind` is empty for a good answer, else what it was; `example` is what the server said.

        `is_last`: the connection takes no further one.
        """

    def broke(self, connection: Connection, kind: str) -> None:
        """The connection has ended, or must: whatever is under way on it has failed with `kind`."""

    def blocked(self, connection: Connection, *, is_blocked: bool) -> None:
        """Whether the socket takes no more for now: `write` is to be called when it does."""


class Connection:
    """One connection, open when it is made. `tickets` are the requests under way, at most `room` of them.

    `received_ns` is when the last bytes came: what is made of them is not the server's time.
    """

    def __init__(self, sock: socket.socket, events: Events) -> None:
        self.room = 1
        self.received_ns = 0
        self.sock = sock
        self.events = events

    @property
    def tickets(self) -> list[Ticket]:
        raise NotImplementedError

    def receive(self) -> memoryview:
        """What has come, nothing at the end; it is there until the next call, of whichever connection. Raises OSError."""
        size = self.sock.recv_into(_received)
        self.received_ns = perf_counter_ns()
        return _received[:size]

    def send(self, request: bytes, ticket: Ticket) -> None:
        """Begins a request."""
        raise NotImplementedError

    def read(self) -> None:
        """Takes what has come."""
        raise NotImplementedError

    def write(self) -> None:
        """Sends what has waited."""
        raise NotImplementedError

    def close(self) -> None:
        self.sock.close()


def kind_of(error: OSError) -> str:
    """An error of a socket, as results name it."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "connection reset"
    if isinstance(error, TimeoutError):
        return "no connection in time"
    return (error.strerror or type(error).__name__).lower()


#: What a socket that does not block raises instead of waiting.
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
#: A buffer for all: one of their own, for each answer, would be taken from the system and given back each time.
_received = memoryview(bytearray(256 << 10))
