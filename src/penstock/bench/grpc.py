"""A connection that speaks gRPC over HTTP/2, by libnghttp2: unary calls, as many at once as there are streams.

libnghttp2 calls back only while it reads or writes, one call of ours at a time: `_now` is the connection whose call that is.
"""

from __future__ import annotations

import functools
import socket

from penstock.bench.connection import WOULD_BLOCK, Connection, Events, Ticket, kind_of
from penstock.wire import nghttp2
from penstock.wire.nghttp2 import CData, ffi, fields, unpack

_WINDOW_BYTES = 64 << 20
_MAX_WINDOW_BYTES = (1 << 31) - 1
_MAX_FRAME_BYTES = (1 << 24) - 1
_MAX_EXAMPLE = 300
_now: GrpcConnection


class _Stream:
    """A call under way, and how much of its message is sent."""

    __slots__ = ("message", "said", "sent", "status", "ticket")

    def __init__(self, message: CData, ticket: Ticket) -> None:
        self.message = message
        self.sent = 0
        self.ticket = ticket
        self.status = b""
        self.said = b""


class Calls:
    """What all connections of a load share: the fields of a call, and its possible messages with their prefixes."""

    def __init__(self, method: str, authority: str, metadata: tuple[tuple[str, str], ...], scheme: str) -> None:
        pairs = [
            (b":method", b"POST"),
            (b":scheme", scheme.encode()),
            (b":path", method.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"penstock-bench"),
            *((name.lower().encode(), value.encode()) for name, value in metadata),
        ]
        self.fields, self.count, self._kept = fields(pairs)
        self._messages: dict[int, CData] = {}

    def message(self, data: bytes) -> CData:
        """The memory of a message, which the load sends again and again."""
        found = self._messages.get(id(data))
        if found is None:
            found = self._messages[id(data)] = ffi.from_buffer("char[]", data)
        return found


