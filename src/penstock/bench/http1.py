"""A connection that speaks HTTP/1.1: one request at a time, any answer that httptools understands."""

from __future__ import annotations

import socket

import httptools

from penstock.bench.connection import WOULD_BLOCK, Connection, Events, Ticket, kind_of

_MAX_EXAMPLE = 300


class Http1Connection(Connection):
    """Requests are whole ones, head and body."""

    def __init__(self, sock: socket.socket, events: Events) -> None:
        super().__init__(sock, events)
        self._parser = httptools.HttpResponseParser(self)
        self._ticket: Ticket | None = None
        self._unsent: memoryview | None = None
        self._is_done = self._keeps_alive = False

    def on_message_complete(self) -> None:
        """What the parser calls; an interim answer is none. (Whether the connection stays, the parser knows only now.)"""
        self._is_done = self._parser.get_status_code() >= 200
        self._keeps_alive = self._parser.should_keep_alive()

    @property
    def tickets(self) -> list[Ticket]:
        return [self._ticket] if self._ticket else []

    def send(self, request: bytes, ticket: Ticket) -> None:
        self._ticket, self._is_done = ticket, False
        try:
            sent = self.sock.send(request)
        except WOULD_BLOCK:
            sent = 0
        except OSError as error:
            self.events.broke(self, kind_of(error))
            return
        if sent < len(request):
            self._unsent = memoryview(request)[sent:]
            self.events.blocked(self, is_blocked=True)

    def write(self) -> None:
        if self._unsent is None:
            return
        try:
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except WOULD_BLOCK:
            return
        except OSError as error:
            self.events.broke(self, kind_of(error))
            return
        if not self._unsent:
            self._unsent = None
            self.events.blocked(self, is_blocked=False)

    def read(self) -> None:
        try:
            data = self.receive()
            self._parser.feed_data(data)
        except WOULD_BLOCK:
            return
        except OSError as error:
            self.events.broke(self, kind_of(error))
            return
        except httptools.HttpParserError:
            self.events.broke(self, "not HTTP")
            return
        if self._is_done:
            self._answered(data)
        elif not data:
            self.events.broke(self, "connection closed")

    def _answered(self, data: memoryview) -> None:
        ticket, self._ticket, self._is_done = self._ticket, None, False
        if ticket is None:
            self.events.broke(self, "an answer to nothing")
            return
        status = self._parser.get_status_code()
        is_last = self._unsent is not None or not self._keeps_alive
        if 200 <= status < 300:
            self.events.answered(self, ticket, "", b"", is_last)
        else:
            self.events.answered(self, ticket, f"HTTP {status}", _said(bytes(data)), is_last)


def _said(data: bytes) -> bytes:
    """The beginning of an answer's body, or of what came last of it, in one line."""
    body = data.partition(b"\r\n\r\n")[2] if data.startswith(b"HTTP/") else data
    return b" ".join(body.split())[:_MAX_EXAMPLE]
