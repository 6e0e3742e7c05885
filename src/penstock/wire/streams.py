"""The streams of an HTTP/2 connection: a request of HTTP, or a call of gRPC.

Guarantees: what has come of a body is bounded, and a body of known length is put where it stays, once; what is answered leaves
as the client takes it; a stream that ends before its answer tells the app that nobody waits for it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import DeadlineExceeded, InvalidArgument, PenstockError, ResourceExhausted, Unimplemented
from penstock.wire import nghttp2
from penstock.wire.answer import error_response, headers_of, ready_body
from penstock.wire.encoding import decompress
from penstock.wire.grpc import Buffer, GrpcCall, Kind, Method, Methods, Reply, error_text, internal
from penstock.wire.grpc_fields import parse_timeout, percent_encoded, trailing_fields
from penstock.wire.head import Head, HttpError
from penstock.wire.nghttp2 import CData, ffi, unpack
from penstock.wire.request import Request, Response

if TYPE_CHECKING:
    from penstock.wire.http2 import Http2Connection

#: From here on a message is put into one buffer of its length as it comes.
_WHOLE_BUFFER_BYTES = 64 << 10
_PREFIX_BYTES = 5
#: Bodies up to this size are copied into their frame; of larger ones frames take views.
COPIED_BYTES = 8 << 10
#: Messages of a stream that the app has and has not answered; a client that sends more waits.
_MAX_UNANSWERED = 64
#: A client that does not take what it is sent gets no further message of its stream answered.
_MAX_UNSENT_BYTES = 1 << 20
_TOO_MUCH = "Too many large bodies are under way on this connection."
log = logging.getLogger("penstock.wire")

_GRPC_HEAD, _GRPC_HEAD_COUNT, _keep_head = nghttp2.fields([(b":status", b"200"), (b"content-type", b"application/grpc")])
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


class HttpStream(Stream):
    """A request of HTTP. Its answer is what HTTP/1.1 would have given."""

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
            self._refuse(HttpError(503, _TOO_MUCH))
        else:
            self._parts.append(unpack(data, size))

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
        fields, count, _kept = nghttp2.fields(headers_of(request, response, len(body), extra))
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


class GrpcStream(Stream):
    """A call of gRPC."""

    _call: GrpcCall | None = None
    _deadline_ns = 0
    _has_head = False
    _held_bytes = _unanswered = 0
    _method: Method | None = None
    _needed_bytes = _PREFIX_BYTES
    #: A message that came in one piece, or a large one as it comes; `_parts` are the pieces of others.
    _whole: bytes | None = None
    _buffer: memoryview | None = None
    #: Messages of a stream that the app may not have yet.
    _waiting: deque[Buffer] | None = None

    def begin(self, head: StreamHead) -> None:
        self._head = head
        self._first_byte_ns = time.monotonic_ns()
        self._parts: list[bytes] = []
        if head.error is not None:
            self._fail(head.error)
            return
        if head.timeout_ns:
            self._deadline_ns = self._first_byte_ns + head.timeout_ns
        method = self._method = head.method
        assert method is not None
        if method.kind is Kind.BIDIRECTIONAL:
            self._waiting = deque()
            self._start(b"")

    # The request

    def received(self, data: CData, size: int) -> None:
        self.last_progress = self.connection.last_progress
        if self._call is not None and self._waiting is None:
            return  # refused
        buffer = self._buffer
        if buffer is not None:
            end = self.received_bytes + size
            if not self.count(size):
                self._fail(ResourceExhausted(_TOO_MUCH))
            elif end <= len(buffer):
                buffer[self.received_bytes : end] = ffi.buffer(data, size)
                self.received_bytes = end
            else:
                self._fail(InvalidArgument("The message is longer than its prefix says."))
            return
        piece = unpack(data, size)
        if not self.received_bytes and size == _PREFIX_BYTES + int.from_bytes(piece[1:_PREFIX_BYTES], "big"):
            self._whole = piece
        self._parts.append(piece)
        self.received_bytes += size
        limit = self.connection.server.limits.max_message_bytes
        if self._waiting is not None:
            if self.received_bytes >= self._needed_bytes:
                self._take_messages(limit)
        elif self._whole is None or len(self._parts) > 1:
            self._whole = None
            if not self.count(size):
                self._fail(ResourceExhausted(_TOO_MUCH))
            elif self.received_bytes >= _PREFIX_BYTES:
                self._expect(limit)

    def _expect(self, limit: int) -> None:
        """Makes room for a large message once its length is known."""
        first = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        length = int.from_bytes(first[1:_PREFIX_BYTES], "big")
        if length > limit:
            self._fail(_message_too_large(length, limit))
        elif len(first) > _PREFIX_BYTES + length:
            self._fail(InvalidArgument("The message is longer than its prefix says."))
        elif length > _WHOLE_BUFFER_BYTES:
            # Of memory that is only taken when it is written to: a length is soon said.
            self._buffer = np.empty(_PREFIX_BYTES + length, np.uint8).data
            self._buffer[: len(first)] = first
            self._parts = []

    def _take_messages(self, limit: int) -> None:
        """The messages of a stream that are whole."""
        data = memoryview(b"".join(self._parts))
        self._needed_bytes = _PREFIX_BYTES
        while len(data) >= _PREFIX_BYTES:
            length = int.from_bytes(data[1:_PREFIX_BYTES], "big")
            if length > limit:
                self._fail(_message_too_large(length, limit))
                return
            if len(data) < _PREFIX_BYTES + length:
                self._needed_bytes = _PREFIX_BYTES + length
                break
            assert self._waiting is not None
            self._waiting.append(data[: _PREFIX_BYTES + length])
            data = data[_PREFIX_BYTES + length :]
        self._parts = [bytes(data)] if data else []
        self.received_bytes = len(data)
        self._deliver()

    @property
    def takes_more(self) -> bool:
        return not self._waiting

    def hold(self, size: int) -> None:
        self._held_bytes += size

    def _deliver(self) -> None:
        """Gives the app the messages that it may have."""
        call, waiting = self._call, self._waiting
        if call is None or waiting is None:
            return
        while waiting and self._unanswered < _MAX_UNANSWERED and self.unsent_bytes < _MAX_UNSENT_BYTES and not call.is_over:
            self._unanswered += 1
            try:
                message = self._message(waiting.popleft())
                if call.on_message is not None:
                    call.on_message(message)
            except PenstockError as error:
                call.fail(error)
            except Exception:
                log.exception("call %s failed inside", call.id.decode())
                call.fail(internal())
        if self._held_bytes and not waiting:
            held, self._held_bytes = self._held_bytes, 0
            self.connection.released(self, held)
        if self.is_whole and not waiting and call.on_end is not None and not call.is_over:
            on_end, call.on_end = call.on_end, None
            on_end()

    def received_all(self) -> None:
        self.is_whole = True
        self.uncount()
        if self._waiting is not None:
            if self._parts and self._call is not None:
                self._call.fail(InvalidArgument("The stream ends within a message."))
            self._deliver()
        elif self._call is None and self._whole is not None:
            whole_message, self._whole, self._parts = self._whole, None, []
            self._start(whole_message)
        elif self._call is None:
            whole: Buffer = self._buffer if self._buffer is not None else b"".join(self._parts)
            self._buffer, self._parts = None, []
            if self.received_bytes < _PREFIX_BYTES or len(whole) != self.received_bytes:
                self._fail(InvalidArgument("The message is shorter than its prefix says."))
            elif len(whole) != _PREFIX_BYTES + int.from_bytes(whole[1:_PREFIX_BYTES], "big"):
                self._fail(InvalidArgument("The message is not as long as its prefix says."))
            else:
                self._start(whole)

    def _message(self, whole: Buffer) -> Buffer:
        """A message without its prefix, decompressed."""
        if whole[0] == 0:
            return whole[_PREFIX_BYTES:] if len(whole) <= COPIED_BYTES else memoryview(whole)[_PREFIX_BYTES:]
        if whole[0] != 1 or self._head.fields.get(b"grpc-encoding", b"identity") != b"gzip":
            raise InvalidArgument("The message is marked as compressed, and no grpc-encoding says how.")
        limit = self.connection.server.limits.max_message_bytes
        try:
            return decompress(bytes(memoryview(whole)[_PREFIX_BYTES:]), b"gzip", limit)
        except HttpError as error:
            if error.status == 413:
                raise ResourceExhausted(f"Received message larger than max (decompressed, vs. {limit})") from None
            raise InvalidArgument(error.message) from None

    def _start(self, whole: Buffer) -> None:
        """Hands the call to its method."""
        head, method = self._head, self._method
        assert method is not None
        try:
            message = self._message(whole) if whole else b""
        except PenstockError as error:
            self._fail(error)
            return
        request_id = head.request_id or self.connection.server.next_id()
        call = self._call = GrpcCall(self, head.path, head.fields, message, self._deadline_ns, self._first_byte_ns, request_id)
        try:
            method.handler(call)
        except PenstockError as error:
            call.fail(error)
        except Exception:
            log.exception("call %s failed inside", call.id.decode())
            call.fail(internal())

    def drained(self) -> None:
        if self._waiting:
            self.connection.loop.call_soon(self._deliver)

    def closed(self) -> None:
        self.uncount()
        call, self._call = self._call, None  # the two would keep each other, and a large message, until the next collection
        self._whole = self._buffer = None
        self._parts = []
        if call is not None and not call.is_over:
            on_cancel = call.on_cancel
            if on_cancel is not None:
                on_cancel()
            call.is_over = True

    @property
    def is_waiting_for_body(self) -> bool:
        return self._call is None

    def too_slow(self, text: str) -> None:
        self._fail(DeadlineExceeded(text))

    # The answer

    def _fail(self, error: PenstockError) -> None:
        """Ends a call that has not begun."""
        self.uncount()
        self._parts, self._buffer = [], None
        if self._call is None:
            self._call = GrpcCall(self, "", {}, b"", 0, 0, b"")
        self._call.fail(error)

    def send(self, call: GrpcCall, message: tuple[Buffer, ...]) -> None:
        """Sends a message of a stream."""
        if self.connection.streams.get(self.id) is not self:
            return
        self._unanswered -= 1
        self._queue_message(message)
        self._send_queued()
        if self._waiting:
            self.connection.loop.call_soon(self._deliver)

    def answered(self, call: GrpcCall, reply: Reply) -> None:
        """Ends the stream with the last message, if there is one, and the status."""
        if self.connection.streams.get(self.id) is not self:
            return
        error = reply.error
        self.has_ended = True
        if error is None:
            if reply.message or self._method is None or self._method.kind is Kind.UNARY:
                self._queue_message(reply.message)
            self.trailers = [(b"grpc-status", b"0"), *trailing_fields(reply.fields)] if reply.fields else []
        else:
            status = [(b"grpc-status", b"%d" % error.code), (b"grpc-message", percent_encoded(error_text(error)))]
            self.trailers = [*status, *trailing_fields(reply.fields)]
            if not self._has_head:
                self._only_trailers()
                return
        self._send_queued()

    def _only_trailers(self) -> None:
        """An error before any message is all in the head."""
        assert self.trailers is not None
        head = [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity, gzip")]
        fields, count, _kept = nghttp2.fields(head + self.trailers)
        self.unsent.clear()
        self.unsent_bytes = 0
        self.connection.submit(self, fields, count, has_body=False)

    def _queue_message(self, message: tuple[Buffer, ...]) -> None:
        # The first byte of the prefix, 0, says that the message is not compressed.
        if len(message) == 1 and len(message[0]) <= COPIED_BYTES:
            self.queue((len(message[0]).to_bytes(_PREFIX_BYTES, "big") + message[0],))
        else:
            self.queue((sum(map(len, message)).to_bytes(_PREFIX_BYTES, "big"), *message))

    def _send_queued(self) -> None:
        if self._has_head:
            self.connection.resume(self)
        else:
            self._has_head = True
            self.connection.submit(self, _GRPC_HEAD, _GRPC_HEAD_COUNT, has_body=True)


def _message_too_large(size: int, limit: int) -> PenstockError:
    return ResourceExhausted(f"Received message larger than max ({size} vs. {limit})")
