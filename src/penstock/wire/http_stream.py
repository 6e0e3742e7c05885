"""A request of HTTP on a stream of an HTTP/2 connection."""

from __future__ import annotations

import time

from penstock.wire import nghttp2
from penstock.wire.answer import error_response, headers_of, ready_body
from penstock.wire.body import gather
from penstock.wire.head import Head, HttpError
from penstock.wire.nghttp2 import CData, unpack
from penstock.wire.request import Request, Response
from penstock.wire.stream import TOO_MUCH, Stream, StreamHead


class HttpStream(Stream):
    """Its answer is what HTTP/1.1 would have given."""

    def begin(self, stream_head: StreamHead) -> None:
        head = dict(stream_head.fields)
        self._first_byte_ns = time.monotonic_ns()
        self._request: Request | None = None
        self._parts: list[bytes] = []
        server = self.connection.server
        method, target = head.pop(b":method", b"").decode("latin-1"), head.pop(b":path", b"/")
        head.pop(b":scheme", None)
        authority = head.pop(b":authority", None)
        if authority is not None:
            head.setdefault(b"host", authority)
        try:
            self._head = Head(method, target, "2", head, True)
            if self._head.length > server.limits.max_body_bytes:
                raise _too_large(self._head.length, server.limits.max_body_bytes)
        except HttpError as error:
            self._head = Head("GET", b"/", "2", {}, True)
            self._refuse(error)

    def received(self, data: CData, size: int) -> None:
        if self._request is not None:
            return
        self.last_progress = self.connection.last_progress
        self.received_bytes += size
        limit = self.connection.server.limits.max_body_bytes
        if self.received_bytes > limit:
            self._refuse(_too_large(self.received_bytes, limit))
        elif not self.count(size):
            self._refuse(HttpError(503, TOO_MUCH))
        else:
            gather(self._parts, unpack(data, size))

    def received_all(self) -> None:
        self.is_whole = True
        self.uncount()
        if self._request is not None:
            return
        body = b"".join(self._parts) if len(self._parts) != 1 else self._parts[0]
        self._parts = []
        server, head = self.connection.server, self._head
        request = self._request = Request(head, body, self, self._first_byte_ns, head.request_id or server.next_id())
        server.run(request)

    def closed(self) -> None:
        self.uncount()
        self._parts = []

    def answered(self, request: Request, response: Response) -> None:
        """Sends the answer; what comes after the first, or when the client is gone, goes nowhere."""
        if request.response is not None or self.connection.streams.get(self.id) is not self:
            return
        request.response = response
        body, extra = ready_body(request, response)
        lines = extra + self.connection.server.last_lines
        fields, count, _kept = nghttp2.fields(headers_of(request, response, len(body), lines))
        has_body = bool(body) and request.head.method != "HEAD"
        if has_body:
            self.queue((body,))
        self.has_ended = True
        self.connection.submit(self, fields, count, has_body=has_body)

    def _refuse(self, error: HttpError) -> None:
        self.uncount()
        self._parts = []
        self._request = Request(self._head, b"", self, self._first_byte_ns, self.connection.server.next_id())
        self.answered(self._request, error_response(error))

    def too_slow(self, text: str) -> None:
        if self._request is None:
            self._refuse(HttpError(408, text))


def _too_large(size: int, limit: int) -> HttpError:
    return HttpError(413, f"The body of {size} bytes is larger than the {limit} bytes that are allowed.")
