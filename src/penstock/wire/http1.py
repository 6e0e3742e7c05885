"""HTTP/1.1 on an asyncio transport: bytes in, whole requests to the app, answers out in order.

Guarantees: every request that was handed to the app is answered in its place or its connection ends; heads, bodies, requests
in flight and unsent bytes are bounded for each connection; a connection that makes no progress ends (`sweep`). Knows no API.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import orjson

from penstock.errors import PenstockError
from penstock.wire.chunked import ChunkedBody
from penstock.wire.encoding import compress, decompress, is_worth_compressing
from penstock.wire.head import CHUNKED, Head, HttpError, parse_head
from penstock.wire.request import JSON_TYPE, App, Request, Response

#: Requests of one connection that may be under way; a client that pipelines more waits.
_MAX_PIPELINED = 64
#: Bodies from here on are sent beside their head instead of copied behind it.
_SEPARATE_BODY_BYTES = 16 << 10
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {int(status): b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may cost. Times in seconds."""

    max_head_bytes: int = 32 << 10
    max_body_bytes: int = 256 << 20
    head_timeout_s: float = 10.0
    progress_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    min_bytes_per_s: int = 1024


class HttpServer:
    """What the connections of a gateway share. `fields` are header lines of every answer."""

    def __init__(self, app: App, limits: Limits, fields: bytes = b"") -> None:
        self.app = app
        self.fields = fields
        self.limits = limits
        self.connections: set[HttpConnection] = set()
        self.is_draining = False
        self._ids = itertools.count(1)
        self._id_prefix = os.urandom(6).hex().encode() + b"-"
        self.date_line = b""
        self.refresh_date()

    def protocol(self) -> HttpConnection:
        return HttpConnection(self)

    def next_id(self) -> bytes:
        return self._id_prefix + b"%x" % next(self._ids)

    def refresh_date(self) -> None:
        """The Date line is the same for a second."""
        self.date_line = time.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime()).encode()

    def sweep(self) -> None:
        """Ends the connections that have made no progress for too long. To be called about once a second."""
        self.refresh_date()
        now = time.monotonic()
        for connection in list(self.connections):
            connection.check_progress(now)

    def drain(self) -> None:
        """Takes no further request on any connection; ends the idle ones."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.end_if_idle()


class HttpConnection(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "_body",
        "_body_began",
        "_body_parts",
        "_body_size",
        "_closes_after",
        "_first_byte_ns",
        "_head",
        "_is_reading",
        "_is_writable",
        "_last_progress",
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
        self._body: ChunkedBody | None = None
        self._body_parts: list[bytes] = []
        self._body_size = 0
        self._body_began = 0.0
        self._first_byte_ns = 0
        self._pending: deque[Request] = deque()
        self._closes_after = False
        self._is_reading = True
        self._is_writable = True
        self._last_progress = time.monotonic()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.connections.discard(self)
        self._tail = b""
        self._body_parts = []

    def eof_received(self) -> bool:
        """A client that has said all may still wait for its answers."""
        self._closes_after = True
        return bool(self._pending)

    def pause_writing(self) -> None:
        self._is_writable = False
        self._last_progress = time.monotonic()
        self._pause_reading()

    def resume_writing(self) -> None:
        self._is_writable = True
        self._last_progress = time.monotonic()
        self._resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._closes_after:
            return
        try:
            if self._head is None:
                self._read_head(data)
            else:
                self._read_body(data)
        except HttpError as error:
            self._refuse(error)

    # Reading

    def _read_head(self, data: bytes) -> None:
        """Takes whole requests out of `data`, as many as are there and allowed."""
        if self._tail:
            data = self._tail + data
            self._tail = b""
        elif not self._first_byte_ns:
            self._first_byte_ns = time.monotonic_ns()
        limits = self._server.limits
        while data:
            if self._transport is None or self._closes_after:
                return
            if len(self._pending) >= _MAX_PIPELINED or not self._is_writable:
                self._tail = data
                self._pause_reading()
                return
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > limits.max_head_bytes:
                if data.startswith(b"\r\n"):
                    data = data[2:]
                    continue
                if len(data) > limits.max_head_bytes:
                    raise HttpError(431, f"The request's head is longer than {limits.max_head_bytes} bytes.")
                self._wait_for_head(data)
                return
            head = parse_head(data[: end + 4])
            if head.length == 0:
                data = data[end + 4 :]
                self._dispatch(head, b"")
            elif 0 < head.length <= len(data) - end - 4 and head.length <= limits.max_body_bytes:
                body = data[end + 4 : end + 4 + head.length]
                data = data[end + 4 + head.length :]
                self._dispatch(head, body)
            else:
                self._begin_body(head, data[end + 4 :])
                return
            self._first_byte_ns = time.monotonic_ns() if data else 0

    def _wait_for_head(self, data: bytes) -> None:
        self._tail = data
        if not self._first_byte_ns:
            self._first_byte_ns = time.monotonic_ns()
        if self._last_progress < self._first_byte_ns / 1e9 - 1:
            self._last_progress = time.monotonic()

    def _begin_body(self, head: Head, data: bytes) -> None:
        max_bytes = self._server.limits.max_body_bytes
        if head.length > max_bytes:
            raise HttpError(413, f"The body of {head.length} bytes is larger than the {max_bytes} bytes that are allowed.")
        self._head = head
        self._body = ChunkedBody(max_bytes) if head.length == CHUNKED else None
        self._body_parts = []
        self._body_size = 0
        self._body_began = self._last_progress = time.monotonic()
        if head.expects_continue and not self._pending and self._transport is not None:
            self._transport.write(_CONTINUE)
        if data:
            self._read_body(data)

    def _read_body(self, data: bytes) -> None:
        head = self._head
        assert head is not None
        self._last_progress = time.monotonic()
        rest: bytes | None
        if self._body is not None:
            rest = self._body.feed(data)
            if rest is None:
                return
            body = b"".join(self._body.parts)
        else:
            self._body_parts.append(data)
            self._body_size += len(data)
            if self._body_size < head.length:
                return
            body = b"".join(self._body_parts)
            rest = body[head.length :]
            if rest:
                body = body[: head.length]
        self._head, self._body, self._body_parts = None, None, []
        self._dispatch(head, body)
        self._first_byte_ns = 0
        if rest:
            self._read_head(rest)

    def _dispatch(self, head: Head, body: bytes) -> None:
        server = self._server
        self._last_progress = time.monotonic()
        if not head.keeps_alive or server.is_draining:
            self._closes_after = True
        request = Request(head, body, self, self._first_byte_ns, head.request_id or server.next_id())
        self._pending.append(request)
        try:
            if head.content_encoding and body:
                request.body = decompress(body, head.content_encoding, server.limits.max_body_bytes)
            server.app(request)
        except PenstockError as error:
            self.answered(request, _error_response(error))

    def _refuse(self, error: HttpError) -> None:
        """What cannot be read as a request ends the connection, after an answer that says why."""
        self._closes_after = True
        self._tail, self._head, self._body, self._body_parts = b"", None, None, []
        head = Head("GET", b"/", "1.1", {}, False)
        request = Request(head, b"", self, self._first_byte_ns, self._server.next_id())
        self._pending.append(request)
        self.answered(request, _error_response(error))

    # Writing

    def answered(self, request: Request, response: Response) -> None:
        """Sends an answer, or keeps it until those before it are sent."""
        pending = self._pending
        if request.response is not None or self._transport is None:
            return
        request.response = response
        if pending[0] is not request:
            return
        while pending and pending[0].response is not None:
            done = pending.popleft()
            self._write(done, cast(Response, done.response), is_last=self._closes_after and not pending)
        self._last_progress = time.monotonic()
        if self._closes_after:
            if not pending and self._transport is not None:
                self._transport.close()
        elif self._tail and not self._is_reading and self._is_writable:
            self._resume_reading()

    def _write(self, request: Request, response: Response, is_last: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        head, body = request.head, response.body
        fields = response.fields + self._server.fields
        if head.accept_encoding and is_worth_compressing(head.accept_encoding, response.content_type, len(body)):
            body = compress(body)
            fields += b"content-encoding: gzip\r\nvary: accept-encoding\r\n"
        if is_last:
            fields += b"connection: close\r\n"
        elif head.version == "1.0":
            fields += b"connection: keep-alive\r\n"
        start = b"%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b%b\r\n" % (
            _STATUS_LINES.get(response.status) or b"HTTP/1.1 %d Unknown\r\n" % response.status,
            response.content_type.encode("latin-1"),
            len(body),
            request.id,
            self._server.date_line,
            fields,
        )
        if head.method == "HEAD":
            transport.write(start)
        elif len(body) < _SEPARATE_BODY_BYTES:
            transport.write(start + body)
        else:
            transport.writelines((start, body))

    # Time and flow

    def _pause_reading(self) -> None:
        if self._is_reading and self._transport is not None:
            self._is_reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._is_reading and self._transport is not None:
            self._is_reading = True
            self._transport.resume_reading()
        if self._tail and self._head is None:
            data, self._tail = self._tail, b""
            asyncio.get_running_loop().call_soon(self.data_received, data)

    def check_progress(self, now: float) -> None:
        """Ends the connection when the client has kept it waiting too long."""
        limits = self._server.limits
        since = now - self._last_progress
        if not self._is_writable:
            if since > limits.progress_timeout_s and self._transport is not None:
                self._transport.abort()
        elif self._pending:
            return
        elif self._head is not None:
            taken = now - self._body_began
            if since > limits.progress_timeout_s:
                self._refuse(HttpError(408, f"No more of the body came for {limits.progress_timeout_s:g} s."))
            elif taken > limits.progress_timeout_s + self._received() / limits.min_bytes_per_s:
                self._refuse(HttpError(408, f"The body comes with less than {limits.min_bytes_per_s} bytes a second."))
        elif self._tail:
            if now - self._first_byte_ns / 1e9 > limits.head_timeout_s:
                self._refuse(HttpError(408, f"The request's head was not whole after {limits.head_timeout_s:g} s."))
        elif since > limits.idle_timeout_s and self._transport is not None:
            self._transport.close()

    def _received(self) -> int:
        return self._body.size if self._body is not None else self._body_size

    def end_if_idle(self) -> None:
        """Closes a connection that has nothing under way; one that has, closes behind the request it is at."""
        if self._head is None:
            self._closes_after = True
            if not self._pending and self._transport is not None:
                self._transport.close()


def _error_response(error: PenstockError) -> Response:
    return Response(error.http_status, orjson.dumps({"error": error.message}), JSON_TYPE)
