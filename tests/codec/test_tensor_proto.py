"""TensorProtos: what TensorFlow reads and writes, and messages that lie about themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec.protobuf_wire import encode_bytes, encode_number, encode_varint
from penstock.codec.protos import message_class
from penstock.codec.tensor_proto import View, encode_tensor, locate_tensor, tensor_of
from penstock.errors import InvalidArgument, PenstockError
from penstock.tensors import DTYPES, Array, DType, dtype_of_name

TensorProto = message_class("tensorflow.TensorProto")
SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (2, 3), (2, 0), (1, 1, 2, 1)]


def array_of(dtype: DType, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    if dtype.is_string:
        strings = np.empty(count, object)
        strings[:] = [b"a\0\xff" * (index % 3) for index in range(count)]
        return strings.reshape(shape)
    values = np.arange(count, dtype=np.int64) % 7
    if dtype.name.startswith(("int", "float", "double", "half", "bf")):
        values = values - 3
    array: Array = values.astype(dtype.numpy).reshape(shape)
    return array


def message_of(array: Array, as_content: bool = False) -> bytes:
    return b"".join(map(bytes, encode_tensor(array, as_content)))


def decode(message: bytes, **options: Any) -> Array:
    return tensor_of(message, 0, len(message), "x", **options)


def same(left: Array, right: Array) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.tolist() == right.tolist() if left.dtype == object else left.tobytes() == right.tobytes()


def proto(dtype: str = "float", shape: tuple[int, ...] = (), **values: Any) -> bytes:
    message = TensorProto(dtype=dtype_of_name(dtype).number, **values)
    message.tensor_shape.SetInParent()
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    serialized: bytes = message.SerializeToString()
    return serialized


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_every_type_comes_back_as_it_was(dtype: DType, shape: tuple[int, ...]) -> None:
    array = array_of(dtype, shape)
    for as_content in (False, True):
        message = message_of(array, as_content)
        assert TensorProto.FromString(message).SerializeToString() == message
        assert same(decode(message), array)
        moved = b"??" + message + b"?"
        assert same(tensor_of(memoryview(moved), 2, 2 + len(message), "x"), array)


@pytest.mark.parametrize("dtype", [one for one in DTYPES if one.name not in ("int4", "uint4")], ids=lambda dtype: dtype.name)
def test_tensorflow_reads_what_is_written_and_reads_it_alike(dtype: DType) -> None:
    tf = pytest.importorskip("tensorflow")
    for shape in SHAPES:
        array = array_of(dtype, shape)
        for as_content in (False, True):
            theirs = tf.io.parse_tensor(message_of(array, as_content), tf.as_dtype(dtype.number)).numpy()
            assert np.array(theirs, array.dtype).tolist() == array.tolist()


@pytest.mark.parametrize("name", ["float", "double", "int32", "int64", "bool", "string", "half", "complex64", "uint8", "uint64"])
@pytest.mark.parametrize("there", [0, 1, 2, 3, 5])
def test_missing_elements_are_the_last_one_and_too_many_do_not_count_as_in_tensorflow(name: str, there: int) -> None:
    tf = pytest.importorskip("tensorflow")
    dtype = dtype_of_name(name)
    message = TensorProto.FromString(message_of(array_of(dtype, (there,))))
    message.tensor_shape.dim[0].size = 3
    serialized = message.SerializeToString()
    assert decode(serialized).tolist() == tf.io.parse_tensor(serialized, tf.as_dtype(dtype.number)).numpy().tolist()


def test_numbers_of_fixed_width_are_not_copied() -> None:
    for message in (message_of(np.arange(10.0)), message_of(np.arange(10), True), message_of(np.arange(4) + 2j)):
        assert isinstance(locate_tensor(message, 0, len(message), "x"), View)
        assert np.shares_memory(decode(message), np.frombuffer(message, np.uint8))
    large = np.arange(1000.0)
    assert np.shares_memory(np.frombuffer(encode_tensor(large)[-1], np.uint8), large)


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("float", "float_val", [1.5, -2.0, 3.0]),
        ("int32", "int_val", [1, -2, 300]),
        ("int64", "int64_val", [1, -2, 1 << 40]),
        ("bool", "bool_val", [True, False, True]),
        ("double", "double_val", [1.5, -2.0, 3.0]),
    ],
)
def test_numbers_in_pieces_and_unpacked_are_put_together(name: str, field: str, values: list[Any]) -> None:
    whole = proto(name, (3,), **{field: values})
    head = proto(name, (3,))
    pieces = [TensorProto(**{field: [value]}).SerializeToString() for value in values]
    assert decode(head + b"".join(pieces)).tolist() == values
    number = TensorProto.DESCRIPTOR.fields_by_name[field].number
    kind = {"float_val": 5, "double_val": 1}.get(field, 0)
    unpacked = [encode_varint(number << 3 | kind) + piece[2:] for piece in pieces]
    assert TensorProto.FromString(head + b"".join(unpacked)).SerializeToString() == whole
    assert decode(head + b"".join(unpacked)).tolist() == values
    assert decode(head + pieces[0] + b"".join(unpacked[1:])).tolist() == values


def test_a_shape_in_two_places_is_both_together() -> None:
    message = proto("float", (2,)) + TensorProto.FromString(proto("float", (3,), float_val=[1.0])).SerializeToString()
    assert decode(message).shape == (2, 3)


def test_the_bytes_of_booleans_are_only_ever_true_or_false() -> None:
    array = decode(proto("bool", (3,), tensor_content=b"\0\1\xff"))
    assert array.view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (proto("float", (2,), tensor_content=b"1234567"), "has 7 bytes"),
        (proto("float", (2,), tensor_content=b"123456789"), "has 9 bytes"),
        (proto("float", (-1,), float_val=[1.0]), "its dimension 0 has the size -1"),
        (proto("string", (3,), tensor_content=b"\1\1"), "too few for 3 strings"),
        (proto("string", (1,), tensor_content=b"\5ab"), "not as long as it says"),
        (proto("float", (1 << 20, 1 << 20), float_val=[1.0]), "and 1 are there"),
        (proto("float", (1 << 62, 1 << 62, 1 << 62)), "and 0 are there"),
        (proto("int64", (1 << 40,), int64_val=[1]), "and 1 are there"),
        (proto("string", (1 << 40,), string_val=[b"a"]), "and 1 are there"),
        (proto("string", (1 << 20,), string_val=[b"a" * 1000]), "and 1 are there"),
        (proto("float", (0, 1 << 62, 1 << 62)), "is too large"),
        (proto("float", (1,) * 40, float_val=[1.0]), "40 dimensions"),
        (TensorProto(dtype=1, tensor_shape={"unknown_rank": True}).SerializeToString(), "its rank is unknown"),
        (TensorProto(dtype=0).SerializeToString(), "elements of type 0"),
        (TensorProto(dtype=20).SerializeToString(), "elements of type 20"),
        (TensorProto(dtype=101, float_val=[1.0]).SerializeToString(), "elements of type 101"),
        (encode_number(1, 999), "elements of type 999"),
        (b"", "elements of type 0"),
    ],
)
def test_what_is_no_tensor_is_refused_by_its_name_and_with_the_reason(message: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument, match="tensor parsing error: x: ") as caught:
        decode(message)
    assert reason in caught.value.message


def test_how_much_repeated_elements_may_take_can_be_said() -> None:
    message = proto("float", (100,), float_val=[1.0])
    assert decode(message, max_repeated_bytes=400).tolist() == [1.0] * 100
    with pytest.raises(InvalidArgument):
        decode(message, max_repeated_bytes=399)


@pytest.mark.parametrize("message", [encode_bytes(5, b"123"), encode_bytes(7, b"\x80"), b"\x22\x05", b"\x2d123"])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidArgument, match="malformed"):
        decode(proto("float" if message[0] != 0x3A else "int32", (2,)) + message)


def outcome(message: bytes) -> Array | str:
    try:
        return decode(message)
    except PenstockError as error:
        return error.message


@st.composite
def protos(draw: st.DrawFn) -> bytes:
    """Messages as clients write them, and as nobody does."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.sampled_from(SHAPES))
    message = message_of(array_of(dtype, shape), draw(st.booleans()))
    place = draw(st.integers(0, len(message)))
    change = draw(st.binary(max_size=3))
    return message[:place] + change + message[place + draw(st.integers(0, 2)) :]


@given(st.one_of(protos(), st.binary(max_size=40)))
def test_a_message_means_what_it_means_to_protobuf(message: bytes) -> None:
    """Protobuf writes it in the order of the fields, packed and in one piece: that has to be the same tensor."""
    try:
        parsed = TensorProto.FromString(message)
    except DecodeError:
        outcome(message)
        return
    proper = parsed.SerializeToString()
    left, right = outcome(message), outcome(proper)
    if isinstance(left, str) or isinstance(right, str):
        assert type(left) is type(right)
    else:
        assert same(left, right)
