"""HTTP/2 on an asyncio transport, by libnghttp2: frames, HPACK and flow control are its business, streams are ours.

Guarantees: every request that was handed to the app is answered, or its stream ends; header fields, bodies that are not whole,
streams and control frames are bounded for each connection; a client that makes no progress loses its stream or its connection
(`check_progress`). Nothing that a client sends raises.

libnghttp2 calls back only while it reads or writes, one call of ours at a time: `_now` is the connection whose call that is.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.wire import nghttp2
from penstock.wire.grpc import Buffer
from penstock.wire.grpc_stream import GrpcStream
from penstock.wire.http_stream import HttpStream
from penstock.wire.nghttp2 import CData, ffi, memmove, unpack
from penstock.wire.outflow import Outflow
from penstock.wire.stream import COPIED_BYTES, Stream, StreamHead

if TYPE_CHECKING:
    from penstock.wire.server import HttpServer

#: What a client that knows that we speak HTTP/2 begins with, as far as it looks like a head of HTTP/1.
PREFACE_HEAD = b"PRI * HTTP/2.0\r\n\r\n"
#: Streams of one connection that may be open; a client that wants more waits.
MAX_STREAMS = 1024
#: Flow control: a client may send so much of one body, and of all, before we have taken it in.
_STREAM_WINDOW_BYTES = 4 << 20
_CONNECTION_WINDOW_BYTES = 16 << 20
_MAX_FRAME_BYTES = 1 << 20
_MAX_FIELDS = 128
#: Only fields that are larger than this are counted against the largest head: all that are smaller fit.
_SMALL_FIELD_BYTES = 256
_KEPT_HEADS, _MAX_KEPT_HEAD_BYTES = 1024, 2048
#: Streams that a client may reset: so many at once, and each second. More end the connection.
_RESETS_AT_ONCE, _RESETS_PER_S = 2000, 200
#: Frames of a second that open no stream and bring no data; more end the connection.
_MAX_CONTROL_FRAMES = 2000
#: Input that is of no stream that is open: what a client may still send of bodies that were refused, and floods.
_MAX_STALLED_BYTES = _CONNECTION_WINDOW_BYTES + _MAX_FRAME_BYTES
#: Unsent output is kept where it is, up to this much in one write.
_WRITE_BYTES = 4 << 20
log = logging.getLogger("penstock.wire")
_now: Http2Connection
#: What has come, until libnghttp2 has looked at it: of one connection at a time.
_scratch = bytearray(256 << 10)
_scratch_start = ffi.from_buffer("char[]", _scratch)


class Http2Connection(asyncio.BufferedProtocol):
    """One connection; it takes the place of an `HttpConnection` whose client began with HTTP/2's preface."""

    __slots__ = (
        "_closes",
        "_control_frames",
        "_early",
        "_is_flushing",
        "_is_writable",
        "_out",
        "_outflow",
        "_provider",
        "_stalled_bytes",
        "_transport",
        "fields",
        "is_whole_frame",
        "last_progress",
        "library",
        "loop",
        "server",
        "session",
        "streams",
        "unfinished_bytes",
    )

    def __init__(self, server: HttpServer, transport: asyncio.Transport) -> None:
        self.server = server
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = transport
        self.library, callbacks, option, self._provider = _shared()
        session = ffi.new("nghttp2_session **")
        if self.library.nghttp2_session_server_new2(session, callbacks, ffi.NULL, option):
            raise MemoryError("no memory for an HTTP/2 session")
        self.session: CData = session[0]
        self.streams: dict[int, Stream] = {}
        self.fields: list[bytes] = []
        self._out: list[Buffer] = []
        self._early: list[Stream] = []
        self.unfinished_bytes = 0
        self._stalled_bytes = self._control_frames = 0
        self.is_whole_frame = False
        self._is_flushing = self._closes = False
        self._is_writable = True
        self._outflow = Outflow()
        self.last_progress = time.monotonic()
        settings = ffi.new(
            "nghttp2_settings_entry[]",
            [
                (nghttp2.SETTINGS_MAX_CONCURRENT_STREAMS, MAX_STREAMS),
                (nghttp2.SETTINGS_INITIAL_WINDOW_SIZE, _STREAM_WINDOW_BYTES),
                (nghttp2.SETTINGS_MAX_FRAME_SIZE, _MAX_FRAME_BYTES),
                (nghttp2.SETTINGS_MAX_HEADER_LIST_SIZE, server.limits.max_head_bytes),
            ],
        )
        self.library.nghttp2_submit_settings(self.session, 0, settings, len(settings))
        self.library.nghttp2_session_set_local_window_size(self.session, 0, 0, _CONNECTION_WINDOW_BYTES)
        if server.is_draining:
            self.end_if_idle()

    # What the transport calls

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.server.connections.discard(self)
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.closed()
        self.library.nghttp2_session_del(self.session)
        self.session = ffi.NULL

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """A client that takes nothing is not read from either: its questions would wait here as answers."""
        self._is_writable = False
        if self._transport is not None:
            self._transport.pause_reading()
            self._outflow.begin(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._is_writable = True
        if self._transport is not None:
            self._transport.resume_reading()
        self.last_progress = time.monotonic()
        self.flush_soon()

    def get_buffer(self, sizehint: int) -> bytearray:
        return _scratch

    def buffer_updated(self, nbytes: int) -> None:
        touched = self.server.touched
        if touched is not None:
            touched()
        self._take(_scratch_start, nbytes)

    def data_received(self, data: bytes) -> None:
        """Takes bytes that have come, wherever they were cut."""
        self._take(data, len(data))

    def _take(self, data: CData | bytes, size: int) -> None:
        global _now
        if not self.session or self._transport is None:
            return
        _now = self
        self.last_progress = time.monotonic()
        self.is_whole_frame = False
        self._is_flushing = True  # below, once for all that is answered at once
        taken = self.library.nghttp2_session_mem_recv(self.session, data, size)
        if taken < 0:
            self._give_up()
            return
        self._stalled_bytes = 0 if self.is_whole_frame else self._stalled_bytes + size
        if self._control_frames > _MAX_CONTROL_FRAMES or self._stalled_bytes > _MAX_STALLED_BYTES:
            self.library.nghttp2_session_terminate_session(self.session, nghttp2.ENHANCE_YOUR_CALM)
        self._flush()

    def _give_up(self) -> None:
        """After an error that libnghttp2 cannot go on from: what it has to say about it, then the end."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    # Answers

    def submit(self, stream: Stream, fields: CData, count: int, *, has_body: bool) -> None:
        """The head of an answer. Its body is taken from the stream as the client takes it."""
        provider = self._provider if has_body else ffi.NULL
        self.library.nghttp2_submit_response(self.session, stream.id, fields, count, provider)
        if not stream.is_whole:
            self._early.append(stream)
        self.flush_soon()

    def submit_trailer(self, stream: Stream, fields: CData, count: int) -> None:
        self.library.nghttp2_submit_trailer(self.session, stream.id, fields, count)

    def released(self, stream: Stream, size: int) -> None:
        """A stream that took no more does again: the client may send the `size` bytes that were held back."""
        self.library.nghttp2_session_consume_stream(self.session, stream.id, size)
        self.flush_soon()

    def resume(self, stream: Stream) -> None:
        """There is more to send on a stream whose data had run out."""
        self.library.nghttp2_session_resume_data(self.session, stream.id)
        self.flush_soon()

    def reset(self, stream: Stream, code: int) -> None:
        """Ends a stream in both directions."""
        self.library.nghttp2_submit_rst_stream(self.session, 0, stream.id, code)
        self.flush_soon()

    def flush_soon(self) -> None:
        """What was submitted in a tick leaves at its end."""
        if not self._is_flushing:
            self._is_flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        global _now
        self._is_flushing = False
        transport = self._transport
        if transport is None or not self._is_writable:
            return
        _now = self
        out, send, session = self._out, self.library.nghttp2_session_mem_send, self.session
        while True:
            size = 0
            while size < _WRITE_BYTES:
                length = send(session, _sent)
                if length <= 0:
                    break
                out.append(unpack(_sent[0], length))
                size += length
            if not out:
                break
            self.last_progress = time.monotonic()
            if len(out) == 1:
                transport.write(out[0])
            elif sum(map(len, out)) <= COPIED_BYTES * 8:
                transport.write(b"".join(out))
            else:
                transport.writelines(out)
            out = self._out = []
            if length <= 0 or not self._is_writable:
                break
        if self._early and length <= 0:
            self._reset_early()
        if (self._closes and not self.streams) or not self._wants_more():
            transport.close()

    def _reset_early(self) -> None:
        """Streams that are answered, all of it sent, before the client has sent all: it need not go on."""
        early, self._early = self._early, []
        for stream in early:
            if self.streams.get(stream.id) is not stream or stream.is_whole:
                continue
            if stream.has_ended and not stream.unsent_bytes:
                self.reset(stream, nghttp2.NO_ERROR)
            else:
                self._early.append(stream)

    def _wants_more(self) -> bool:
        library, session = self.library, self.session
        return bool(library.nghttp2_session_want_read(session) or library.nghttp2_session_want_write(session))

    # What libnghttp2 calls, while it reads

    def head_received(self, stream_id: int, ends: bool) -> None:
        """A whole head: of a request, or its trailers."""
        fields, self.fields = self.fields, []
        stream = self.streams.get(stream_id)
        if stream is None:
            head = self._head_of(fields)
            stream = self.streams[stream_id] = (GrpcStream if head.is_grpc else HttpStream)(self, stream_id)
            stream.begin(head)
        if ends:
            stream.received_all()

    def _head_of(self, fields: list[bytes]) -> StreamHead:
        """What names and values, by turns, say; remembered, within a bound."""
        key = tuple(fields)
        known = self.server.stream_heads
        head = known.get(key)
        if head is None:
            head = StreamHead(_by_name(fields), self.server.methods)
            if sum(map(len, fields)) <= _MAX_KEPT_HEAD_BYTES:
                if len(known) >= _KEPT_HEADS:
                    known.clear()
                known[key] = head
        return head

    def is_too_much(self, size: int) -> bool:
        """Whether a head becomes too large by a field of `size` bytes, which is not small. (HPACK makes large ones of little.)"""
        return sum(map(len, self.fields)) + size > self.server.limits.max_head_bytes

    def count_control_frame(self) -> None:
        self._control_frames += 1

    # Time

    def check_progress(self, now: float) -> None:
        """Ends what the client has kept waiting too long."""
        transport = self._transport
        if transport is None:
            return
        self._control_frames = 0
        limits = self.server.limits
        since = now - self.last_progress
        if transport.is_closing() or not self._is_writable:
            if self._outflow.moves(transport.get_write_buffer_size(), since, limits.min_bytes_per_s):
                self.last_progress = now
            elif since > limits.progress_timeout_s:
                transport.abort()
            return
        for stream in list(self.streams.values()):
            stream.check_progress(now)
        if not self.streams and since > limits.idle_timeout_s:
            self.end_if_idle()

    @property
    def is_done(self) -> bool:
        """Whether the connection is being closed, with all sent."""
        transport = self._transport
        return transport is None or (transport.is_closing() and not transport.get_write_buffer_size())

    def end_if_idle(self) -> None:
        """Takes no further stream, and closes when those that are open have ended."""
        if self._transport is None or self._closes:
            return
        self._closes = True
        last = self.library.nghttp2_session_get_last_proc_stream_id(self.session)
        self.library.nghttp2_submit_goaway(self.session, 0, last, nghttp2.NO_ERROR, ffi.NULL, 0)
        self.flush_soon()


def _by_name(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    """Fields by name; the values of those that come more than once are joined by commas."""
    head: dict[bytes, bytes] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        before = head.get(name)
        head[name] = value if before is None else before + (b"; " if name == b"cookie" else b", ") + value
    return head


_sent = ffi.new("const char **")


@ffi.callback("begin_cb")
def _on_begin_headers() -> int:
    _now.fields = []
    return 0


@ffi.callback("header_cb")
def _on_header(_session: int, _frame: int, name: CData, name_size: int, value: CData, size: int) -> int:
    fields = _now.fields
    if len(fields) >= 2 * _MAX_FIELDS or (name_size + size > _SMALL_FIELD_BYTES and _now.is_too_much(name_size + size)):
        return nghttp2.ERR_TEMPORAL_CALLBACK_FAILURE
    fields.append(unpack(name, name_size))
    fields.append(unpack(value, size))
    return 0


@ffi.callback("frame_cb")
def _on_frame(_session: int, frame: CData) -> int:
    connection = _now
    connection.is_whole_frame = True
    kind, stream_id = frame.type, frame.stream_id
    try:
        if kind == nghttp2.HEADERS:
            connection.head_received(stream_id, bool(frame.flags & nghttp2.FLAG_END_STREAM))
        elif kind == nghttp2.DATA and frame.flags & nghttp2.FLAG_END_STREAM:
            stream = connection.streams.get(stream_id)
            if stream is not None:
                stream.received_all()
        elif kind in nghttp2.CONTROL or (kind == nghttp2.DATA and not frame.length):
            connection.count_control_frame()
    except Exception:
        _failed(connection, stream_id)
    return 0


@ffi.callback("chunk_cb")
def _on_chunk(_session: int, _flags: int, stream_id: int, data: CData, size: int) -> int:
    connection = _now
    connection.is_whole_frame = True
    stream = connection.streams.get(stream_id)
    if stream is not None:
        try:
            stream.received(data, size)
        except Exception:
            _failed(connection, stream_id)
    if stream is None or stream.takes_more:
        connection.library.nghttp2_session_consume(connection.session, stream_id, size)
    else:
        stream.hold(size)
        connection.library.nghttp2_session_consume_connection(connection.session, size)
    return 0


@ffi.callback("close_cb")
def _on_close(_session: int, stream_id: int) -> int:
    stream = _now.streams.pop(stream_id, None)
    if stream is not None:
        try:
            stream.closed()
        except Exception:
            log.exception("a stream could not be ended")
    return 0


@ffi.callback("read_cb")
def _on_read(_session: int, stream_id: int, target: CData, room: int, flags: CData) -> int:
    stream = _now.streams.get(stream_id)
    if stream is None:
        return nghttp2.ERR_TEMPORAL_CALLBACK_FAILURE
    if not stream.unsent_bytes and not stream.has_ended:
        return nghttp2.ERR_DEFERRED
    size = min(room, stream.unsent_bytes)
    if size == stream.unsent_bytes and size <= COPIED_BYTES:
        memmove(target, stream.take_all(), size)
        flags[0] = 0
    else:
        flags[0] = nghttp2.DATA_NO_COPY
    if stream.has_ended and size == stream.unsent_bytes + (0 if flags[0] else size):
        flags[0] |= nghttp2.DATA_EOF
        if stream.trailers is not None:
            flags[0] |= nghttp2.DATA_NO_END_STREAM
            stream.send_trailers()
    return size


@ffi.callback("send_data_cb")
def _on_send_data(_session: int, frame: CData, head: CData, size: int) -> int:
    connection = _now
    out = connection._out
    out.append(unpack(head, 9))
    stream = connection.streams.get(frame.stream_id)
    if stream is not None:
        out.extend(stream.take(size))
    return 0


def _failed(connection: Http2Connection, stream_id: int) -> None:
    log.exception("a stream failed inside")
    stream = connection.streams.get(stream_id)
    if stream is not None:
        connection.reset(stream, nghttp2.INTERNAL_ERROR)


@functools.lru_cache(maxsize=1)
def _shared() -> tuple[CData, CData, CData, CData]:
    """What all connections of a process share: the library, its callbacks and options, and where bodies come from.

    Raises nghttp2.NotThere.
    """
    library, _ = nghttp2.load()
    found = ffi.new("nghttp2_session_callbacks **")
    library.nghttp2_session_callbacks_new(found)
    callbacks = found[0]
    library.nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, _on_begin_headers)
    library.nghttp2_session_callbacks_set_on_header_callback(callbacks, _on_header)
    library.nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, _on_frame)
    library.nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, _on_chunk)
    library.nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, _on_close)
    library.nghttp2_session_callbacks_set_send_data_callback(callbacks, _on_send_data)
    options = ffi.new("nghttp2_option **")
    library.nghttp2_option_new(options)
    for name, values in (
        ("no_closed_streams", (1,)),
        ("no_auto_window_update", (1,)),
        ("stream_reset_rate_limit", (_RESETS_AT_ONCE, _RESETS_PER_S)),
    ):
        try:
            set_option = getattr(library, f"nghttp2_option_set_{name}")
        except AttributeError:  # an older library
            continue
        set_option(options[0], *values)
    provider = ffi.new("nghttp2_data_provider *", {"read_callback": _on_read})
    return library, callbacks, options[0], provider


def is_there() -> bool:
    """Whether this machine has libnghttp2."""
    try:
        _shared()
    except nghttp2.NotThere:
        return False
    return True
