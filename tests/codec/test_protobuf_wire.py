"""The wire format: what protobuf itself reads and writes, and bytes that are no message."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec.protobuf_wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    encode_bytes,
    encode_head,
    encode_number,
    encode_varint,
    encode_varints,
    fields,
    signed,
    signed32,
    tag_of,
    text,
    varint,
    varints,
)
from penstock.codec.protos import message_class
from penstock.errors import InvalidArgument, PenstockError

Empty = message_class("tensorflow.SerializedDType")
Int64List = message_class("tensorflow.Int64List")
_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
_GROUP, _END = bytes([1 << 3 | 3]), bytes([1 << 3 | 4])


def test_fields_come_in_their_order_with_their_places() -> None:
    message = encode_number(1, 300) + encode_bytes(2, b"ab") + bytes([3 << 3 | FIXED32]) + b"1234" + bytes([4 << 3 | FIXED64])
    message += b"12345678"
    assert list(fields(message)) == [
        (tag_of(1, VARINT), 300, 0),
        (tag_of(2, LENGTH), 5, 7),
        (tag_of(3, FIXED32), 8, 12),
        (tag_of(4, FIXED64), 13, 21),
    ]
    assert list(fields(memoryview(message), 3, 7)) == [(tag_of(2, LENGTH), 5, 7)]


@pytest.mark.parametrize(
    "message",
    [
        b"\x08",  # no value
        b"\x08\x80",  # a number that goes on
        b"\x08" + b"\xff" * 10 + b"\x01",  # and on
        b"\x00\x00",  # field number 0
        b"\x12\x05ab",  # a length beyond the end
        b"\x12",  # no length
        b"\x12\xff\xff\xff\xff\x0f",  # a length of 32 bits
        b"\x0d123",  # half a fixed32
        b"\x091234567",  # half a fixed64
        b"\x0e",  # wire type 6
        b"\x0f",  # wire type 7
        _END,  # the end of no group
        _GROUP,  # a group without an end
        _GROUP + bytes([2 << 3 | 4]),  # with the end of another
        _GROUP * 101 + _END * 101,  # too deep
        _GROUP + b"\x12\x05ab" + _END,
        b"\xff\xff\xff\xff\x7f\x00",  # a tag of more than 32 bits
    ],
)
def test_what_protobuf_refuses_is_refused(message: bytes) -> None:
    with pytest.raises(DecodeError):
        Empty.FromString(message)
    with pytest.raises(InvalidArgument, match="The message is malformed"):
        list(fields(message))


def test_groups_are_passed_over() -> None:
    group = _GROUP + encode_number(9, 1) + b"\x0d1234" + b"\x0912345678" + encode_bytes(2, b"x") + _GROUP + _END + _END
    assert list(fields(group + encode_number(2, 5))) == [(tag_of(2, VARINT), 5, 0)]


def test_there_is_a_bound_for_the_number_of_fields() -> None:
    assert len(list(fields(b"\x08\x01" * 5, most=5))) == 5
    with pytest.raises(InvalidArgument, match="more than 5 fields"):
        list(fields(b"\x08\x01" * 6, most=5))


@given(st.binary(max_size=64))
def test_any_bytes_are_read_exactly_where_protobuf_reads_them(data: bytes) -> None:
    try:
        Empty.FromString(data)
    except DecodeError:
        with pytest.raises(PenstockError):
            list(fields(data))
    else:
        list(fields(data))


@given(_INT64)
def test_numbers_are_written_as_protobuf_writes_them(value: int) -> None:
    encoded = encode_varint(value)
    assert signed(varint(encoded, 0, len(encoded))[0]) == value
    assert encode_bytes(1, encoded) == Int64List(value=[value]).SerializeToString()
    assert signed32(value & 0xFFFFFFFF) == int(np.uint64(value & (1 << 64) - 1).astype(np.int32))


@given(st.lists(st.one_of(_INT64, st.integers(0, 200)), max_size=200))
def test_packed_numbers_are_read_and_written_as_by_protobuf(values: list[int]) -> None:
    array = np.array(values, np.int64)
    encoded = encode_varints(array)
    message = Int64List(value=values).SerializeToString()
    assert (encode_head(1, len(encoded)) + encoded if values else b"") == message
    assert varints(b"?" + encoded + b"?", 1, 1 + len(encoded), np.int64).tolist() == values
    assert varints(encoded, 0, len(encoded)).tolist() == [value & (1 << 64) - 1 for value in values]


@pytest.mark.parametrize("data", [b"\x80", b"\x01\x80", b"\x80" * 10 + b"\x01", b"\x01" * 5000 + b"\x80"])
def test_packed_numbers_without_an_end_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="a number has no end"):
        varints(data, 0, len(data))


def test_many_packed_numbers_are_read_and_written_in_pieces() -> None:
    values = np.arange(300_000, dtype=np.int64) * 7919
    values[::1000] *= -1
    encoded = encode_varints(values)
    assert np.array_equal(varints(encoded, 0, len(encoded), np.int64), values)
    without_end = bytes([0x80]) * (1 << 20)
    with pytest.raises(InvalidArgument):
        varints(without_end + b"\x01", 0, len(without_end) + 1)


def test_text_has_to_be_utf_8() -> None:
    assert text(memoryview("für".encode()), 0, 4) == "für"
    with pytest.raises(InvalidArgument, match="not UTF-8"):
        text(b"\xff", 0, 1)
