"""Chunked bodies, decoded as they arrive."""

from __future__ import annotations

from penstock.wire.head import HttpError

_MAX_LINE_BYTES = 4096
_MAX_TRAILER_BYTES = 16384


class ChunkedBody:
    """Takes bytes until the body is whole. `parts` is what has been decoded, never more than `max_bytes`."""

    __slots__ = ("_left", "_max_bytes", "_state", "_tail", "_trailers", "parts", "size")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tail = b""
        self._left = 0
        self._trailers = 0
        self._state = self._size_line
        self.parts: list[bytes] = []
        self.size = 0

    def feed(self, data: bytes) -> bytes | None:
        """Takes `data`; what follows the body once it is whole, else None. Raises HttpError."""
        data = self._tail + data if self._tail else data
        self._tail = b""
        at = 0
        while True:
            at_next = self._state(data, at)
            if at_next is None:
                self._tail = data[at:] if at else data
                return None
            if at_next < 0:
                return data[-at_next:] if -at_next < len(data) else b""
            at = at_next

    @staticmethod
    def _line(data: bytes, at: int) -> int | None:
        end = data.find(b"\r\n", at)
        if (end < 0 and len(data) - at > _MAX_LINE_BYTES) or end - at > _MAX_LINE_BYTES:
            raise HttpError(400, "A line of the chunked body is too long.")
        return None if end < 0 else end

    def _size_line(self, data: bytes, at: int) -> int | None:
        end = self._line(data, at)
        if end is None:
            return None
        digits = data[at:end].split(b";", 1)[0].strip()
        if not 0 < len(digits) <= 15 or not all(byte in b"0123456789abcdefABCDEF" for byte in digits):
            raise HttpError(400, "The size of a chunk is not a hexadecimal number.")
        self._left = int(digits, 16)
        self.size += self._left
        if self.size > self._max_bytes:
            raise HttpError(413, f"The body is larger than the {self._max_bytes} bytes that are allowed.")
        self._state = self._content if self._left else self._trailer
        return end + 2

    def _content(self, data: bytes, at: int) -> int | None:
        if at >= len(data):
            return None
        part = data[at : at + self._left]
        self.parts.append(part)
        self._left -= len(part)
        if not self._left:
            self._state = self._content_end
        return at + len(part)

    def _content_end(self, data: bytes, at: int) -> int | None:
        if len(data) - at < 2:
            return None
        if data[at : at + 2] != b"\r\n":
            raise HttpError(400, "A chunk is longer than its size says.")
        self._state = self._size_line
        return at + 2

    def _trailer(self, data: bytes, at: int) -> int | None:
        end = self._line(data, at)
        if end is None:
            return None
        self._trailers += end - at
        if self._trailers > _MAX_TRAILER_BYTES:
            raise HttpError(431, "The trailers of the chunked body are too long.")
        return -(end + 2) if end == at else end + 2
