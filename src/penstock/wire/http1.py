"""HTTP/1.1 on an asyncio transport: bytes in, whole requests to the app, answers out in order.

Guarantees: every request that was handed to the app is answered in its place or its connection ends; heads, bodies, requests
in flight and unsent bytes are bounded for each connection; a connection that makes no progress ends (`sweep`). What follows
does not depend on how the bytes were cut into segments. Nothing that a client sends raises. Knows no API.

Assumes that a transport whose reading is paused delivers neither data nor the end of the client's data.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, cast

from penstock.wire import http2
from penstock.wire.answer import error_response, write_answer
from penstock.wire.body import GatheredBody, PlacedBody, body_for
from penstock.wire.chunked import ChunkedBody
from penstock.wire.head import Head, HttpError, may_become_head, parse_head
from penstock.wire.http2 import PREFACE_HEAD, Http2Connection
from penstock.wire.outflow import Outflow
from penstock.wire.request import Request, Response

if TYPE_CHECKING:
    from penstock.wire.server import HttpServer

#: Requests of one connection that may be under way; a client that pipelines more waits.
_MAX_PIPELINED = 64
#: Behind a request with a larger body the next one waits too: what is made of bodies stays in memory until it is answered.
_MAX_PIPELINED_BODY_BYTES = 1 << 20
#: Requests of one connection that are taken before others have their turn.
_MAX_TAKEN_AT_ONCE = 64
#: What a connection waits with (`HttpConnection._held`): nothing; requests, until some of those before them are answered, or
#: until its turn comes again; `100 Continue`, until all answers before it are sent.
_NOTHING, _REQUESTS, _TURN, _CONTINUE_LINE = range(4)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: How long a client may go on sending after an answer that ends the connection before it has said all.
_LINGER_S = 5.0
#: What is read of everything else, by one connection at a time.
_scratch = memoryview(bytearray(128 << 10))
_REFUSED = Head("GET", b"/", "1.1", {}, False)


class HttpConnection(asyncio.BufferedProtocol):
    """One connection."""

    __slots__ = (
        "_body",
        "_body_began",
        "_closes_after",
        "_first_byte_ns",
        "_head",
        "_held",
        "_is_reading",
        "_is_writable",
        "_last_progress",
        "_lingers",
        "_outflow",
        "_pending",
        "_server",
        "_tail",
        "_transport",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self._head: Head | None = None
        self._body: GatheredBody | PlacedBody | ChunkedBody | None = None
        self._body_began = 0.0
        self._first_byte_ns = 0
        self._pending: deque[Request] = deque()
        self._closes_after = False
        self._lingers = False
        self._held = _NOTHING
        self._is_reading = True
        self._is_writable = True
        self._outflow = Outflow()
        self._last_progress = time.monotonic()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.connections.discard(self)
        self._forget()
        self._pending.clear()

    def eof_received(self) -> bool:
        """A client that has said all may still wait for its answers."""
        self._closes_after = True
        self._lingers = False
        return bool(self._pending)

    def pause_writing(self) -> None:
        self._is_writable = False
        self._last_progress = time.monotonic()
        self._outflow.begin(0 if self._transport is None else self._transport.get_write_buffer_size())
        self._pause_reading()

    def resume_writing(self) -> None:
        self._is_writable = True
        self._body_began = self._last_progress = time.monotonic()
        if self._held in (_REQUESTS, _TURN):
            self._let_go()
        else:
            self._resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: into the body that is being read, or to where they are looked at."""
        body = self._body
        return body.room if type(body) is PlacedBody else _scratch

    def buffer_updated(self, nbytes: int) -> None:
        touched = self._server.touched
        if touched is not None:
            touched()
        body = self._body
        if type(body) is PlacedBody:
            self._held = _NOTHING
            self._last_progress = time.monotonic()
            if body.filled(nbytes):
                self._dispatch_whole()
        else:
            self.data_received(bytes(_scratch[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Takes bytes that have come, wherever they were cut."""
        if self._closes_after:
            self._lingers = True
            return
        try:
            if self._head is None:
                self._read_requests(data)
            else:
                rest = self._read_body(data)
                if rest:
                    self._read_requests(rest)
        except HttpError as error:
            self._refuse(error)

    # Reading

    def _read_requests(self, data: bytes) -> None:
        """Takes whole requests out of `data`, as many as are there and allowed."""
        if self._tail:
            data = self._tail + data
            self._tail = b""
        elif not self._first_byte_ns:
            self._first_byte_ns = time.monotonic_ns()
        limits = self._server.limits
        at = taken = 0
        while True:
            if not self._is_writable or (self._pending and self._is_full()):
                self._hold(data[at:], _REQUESTS)
                return
            end = data.find(b"\r\n\r\n", at)
            if end <= at or end - at > limits.max_head_bytes:
                if data.startswith(b"\r\n", at):
                    at += 2
                else:
                    self._wait_for_head(data[at:])
                    return
            else:
                try:
                    head = parse_head(data[at : end + 4])
                except HttpError:
                    if at == 0 and not self._pending and data.startswith(PREFACE_HEAD) and http2.is_there():
                        self._speak_http2(data)
                        return
                    raise
                at = end + 4
                end = at + head.length
                if at <= end <= len(data) and head.length <= limits.max_body_bytes:
                    body = data[at:end]
                    at = end
                    self._dispatch(head, body)
                else:
                    data, at = self._begin_body(head, data[at:]), 0
            if at == len(data):
                self._first_byte_ns = self._first_byte_ns if self._head is not None else 0
                return
            if self._transport is None or self._closes_after:
                return
            self._first_byte_ns = time.monotonic_ns()
            taken += 1
            if taken == _MAX_TAKEN_AT_ONCE:
                self._hold(data[at:], _TURN)
                asyncio.get_running_loop().call_soon(self._go_on)
                return

    def _speak_http2(self, data: bytes) -> None:
        """The client has begun with HTTP/2's preface: the connection is another protocol's from here on."""
        transport, server = self._transport, self._server
        assert transport is not None
        self._transport = None
        server.connections.discard(self)
        connection = Http2Connection(server, transport)
        server.connections.add(connection)
        transport.set_protocol(connection)
        connection.data_received(data)

    def _wait_for_head(self, data: bytes) -> None:
        max_bytes = self._server.limits.max_head_bytes
        if not may_become_head(data):
            raise HttpError(400, "The request is not HTTP: it does not begin with a method.")
        if len(data) >= max_bytes + 4:
            raise HttpError(431, f"The request's head is longer than {max_bytes} bytes.")
        self._tail = data

    def _begin_body(self, head: Head, data: bytes) -> bytes:
        """Takes what is there of a body; what follows it where it is whole."""
        max_bytes = self._server.limits.max_body_bytes
        if head.length > max_bytes:
            raise HttpError(413, f"The body of {head.length} bytes is larger than the {max_bytes} bytes that are allowed.")
        self._head = head
        self._body = body_for(head, max_bytes)
        self._body_began = self._last_progress = time.monotonic()
        if data:
            return self._read_body(data)
        if head.expects_continue:
            self._held = _CONTINUE_LINE
            self._let_go()
        return b""

    def _read_body(self, data: bytes) -> bytes:
        """Takes more of a body; what follows it once it is whole."""
        body = self._body
        assert body is not None
        self._held = _NOTHING
        self._last_progress = time.monotonic()
        rest = body.feed(data)
        if rest is None:
            return b""
        self._dispatch_whole()
        return b"" if self._closes_after else rest

    def _dispatch_whole(self) -> None:
        """The body is whole."""
        head, body = self._head, self._body
        assert head is not None
        assert body is not None
        self._head = self._body = None
        self._dispatch(head, body.content)
        self._first_byte_ns = 0

    def _dispatch(self, head: Head, body: bytes | memoryview) -> None:
        server = self._server
        self._last_progress = time.monotonic()
        if not head.keeps_alive or server.is_draining:
            self._closes_after = True
        request = Request(head, body, self, self._first_byte_ns, head.request_id or server.next_id())
        self._pending.append(request)
        server.run(request)

    def _refuse(self, error: HttpError) -> None:
        """What cannot be read as a request ends the connection, after an answer that says why."""
        self._closes_after = self._lingers = True
        self._forget()
        request = Request(_REFUSED, b"", self, self._first_byte_ns, self._server.next_id())
        self._pending.append(request)
        self.answered(request, error_response(error))

    def _forget(self) -> None:
        """What has come of a request is not wanted any more."""
        self._tail, self._head, self._body = b"", None, None

    # Waiting with what cannot be taken or sent yet

    def _is_full(self) -> bool:
        pending = self._pending
        return len(pending) >= _MAX_PIPELINED or pending[-1].body_bytes > _MAX_PIPELINED_BODY_BYTES

    def _has_room(self) -> bool:
        """Whether it is worth going on: not for each single answer, as the tail is copied each time."""
        return len(self._pending) <= _MAX_PIPELINED // 2 and not self._is_full()

    def _hold(self, data: bytes, why: int) -> None:
        """Keeps requests for later, and takes no more from the client before they have been taken."""
        self._tail = data
        self._held = why
        self._pause_reading()

    def _let_go(self) -> None:
        """Goes on with what is held, where it can."""
        pending = self._pending
        if self._held == _CONTINUE_LINE:
            if not pending and self._transport is not None:
                self._held = _NOTHING
                self._body_began = self._last_progress = time.monotonic()
                self._transport.write(_CONTINUE)
        elif self._held == _REQUESTS and self._is_writable and (not pending or self._has_room()):
            self._held = _TURN
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Takes the requests that were held, before anything that has arrived since."""
        if self._transport is None or self._closes_after:
            return
        self._held = _NOTHING
        # The client has not been slow: the time for the rest of a head begins here.
        self._first_byte_ns = time.monotonic_ns()
        self.data_received(b"")
        if self._held not in (_REQUESTS, _TURN) and self._is_writable:
            self._resume_reading()

    # Writing

    def answered(self, request: Request, response: Response) -> None:
        """Sends an answer, or keeps it until those before it are sent."""
        pending, transport = self._pending, self._transport
        if request.response is not None or transport is None:
            return
        request.response = response
        if pending[0] is not request:
            return
        server = self._server
        while pending and pending[0].response is not None:
            done = pending.popleft()
            write_answer(transport, server, done, is_last=self._closes_after and not pending)
        self._last_progress = time.monotonic()
        if self._closes_after:
            if not pending:
                self._end()
        elif self._held:
            self._let_go()

    def _end(self) -> None:
        """Closes. To a client that may still be sending only our side: a reset would overtake the answer."""
        transport = self._transport
        if transport is None:
            return
        if self._lingers and transport.can_write_eof():
            transport.write_eof()
            self._resume_reading()
        else:
            transport.close()

    # Time and flow

    def _pause_reading(self) -> None:
        if self._is_reading and self._transport is not None:
            self._is_reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._is_reading and self._transport is not None:
            self._is_reading = True
            self._transport.resume_reading()

    def check_progress(self, now: float) -> None:
        """Ends the connection when the client has kept it waiting too long."""
        transport = self._transport
        if transport is None:
            return
        limits = self._server.limits
        since = now - self._last_progress
        if not self._is_writable or transport.is_closing():
            self._check_reader(transport, now, since)
        elif self._pending or self._held in (_REQUESTS, _TURN):
            return
        elif self._closes_after:
            if since > _LINGER_S:
                transport.close()
        elif self._body is not None:
            taken = now - self._body_began
            if since > limits.progress_timeout_s:
                self._refuse(HttpError(408, f"No more of the body came for {limits.progress_timeout_s:g} s."))
            elif taken > limits.progress_timeout_s + self._body.size / limits.min_bytes_per_s:
                self._refuse(HttpError(408, f"The body comes with less than {limits.min_bytes_per_s} bytes a second."))
        elif self._tail:
            if now - self._first_byte_ns / 1e9 > limits.head_timeout_s:
                self._refuse(HttpError(408, f"The request's head was not whole after {limits.head_timeout_s:g} s."))
        elif since > limits.idle_timeout_s:
            transport.close()

    def _check_reader(self, transport: asyncio.Transport, now: float, since: float) -> None:
        """A large answer may take its time as long as the client takes enough of it."""
        limits = self._server.limits
        if self._outflow.moves(transport.get_write_buffer_size(), since, limits.min_bytes_per_s):
            self._last_progress = now
        if now - self._last_progress > limits.progress_timeout_s:
            transport.abort()

    @property
    def is_done(self) -> bool:
        """Whether the connection is being closed, with all sent."""
        transport = self._transport
        return transport is None or (transport.is_closing() and not transport.get_write_buffer_size())

    def end_if_idle(self) -> None:
        """Closes a connection that has nothing under way; one that has, closes behind the request it is at."""
        if self._head is None and not self._tail:
            self._closes_after = True
            if not self._pending and self._transport is not None:
                self._transport.close()