class GrpcConnection(Connection):
    """Requests are messages with their prefix. `room` is how many streams may be open."""

    def __init__(self, sock: socket.socket, events: Events, calls: Calls, room: int) -> None:
        super().__init__(sock, events)
        self.room = room
        self._calls = calls
        self._library, callbacks, self._provider = _shared()
        session = ffi.new("nghttp2_session **")
        if self._library.nghttp2_session_client_new(session, callbacks, ffi.NULL):
            raise MemoryError("no memory for an HTTP/2 session")
        self._session = session[0]
        self._streams: dict[int, _Stream] = {}
        self._fields: list[bytes] = []
        self._unsent = b""
        settings = ffi.new(
            "nghttp2_settings_entry[]",
            [(nghttp2.SETTINGS_INITIAL_WINDOW_SIZE, _WINDOW_BYTES), (nghttp2.SETTINGS_MAX_FRAME_SIZE, _MAX_FRAME_BYTES)],
        )
        self._library.nghttp2_submit_settings(self._session, 0, settings, len(settings))
        self._library.nghttp2_session_set_local_window_size(self._session, 0, 0, _MAX_WINDOW_BYTES)

    @property
    def tickets(self) -> list[Ticket]:
        return [stream.ticket for stream in self._streams.values()]

    def send(self, request: bytes, ticket: Ticket) -> None:
        calls = self._calls
        stream_id = self._library.nghttp2_submit_request(
            self._session, ffi.NULL, calls.fields, calls.count, self._provider, ffi.NULL
        )
        if stream_id < 0:  # the server has said that it takes no more on this connection
            self.events.answered(self, ticket, "connection closed", b"", True)
            return
        self._streams[stream_id] = _Stream(calls.message(request), ticket)
        self.write()

    def write(self) -> None:
        global _now
        if not self._session:
            return
        _now = self
        was_blocked = bool(self._unsent)
        pieces = [self._unsent] if was_blocked else []
        while (size := self._library.nghttp2_session_mem_send(self._session, _sent)) > 0:
            pieces.append(unpack(_sent[0], size))
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        try:
            self._unsent = data[self.sock.send(data) :]
        except WOULD_BLOCK:
            self._unsent = data
        except OSError as error:
            self.events.broke(self, kind_of(error))
            return
        if bool(self._unsent) != was_blocked:
            self.events.blocked(self, is_blocked=not was_blocked)

    def read(self) -> None:
        global _now
        try:
            data = self.receive()
        except WOULD_BLOCK:
            return
        except OSError as error:
            self.events.broke(self, kind_of(error))
            return
        if not data:
            self.events.broke(self, "connection closed")
            return
        _now = self
        ended = _ended
        ended.clear()
        if self._library.nghttp2_session_mem_recv(self._session, ffi.from_buffer(data), len(data)) < 0:
            self.events.broke(self, "not HTTP/2")
            return
        is_last = not self._library.nghttp2_session_want_read(self._session)
        over = list(ended)
        for place, stream in enumerate(over):
            kind = "" if stream.status == b"0" else f"gRPC {stream.status.decode('latin-1') or 'no status'}"
            self.events.answered(self, stream.ticket, kind, stream.said[:_MAX_EXAMPLE], is_last and place == len(over) - 1)
        if not is_last:
            self.write()  # window updates, acknowledgements

    def close(self) -> None:
        super().close()
        if self._session:
            self._library.nghttp2_session_del(self._session)
            self._session = ffi.NULL

    # What libnghttp2 calls

    def head(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        for name, value in zip(self._fields[::2], self._fields[1::2], strict=True):
            if name == b"grpc-status":
                stream.status = value
            elif name == b"grpc-message":
                stream.said = value
            elif name == b":status" and value != b"200":
                stream.said = b"HTTP " + value

    def closed(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            _ended.append(stream)

    def piece(self, stream_id: int, target: CData, room: int, flags: CData) -> int:
        """Puts the next of a message where libnghttp2 wants it; how much that is."""
        stream = self._streams[stream_id]
        left = len(stream.message) - stream.sent
        size = min(room, left)
        ffi.memmove(target, stream.message + stream.sent, size)
        stream.sent += size
        if size == left:
            flags[0] = nghttp2.DATA_EOF
        return size


_sent = ffi.new("const char **")
#: The calls that ended while what has come was read.
_ended: list[_Stream] = []


@ffi.callback("begin_cb")
def _on_begin_headers() -> int:
    _now._fields = []
    return 0


@ffi.callback("header_cb")
def _on_header(_session: int, _frame: int, name: CData, name_size: int, value: CData, size: int) -> int:
    _now._fields += (unpack(name, name_size), unpack(value, size))
    return 0


@ffi.callback("frame_cb")
def _on_frame(_session: int, frame: CData) -> int:
    if frame.type == nghttp2.HEADERS:
        _now.head(frame.stream_id)
    return 0


@ffi.callback("close_cb")
def _on_close(_session: int, stream_id: int) -> int:
    _now.closed(stream_id)
    return 0


@ffi.callback("read_cb")
def _on_read(_session: int, stream_id: int, target: CData, room: int, flags: CData) -> int:
    return _now.piece(stream_id, target, room, flags)


@functools.lru_cache(maxsize=1)
def _shared() -> tuple[CData, CData, CData]:
    """The library, its callbacks, and where messages come from. Raises nghttp2.NotThere."""
    library, _ = nghttp2.load()
    found = ffi.new("nghttp2_session_callbacks **")
    library.nghttp2_session_callbacks_new(found)
    library.nghttp2_session_callbacks_set_on_begin_headers_callback(found[0], _on_begin_headers)
    library.nghttp2_session_callbacks_set_on_header_callback(found[0], _on_header)
    library.nghttp2_session_callbacks_set_on_frame_recv_callback(found[0], _on_frame)
    library.nghttp2_session_callbacks_set_on_stream_close_callback(found[0], _on_close)
    provider = ffi.new("nghttp2_data_provider *", {"read_callback": _on_read})
    return library, found[0], provider
