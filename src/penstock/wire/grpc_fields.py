"""gRPC's header fields: time-outs, metadata, the text of an error."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from penstock.errors import InvalidArgument

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_NS = {b"H": 3600 * 10**9, b"M": 60 * 10**9, b"S": 10**9, b"m": 10**6, b"u": 10**3, b"n": 1}
#: What the text of an error may have as it is: printable ASCII without the percent sign.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_BINARY = b"-bin"
#: A year. Eight digits of hours are eleven thousand, in nanoseconds more than 64 bits hold.
_LONGEST_NS = 365 * 24 * 3600 * 10**9


def parse_timeout(value: bytes) -> int:
    """The nanoseconds of a `grpc-timeout`, a year at most. Raises InvalidArgument."""
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        text = value[:20].decode("latin-1")
        raise InvalidArgument(f"grpc-timeout {text!r}: expected up to 8 digits and one of H, M, S, m, u, n.")
    return min(int(found[1]) * _UNIT_NS[found[2]], _LONGEST_NS)


def percent_encoded(text: str) -> bytes:
    """An error's text as `grpc-message` has it."""
    return quote(text, safe=_PLAIN, errors="replace").encode("ascii")


def metadata_of(head: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """A head's fields, the values of binary ones decoded. Raises InvalidArgument."""
    binary = [name for name in head if name.endswith(_BINARY)]
    if not binary:
        return head
    return {name: _decoded(name, value) if name in binary else value for name, value in head.items()}


def _decoded(name: bytes, value: bytes) -> bytes:
    try:
        parts = [base64.b64decode(part.strip() + b"=" * (-len(part.strip()) % 4), validate=True) for part in value.split(b",")]
    except binascii.Error:
        raise InvalidArgument(f"The metadata {name.decode('latin-1')} is not base64.") from None
    return b",".join(parts)


def trailing_fields(fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Metadata as it is sent: binary values in base64."""
    return [(name, base64.b64encode(value).rstrip(b"=") if name.endswith(_BINARY) else value) for name, value in fields]
