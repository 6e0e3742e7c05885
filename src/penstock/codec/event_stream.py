"""AWS's event streams (`application/vnd.amazon.eventstream`), written: what InvokeEndpointWithResponseStream answers with.

A message is its length and that of its headers, a CRC-32 of these two, the headers, the payload, and a CRC-32 of all
before; numbers are big-endian (contract §9.2).
"""

from __future__ import annotations

import struct
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
#: The payload of one event at most.
MAX_PART_BYTES = 64 << 10
_STRING = 7
_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")


def encode_parts(body: bytes) -> bytes:
    """The whole stream of an answer: `body` in PayloadPart events. No event for an empty one."""
    view = memoryview(body)
    return b"".join(_message(_PART_HEADERS, view[at : at + MAX_PART_BYTES]) for at in range(0, len(body), MAX_PART_BYTES))


def _headers(values: dict[str, str]) -> bytes:
    return b"".join(
        struct.pack(f">B{len(name)}sBH", len(name), name.encode(), _STRING, len(value)) + value.encode()
        for name, value in values.items()
    )


_PART_HEADERS = _headers({":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"})


def _message(headers: bytes, payload: bytes | memoryview) -> bytes:
    prelude = _PRELUDE.pack(_PRELUDE.size + len(headers) + len(payload) + 2 * _CRC.size, len(headers))
    start = b"%b%b%b" % (prelude, _CRC.pack(crc32(prelude)), headers)
    return b"".join((start, payload, _CRC.pack(crc32(payload, crc32(start)))))
