"""The strings of a JSON request as bytes: plain text, or `{"b64": ...}` (contract §1.3)."""

from __future__ import annotations

import binascii
from typing import Any


def bytes_of_text(text: str) -> bytes:
    """The bytes that stood in the body."""
    return text.encode("utf-8", "surrogateescape")


def is_base64_object(value: Any) -> bool:
    """Whether `value` is `{"b64": "<text>"}` and nothing else."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def decode_base64(text: str) -> bytes | None:
    """Standard base64; padding may be missing and white space is ignored, anything else wrong gives None."""
    decoded = _decode_exactly(text)
    return _decode_exactly("".join(text.split())) if decoded is None else decoded


def _decode_exactly(text: str) -> bytes | None:
    bare = text.rstrip("=")
    padding = "=" * (-len(bare) % 4)
    if len(bare) % 4 == 1 or len(text) - len(bare) not in (0, len(padding)):
        return None
    try:
        decoded = binascii.a2b_base64(bare + padding)
    except ValueError:
        return None
    # a2b_base64 skips foreign characters (before Python 3.11 it has no other way), which the length gives away
    return decoded if len(decoded) == len(bare) * 6 // 8 else None
