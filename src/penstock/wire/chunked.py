"""Chunked bodies, decoded as they arrive.

Guarantees: the same bytes give the same body or the same error however they are cut; what is kept is bounded by `max_bytes`
and the longest line. What a lenient reader might see otherwise (a bare CR or LF, a line that is no field) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.wire.head import HttpError

_MAX_LINE_BYTES = 4096
_MAX_TRAILER_BYTES = 16384
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


class ChunkedBody:
    """Takes bytes until the body is whole. `content` is what has been decoded, `size` bytes, never more than `max_bytes`."""

    __slots__ = ("_announced", "_decoded", "_is_whole", "_left", "_max_bytes", "_step", "_tail", "_trailer_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tail = b""
        self._announced = 0
        self._left = 0
        self._trailer_bytes = 0
        self._is_whole = False
        # Not a bound method: the body would hold itself, and its content, until the garbage collector comes by.
        self._step: _Step = ChunkedBody._size_line
        # One buffer and not a list of chunks: chunks of two bytes would cost twenty times their size.
        self._decoded = bytearray()

    @property
    def content(self) -> bytes:
        return bytes(self._decoded)

    @property
    def size(self) -> int:
        return len(self._decoded)

    def feed(self, data: bytes) -> bytes | None:
        """Takes `data`; what follows the body once it is whole, else None. Raises HttpError."""
        data = self._tail + data
        self._tail = b""
        at = 0
        while not self._is_whole:
            following = self._step(self, data, at)
            if following is None:
                self._tail = data[at:]
                return None
            at = following
        return data[at:]

    def _size_line(self, data: bytes, at: int) -> int | None:
        end = _line_end(data, at)
        if end is None:
            return None
        size = _SIZE.fullmatch(data, at, end)
        if size is None:
            raise HttpError(400, "The line before a chunk is not its size as a hexadecimal number.")
        self._left = int(size[1], 16)
        self._announced += self._left
        if self._announced > self._max_bytes:
            raise HttpError(413, f"The body is larger than the {self._max_bytes} bytes that are allowed.")
        self._step = ChunkedBody._content if self._left else ChunkedBody._trailer
        return end + 2

    def _content(self, data: bytes, at: int) -> int | None:
        if at == len(data):
            return None
        part = data[at : at + self._left]
        self._decoded += part
        self._left -= len(part)
        if not self._left:
            self._step = ChunkedBody._content_end
        return at + len(part)

    def _content_end(self, data: bytes, at: int) -> int | None:
        end = data[at : at + 2]
        if not b"\r\n".startswith(end):
            raise HttpError(400, "A chunk is longer than its size says.")
        if len(end) < 2:
            return None
        self._step = ChunkedBody._size_line
        return at + 2

    def _trailer(self, data: bytes, at: int) -> int | None:
        end = _line_end(data, at)
        if end is None:
            return None
        self._is_whole = end == at
        if not self._is_whole and not _TRAILER.fullmatch(data, at, end):
            raise HttpError(400, "A trailer of the chunked body is not a field.")
        self._trailer_bytes += end - at
        if self._trailer_bytes > _MAX_TRAILER_BYTES:
            raise HttpError(431, "The trailers of the chunked body are too long.")
        return end + 2


_Step = Callable[[ChunkedBody, bytes, int], int | None]


def _line_end(data: bytes, at: int) -> int | None:
    end = data.find(b"\r\n", at, at + _MAX_LINE_BYTES + 2)
    if end < 0 and len(data) - at >= _MAX_LINE_BYTES + 2:
        raise HttpError(400, "A line of the chunked body is too long.")
    return None if end < 0 else end
