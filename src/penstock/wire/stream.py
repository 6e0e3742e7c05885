"""A stream of an HTTP/2 connection: what a request of HTTP and a call of gRPC have in common.

Guarantees: what has come of a body is bounded, and a body of known length is put where it stays, once; what is answered leaves
as the client takes it; a stream that ends before its answer tells the app that nobody waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.errors import PenstockError, Unimplemented
from penstock.wire import nghttp2
from penstock.wire.grpc import Buffer, Methods
from penstock.wire.grpc_fields import parse_timeout
from penstock.wire.nghttp2 import CData

if TYPE_CHECKING:
    from penstock.wire.http2 import Http2Connection

#: Bodies up to this size are copied into their frame; of larger ones frames take views.
COPIED_BYTES = 8 << 10
#: What a stream is refused with whose body would be one too many.
TOO_MUCH = "Too many large bodies are under way on this connection."

_OK_TRAILERS, _OK_COUNT, _keep_ok = nghttp2.fields([(b"grpc-status", b"0")])


class StreamHead:
    """The head of a stream, worked out once for all that have the same: clients send the same again and again.

    For a call of gRPC: its method and time-out, or why it cannot be called.
    """

    __slots__ = ("error", "fields", "is_grpc", "method", "path", "request_id", "timeout_ns")

    def __init__(self, fields: Mapping[bytes, bytes], methods: Methods) -> None:
        self.fields = fields
        self.is_grpc = fields.get(b"content-type", b"").startswith(b"application/grpc")
        self.path = fields.get(b":path", b"").decode("latin-1")
        self.request_id = fields.get(b"x-request-id", b"")
        self.timeout_ns = 0
        self.error: PenstockError | None = None
        self.method = methods.get(self.path) if self.is_grpc else None
        if self.is_grpc:
            try:
                self._check()
            except PenstockError as error:
                self.error = error

    def _check(self) -> None:
        if self.method is None:
            raise Unimplemented(f"There is no method {self.path} here.")
        encoding = self.fields.get(b"grpc-encoding", b"identity")
        if encoding not in (b"identity", b"gzip"):
            raise Unimplemented(f"grpc-encoding {encoding.decode('latin-1')[:40]} is not understood; gzip is.")
        timeout = self.fields.get(b"grpc-timeout")
        if timeout is not None:
            self.timeout_ns = parse_timeout(timeout)


class Stream:
    """What both kinds have: the bytes that wait to be sent, and the time that the client has taken.

    Most streams live for a millisecond and need few of these, so the values they begin with are the class's.
    """

    unsent_bytes = 0
    has_ended = False
    trailers: list[tuple[bytes, bytes]] | None = None
    is_whole = False
    received_bytes = 0
    counted_bytes = 0

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        self.connection = connection
        self.id = stream_id
        self.unsent: list[Buffer] = []
        self.last_progress = connection.last_progress

    # From the client

    def begin(self, head: StreamHead) -> None:
        """The head is there."""
        raise NotImplementedError

    def received(self, data: CData, size: int) -> None:
        """A piece of the body, which is the caller's."""
        raise NotImplementedError

    def received_all(self) -> None:
        """The client has sent all."""
        raise NotImplementedError

    def closed(self) -> None:
        """The stream is gone; whoever works on it still may stop."""
        raise NotImplementedError

    def count(self, size: int) -> bool:
        """Counts bytes of a body that is not whole yet; whether the connection may have so many."""
        connection = self.connection
        self.counted_bytes += size
        connection.unfinished_bytes += size
        return connection.unfinished_bytes <= connection.server.limits.max_unfinished_bytes

    def uncount(self) -> None:
        """The body is whole, or is not wanted."""
        self.connection.unfinished_bytes -= self.counted_bytes
        self.counted_bytes = 0

    # To the client

    def queue(self, buffers: tuple[Buffer, ...]) -> None:
        if not self.unsent_bytes:
            self.last_progress = time.monotonic()
        for buffer in buffers:
            if len(buffer):
                self.unsent.append(buffer)
                self.unsent_bytes += len(buffer)

    def take_all(self) -> bytes:
        """All that waits, which is little."""
        data = self.unsent[0] if len(self.unsent) == 1 else b"".join(self.unsent)
        self.unsent.clear()
        self.unsent_bytes = 0
        self.drained()
        return data if isinstance(data, bytes) else bytes(data)

    def drained(self) -> None:
        """Something of what waited is sent."""

    def take(self, size: int) -> list[Buffer]:
        """The next `size` bytes that wait, without a copy."""
        taken: list[Buffer] = []
        self.unsent_bytes -= size
        self.last_progress = time.monotonic()
        while size:
            view = memoryview(self.unsent[0])
            if len(view) > size:
                self.unsent[0] = view[size:]
                view = view[:size]
            else:
                del self.unsent[0]
            taken.append(view)
            size -= len(view)
        self.drained()
        return taken

    def send_trailers(self) -> None:
        """All is sent: the fields that end the stream."""
        if self.trailers:
            fields, count, _kept = nghttp2.fields(self.trailers)
            self.connection.submit_trailer(self, fields, count)
        else:
            self.connection.submit_trailer(self, _OK_TRAILERS, _OK_COUNT)

    def check_progress(self, now: float) -> None:
        """Ends the stream when the client sends or takes too little."""
        limits = self.connection.server.limits
        if self.unsent_bytes:
            if now - self.last_progress > limits.progress_timeout_s:
                self.connection.reset(self, nghttp2.CANCEL)
        elif not self.is_whole and self.is_waiting_for_body:
            since = now - self.last_progress
            if since > limits.progress_timeout_s:
                self.too_slow(f"No more of the body came for {limits.progress_timeout_s:g} s.")

    @property
    def is_waiting_for_body(self) -> bool:
        return True

    @property
    def takes_more(self) -> bool:
        """Whether the client may send more at once."""
        return True

    def hold(self, size: int) -> None:
        """`size` bytes came that the client may not send more in place of, before `Http2Connection.released`."""

    def too_slow(self, text: str) -> None:
        raise NotImplementedError
