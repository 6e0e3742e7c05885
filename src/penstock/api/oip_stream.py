"""ModelStreamInfer: many requests on one stream, each answered when it is done, in whatever order that is.

Guarantees: every request gets one message, an answer or an error with its id; an error of a request does not end the stream;
the stream ends when the client has sent all and all is answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.codec.oip_proto import encode_stream_error
from penstock.errors import PenstockError
from penstock.wire.grpc import Buffer, GrpcCall, Reply, error_text


class StreamedRequest:
    """A request of a stream, as `Inference` takes it. `id` is the client's, once it is decoded."""

    __slots__ = ("_stream", "deadline_ns", "first_byte_ns", "id", "message", "on_cancel", "read_ns")

    is_cancellable = True

    def __init__(self, stream: InferStream, message: Buffer, deadline_ns: int) -> None:
        self._stream = stream
        self.message = message
        self.deadline_ns = deadline_ns
        self.first_byte_ns = self.read_ns = time.monotonic_ns()
        self.id = b""
        self.on_cancel: Callable[[], None] | None = None

    def forget_body(self) -> None:
        self.message = b""

    def answer(self, reply: Reply) -> None:
        self._stream.answered(self, reply)


class InferStream:
    """One stream. `start` begins each of its requests."""

    def __init__(self, call: GrpcCall, start: Callable[[StreamedRequest], None]) -> None:
        self._call = call
        self._start = start
        self._under_way: set[StreamedRequest] = set()
        self._is_whole = False
        call.on_message = self._message
        call.on_end = self._ended
        call.on_cancel = self._cancelled

    def _message(self, message: Buffer) -> None:
        request = StreamedRequest(self, message, self._call.deadline_ns)
        self._under_way.add(request)
        self._start(request)

    def _ended(self) -> None:
        self._is_whole = True
        self._end_if_done()

    def _cancelled(self) -> None:
        for request in list(self._under_way):
            if request.on_cancel is not None:
                request.on_cancel()

    def answered(self, request: StreamedRequest, reply: Reply) -> None:
        """Sends the answer of a request."""
        self._under_way.discard(request)
        error = reply.error
        self._call.send(reply.message if error is None else (_error(request, error),))
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._is_whole and not self._under_way:
            self._call.answer(Reply())


def _error(request: StreamedRequest, error: PenstockError) -> bytes:
    return encode_stream_error(error_text(error), request.id.decode("utf-8", "replace"))
