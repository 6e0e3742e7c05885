"""A client of HTTP/2 that writes its frames by hand, for what no real client would send.

Assumes libnghttp2, which reads the header fields of answers.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

import cffi

from penstock.wire import nghttp2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, ACK = 1, 4, 8, 1
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
ECHO = "/test.Test/Echo"
_FINAL, _EMIT = 1, 2


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error(self) -> int:
        """The code of a GOAWAY or RST_STREAM."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload, "big")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *value) for value in values))


def reset(stream: int, code: int = nghttp2.CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))


def _integer(value: int, bits: int, first: int) -> bytes:
    """A number as HPACK writes it."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((first | value,))
    out = bytearray((first | limit,))
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


def literal(name: bytes, value: bytes, *, is_kept: bool = False) -> bytes:
    """A field without Huffman; `is_kept` puts it into the table, where it is number 62 then."""
    head = b"\x40" if is_kept else b"\x00"
    return head + _integer(len(name), 7, 0) + name + _integer(len(value), 7, 0) + value


def request_fields(path: str = ECHO, extra: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    pairs = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"here"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *extra,
    ]
    return b"".join(literal(*pair) for pair in pairs)


def head(stream: int, path: str = ECHO, extra: Iterable[tuple[bytes, bytes]] = (), flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, request_fields(path, extra))


def message(body: bytes, is_compressed: int = 0) -> bytes:
    return bytes((is_compressed,)) + struct.pack(">I", len(body)) + body


def call(stream: int, body: bytes = b"x", path: str = ECHO, extra: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A whole unary call; small ones only."""
    return head(stream, path, extra) + frame(DATA, END_STREAM, stream, message(body))


class Peer:
    """A connection whose preface is sent. Reading acknowledges nothing by itself."""

    def __init__(self, port: int, *values: tuple[int, int], timeout_s: float = 10.0, has_preface: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fields = _Fields()
        self._rest = b""
        if has_preface:
            self.socket.sendall(PREFACE + settings(*values))

    def settle(self) -> None:
        """Takes over the server's settings; before that it expects the protocol's defaults of us."""
        self.wait_for(SETTINGS)
        self.send(frame(SETTINGS, ACK, 0))

    def send(self, *frames: bytes) -> bool:
        """False when the server has closed the connection."""
        try:
            self.socket.sendall(b"".join(frames))
        except (ConnectionError, TimeoutError):
            return False
        return True

    def flood(self, data: bytes, times: int) -> bool:
        """Sends the same again and again, without reading what comes; False when the server has had enough of it."""
        per_piece = max(1, (1 << 16) // len(data))
        return all(self.send(data * min(per_piece, times - sent)) for sent in range(0, times, per_piece))

    def frames(self) -> Iterator[Frame]:
        """What the server sends, until it closes the connection. Raises TimeoutError when nothing comes."""
        while True:
            while len(self._rest) >= 9 and len(self._rest) >= 9 + int.from_bytes(self._rest[:3], "big"):
                size = int.from_bytes(self._rest[:3], "big")
                kind, flags, stream = self._rest[3], self._rest[4], int.from_bytes(self._rest[5:9], "big")
                payload, self._rest = self._rest[9 : 9 + size], self._rest[9 + size :]
                yield Frame(kind, flags, stream, payload)
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionError:
                return
            if not data:
                return
            self._rest += data

    def wait_for(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame of a kind; the header fields of others are read, as their order matters."""
        for one in self.frames():
            if one.kind == kind and (stream is None or one.stream == stream):
                return one
            if one.kind == HEADERS:
                self._fields.read(one.payload)
        raise AssertionError(f"the server has closed the connection without a frame of kind {kind}")

    def fields(self, stream: int) -> dict[bytes, bytes]:
        """The header fields of an answer, up to its end."""
        found: dict[bytes, bytes] = {}
        for one in self.frames():
            if one.kind == HEADERS:
                fields = self._fields.read(one.payload)
                if one.stream == stream:
                    found.update(fields)
                    if one.flags & END_STREAM:
                        return found
            elif one.kind == RST_STREAM and one.stream == stream:
                raise AssertionError(f"the stream was reset with {one.error}; before: {found}")
        raise AssertionError(f"the server has closed the connection; before: {found}")

    def end(self, timeout_s: float = 10.0) -> Frame | None:
        """Waits until the server closes the connection; its GOAWAY, if it has sent one that says why."""
        until = time.monotonic() + timeout_s
        goodbye = None
        for one in self.frames():
            if one.kind == GOAWAY:
                goodbye = one
            assert time.monotonic() < until, "the connection is open still"
        return goodbye

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


_ffi = cffi.FFI()
_ffi.include(nghttp2.ffi)
_ffi.cdef(
    """
    typedef struct nghttp2_hd_inflater nghttp2_hd_inflater;
    int nghttp2_hd_inflate_new(nghttp2_hd_inflater **);
    void nghttp2_hd_inflate_del(nghttp2_hd_inflater *);
    int nghttp2_hd_inflate_end_headers(nghttp2_hd_inflater *);
    ptrdiff_t nghttp2_hd_inflate_hd2(nghttp2_hd_inflater *, nghttp2_nv *, int *, const uint8_t *, size_t, int);
    """
)


class _Fields:
    """Reads header fields, in the order in which they come on a connection."""

    def __init__(self) -> None:
        library = cast(Any, _ffi.dlopen("libnghttp2.so.14"))
        inflater = _ffi.new("nghttp2_hd_inflater **")
        library.nghttp2_hd_inflate_new(inflater)
        self._inflater = _ffi.gc(inflater[0], library.nghttp2_hd_inflate_del)
        self._library = library

    def read(self, block: bytes) -> dict[bytes, bytes]:
        """The fields of a whole head without padding."""
        field: Any = _ffi.new("nghttp2_nv *")
        flags: Any = _ffi.new("int *")
        data: Any = _ffi.from_buffer("uint8_t[]", block)
        found: dict[bytes, bytes] = {}
        at = 0
        while True:
            size = self._library.nghttp2_hd_inflate_hd2(self._inflater, field, flags, data + at, len(block) - at, 1)
            assert size >= 0, f"the head cannot be read: {size}"
            at += size
            if flags[0] & _EMIT:
                name, value = _ffi.buffer(field.name, field.namelen)[:], _ffi.buffer(field.value, field.valuelen)[:]
                found[name] = value
            if flags[0] & _FINAL:
                self._library.nghttp2_hd_inflate_end_headers(self._inflater)
                return found


@contextmanager
def peers(port: int, count: int) -> Iterator[list[Peer]]:
    """So many connections."""
    opened: list[Peer] = []
    try:
        opened.extend(Peer(port) for _ in range(count))
        yield opened
    finally:
        for one in opened:
            one.close()
