"""A call of gRPC on a stream of an HTTP/2 connection.

Guarantees: a message is checked against its prefix and the limits before the app has it; a call has one status, whoever ends it.
"""

from __future__ import annotations

import logging
import time
from collections import deque

import numpy as np

from penstock.errors import DeadlineExceeded, InvalidArgument, PenstockError, ResourceExhausted
from penstock.wire import nghttp2
from penstock.wire.body import gather
from penstock.wire.encoding import decompress
from penstock.wire.grpc import Buffer, GrpcCall, Kind, Method, Reply, error_text, internal
from penstock.wire.grpc_fields import percent_encoded, trailing_fields
from penstock.wire.head import HttpError
from penstock.wire.nghttp2 import CData, ffi, unpack
from penstock.wire.stream import COPIED_BYTES, TOO_MUCH, Stream, StreamHead

#: Up to here a message that came in pieces is copied once more, into bytes, which are quicker to read.
_BYTES_OF_PIECES = 64 << 10
_PREFIX_BYTES = 5
#: Messages of a stream that the app has and has not answered; a client that sends more waits.
_MAX_UNANSWERED = 64
#: A client that does not take what it is sent gets no further message of its stream answered.
_MAX_UNSENT_BYTES = 1 << 20
log = logging.getLogger("penstock.wire")

_GRPC_HEAD, _GRPC_HEAD_COUNT, _keep_head = nghttp2.fields([(b":status", b"200"), (b"content-type", b"application/grpc")])


class GrpcStream(Stream):
    """A unary call, or one whose messages come and go while it lasts."""

    _call: GrpcCall | None = None
    _deadline_ns = 0
    _has_head = False
    _held_bytes = _unanswered = 0
    _method: Method | None = None
    _needed_bytes = _PREFIX_BYTES
    #: A message that came in one piece, or another as it comes; `_parts` are of one whose length is not known, or of a stream.
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
        if self._call is not None and (self._waiting is None or self._call.is_over):
            return  # refused
        buffer = self._buffer
        if buffer is not None:
            end = self.received_bytes + size
            if not self.count(size):
                self._fail(ResourceExhausted(TOO_MUCH))
            elif end <= len(buffer):
                buffer[self.received_bytes : end] = ffi.buffer(data, size)
                self.received_bytes = end
            else:
                self._fail(InvalidArgument("The message is longer than its prefix says."))
            return
        piece = unpack(data, size)
        if not self.received_bytes and size == _PREFIX_BYTES + int.from_bytes(piece[1:_PREFIX_BYTES], "big"):
            self._whole = piece
        gather(self._parts, piece)
        self.received_bytes += size
        limit = self.connection.server.limits.max_message_bytes
        if self._waiting is not None:
            if self.received_bytes >= self._needed_bytes:
                self._take_messages(limit)
            if not self.count(self.received_bytes - self.counted_bytes):
                self._fail(ResourceExhausted(TOO_MUCH))
        elif self._whole is None or self.received_bytes > len(self._whole):
            self._whole = None
            if not self.count(size):
                self._fail(ResourceExhausted(TOO_MUCH))
            elif self.received_bytes >= _PREFIX_BYTES:
                self._expect(limit)

    def _expect(self, limit: int) -> None:
        """Makes room for the message once its length is known."""
        first = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        length = int.from_bytes(first[1:_PREFIX_BYTES], "big")
        if length > limit:
            self._fail(_message_too_large(length, limit))
        elif len(first) > _PREFIX_BYTES + length:
            self._fail(InvalidArgument("The message is longer than its prefix says."))
        else:
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
            if len(whole) <= _BYTES_OF_PIECES:
                whole = bytes(whole)
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
        """Of a stream, for the rest of a message, unless the client has to wait for us."""
        return self._call is None or (bool(self._parts) and not self._waiting and not self._call.is_over)

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
