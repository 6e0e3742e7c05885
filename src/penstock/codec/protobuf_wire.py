"""Protobuf's wire format, read and written without message objects.

Guarantees: nothing outside the given span is read; costs are linear in its length; what protobuf's own parser refuses as
malformed is refused here with InvalidArgument, and nothing else is raised. What a message means beyond its fields is its codec's:
of a singular number or text the last one counts, the spans of a singular message behind one another are the merged message, and
a field whose tag nobody expects is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import InvalidArgument

Buffer = bytes | bytearray | memoryview

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_GROUP, _END_GROUP = 3, 4
#: Protobuf's own bounds.
_MAX_GROUP_DEPTH = 100
_MAX_LENGTH = (1 << 31) - 1
_MAX_TAG = (1 << 32) - 1
_SHORT_VARINT, _LONG_VARINT = 5, 10
_MASK = (1 << 64) - 1
_WIDTHS = {FIXED32: 4, FIXED64: 8}
#: Packed numbers are worked on in pieces, since the work takes many times their memory.
_PIECE_BYTES = 1 << 18
_SMALL_BYTES = 4096
_SMALL_COUNT = 64
#: Fields of one message, for those that need no more: half a second of work.
MAX_FIELDS = 1 << 20


def tag_of(number: int, wire_type: int) -> int:
    """What comes before a field's value."""
    return number << 3 | wire_type


def fields(data: Buffer, start: int = 0, end: int | None = None, most: int = MAX_FIELDS) -> Iterator[tuple[int, int, int]]:
    """The fields of the message in `data[start:end]`, in their order: (tag, value, 0) for varints, else (tag, start, end).

    Groups are checked and passed over. Raises InvalidArgument where it is malformed, or has more than `most` fields.
    """
    limit = len(data) if end is None else end
    position = start
    for _ in range(most + 1):
        if position >= limit:
            return
        tag = data[position]
        position += 1
        if tag >= 0x80:
            tag, position = _short(data, position - 1, limit, _MAX_TAG)
        if tag < 8:
            raise malformed("field number 0")
        kind = tag & 7
        if kind == LENGTH:
            if position >= limit:
                raise malformed("it is cut off")
            length = data[position]
            position += 1
            if length >= 0x80:
                length, position = _short(data, position - 1, limit, _MAX_LENGTH)
            first = position
            position += length
            if position > limit:
                raise malformed("a length goes beyond its end")
            yield tag, first, position
        elif kind == VARINT:
            value, position = varint(data, position, limit)
            yield tag, value, 0
        elif kind in _WIDTHS:
            first = position
            position += _WIDTHS[kind]
            if position > limit:
                raise malformed("it is cut off")
            yield tag, first, position
        else:
            position = _after_group(data, position, limit, tag)
    raise InvalidArgument(f"The message has more than {most} fields.")


def varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """The unsigned number of up to 64 bits that begins at `position`, and where it ends. Raises InvalidArgument."""
    value = shift = 0
    for place in range(position, min(end, position + _LONG_VARINT)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, place + 1
        shift += 7
    raise malformed("a number has no end")


def signed(value: int) -> int:
    """A varint as protobuf's int64."""
    return value - (1 << 64) if value >> 63 else value


def signed32(value: int) -> int:
    """A varint as protobuf's int32 or enum: the lower half counts."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def text(data: Buffer, start: int, end: int) -> str:
    """A string field. Raises InvalidArgument where it is not UTF-8."""
    try:
        return str(data[start:end], "utf-8")
    except UnicodeDecodeError:
        raise malformed("a string is not UTF-8") from None


def varints(data: Buffer, start: int, end: int, dtype: npt.DTypeLike = np.uint64) -> npt.NDArray[Any]:
    """The numbers of a packed field as `dtype`, cut to its width as C does it. Raises InvalidArgument where one has no end."""
    if end - start <= _SMALL_BYTES:  # most are; two microseconds less
        small = bytes(data[start:end])
        if small.isascii():
            return np.frombuffer(small, np.uint8).astype(dtype)
    raw = np.frombuffer(data, np.uint8, end - start, start)
    if raw.max() < 0x80:
        return raw.astype(dtype)
    if raw[-1] >= 0x80:
        raise malformed("a number has no end")
    values = np.empty(np.count_nonzero(raw < 0x80), dtype)
    filled = taken = 0
    while taken < raw.size:
        piece, size = _piece(raw[taken : taken + _PIECE_BYTES])
        values[filled : filled + piece.size] = piece.astype(dtype)
        filled += piece.size
        taken += size
    return values


def _piece(raw: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint64], int]:
    """The numbers that end in `raw`, and how many bytes they are."""
    lasts = np.flatnonzero(raw < 0x80)
    if not lasts.size:
        raise malformed("a number has no end")
    firsts = np.empty_like(lasts)
    firsts[0] = 0
    np.add(lasts[:-1], 1, out=firsts[1:])
    widest = int((lasts - firsts).max()) + 1
    if widest > _LONG_VARINT:
        raise malformed("a number has no end")
    values = (raw[firsts] & 0x7F).astype(np.uint64)
    longer = np.flatnonzero(lasts > firsts)
    for place in range(1, widest):
        values[longer] |= (raw[firsts[longer] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
        longer = longer[lasts[longer] > firsts[longer] + place]
    return values, int(lasts[-1]) + 1


def encode_varint(value: int) -> bytes:
    """A number; a negative one in the ten bytes that int32 and int64 have for it."""
    value &= _MASK
    if value < 0x80:
        return value.to_bytes(1, "little")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_head(number: int, length: int) -> bytes:
    """What comes before the `length` bytes of a string, a message or packed numbers."""
    return encode_varint(number << 3 | LENGTH) + encode_varint(length)


def encode_bytes(number: int, value: bytes) -> bytes:
    """A string, bytes or message field."""
    return encode_head(number, len(value)) + value


def encode_number(number: int, value: int) -> bytes:
    """A varint field."""
    return encode_varint(number << 3 | VARINT) + encode_varint(value)


def encode_varints(values: npt.NDArray[Any]) -> bytes:
    """The numbers of a packed field, without its head: integers or bools of any width; negative ones take ten bytes."""
    flat = values.reshape(-1)
    if flat.dtype.kind not in "biu":  # four bits
        flat = flat.astype(np.int64)
    if flat.size <= _SMALL_COUNT:
        return b"".join(map(encode_varint, flat.tolist()))
    count = _PIECE_BYTES // _LONG_VARINT
    return b"".join([_encode_piece(flat[first : first + count]) for first in range(0, flat.size, count)])


def _encode_piece(values: npt.NDArray[Any]) -> bytes:
    wide = values.astype(np.int64).view(np.uint64) if values.dtype.kind == "i" else values.astype(np.uint64)
    most = int(wide.max())
    if most < 0x80:
        return wide.astype(np.uint8).tobytes()
    shifts = np.arange(0, -(-most.bit_length() // 7) * 7, 7, dtype=np.uint64)
    groups = wide[:, None] >> shifts
    is_there = groups != 0
    is_there[:, 0] = True
    groups &= np.uint64(0x7F)
    groups[:, :-1] |= np.where(is_there[:, 1:], np.uint64(0x80), np.uint64(0))
    encoded: bytes = groups[is_there].astype(np.uint8).tobytes()
    return encoded


def malformed(reason: str) -> InvalidArgument:
    """The error for bytes that are no message."""
    return InvalidArgument(f"The message is malformed: {reason}.")


def _short(data: Buffer, position: int, end: int, most: int) -> tuple[int, int]:
    """A tag or a length, which have five bytes at most."""
    value, after = varint(data, position, min(end, position + _SHORT_VARINT))
    if value > most:
        raise malformed("a tag or a length is too large")
    return value, after


def _after_group(data: Buffer, position: int, end: int, tag: int) -> int:
    """Where the group that `tag` begins is over."""
    if tag & 7 != _GROUP:
        raise malformed("an end without a group, or an unknown wire type")
    opened = [tag]
    while opened:
        tag, position = _short(data, position, end, _MAX_TAG)
        kind = tag & 7
        if tag < 8:
            raise malformed("field number 0")
        if kind == _GROUP:
            opened.append(tag)
            if len(opened) > _MAX_GROUP_DEPTH:
                raise malformed("groups are nested too deeply")
        elif kind == _END_GROUP:
            if tag != opened.pop() + 1:
                raise malformed("a group has the end of another")
        elif kind == VARINT:
            _, position = varint(data, position, end)
        else:
            position = _after_value(data, position, end, kind)
    return position


def _after_value(data: Buffer, position: int, end: int, kind: int) -> int:
    if kind == LENGTH:
        length, position = _short(data, position, end, _MAX_LENGTH)
        position += length
    elif kind in _WIDTHS:
        position += _WIDTHS[kind]
    else:
        raise malformed("an unknown wire type")
    if position > end:
        raise malformed("it is cut off")
    return position
