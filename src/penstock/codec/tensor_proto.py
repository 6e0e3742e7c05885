"""TensorProtos as arrays and back, without protobuf objects.

Guarantees: what TensorFlow makes of a TensorProto is what comes out: elements in `tensor_content` or in the field of their type,
the last of which stands for those that are missing, and zeros where there is none. Elements of fixed width are views of the
message, which may be unaligned and must stay as it is. Nothing takes more than some bytes for each of the message, but for
what repeated elements may add. What TensorFlow's clients never write (unpacked numbers, fields in pieces) is first
written anew by protobuf itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError, EncodeError

from penstock.codec.protobuf_wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    MAX_FIELDS,
    VARINT,
    Buffer,
    encode_bytes,
    encode_head,
    encode_number,
    encode_varint,
    encode_varints,
    fields,
    malformed,
    signed,
    signed32,
    tag_of,
    varint,
    varints,
)
from penstock.codec.protos import message_class
from penstock.errors import InvalidArgument
from penstock.tensors import DTYPES, Array, DType, dtype_of_array

#: What a tensor may take whose elements are not all there.
MAX_REPEATED_BYTES = 256 << 20
#: Strings in one tensor: they take some fifty bytes each.
_MAX_STRINGS = 1 << 24
#: NumPy's, of all its versions.
_MAX_RANK = 32
_POINTER_BYTES = 8

_FLOAT, _DOUBLE, _INT, _STRING, _SCOMPLEX, _INT64, _BOOL, _DCOMPLEX, _HALF, _UINT32, _UINT64, _FLOAT8 = (
    *range(5, 14),
    16,
    17,
    18,
)
_FIELD_OF = {
    "float": _FLOAT,
    "double": _DOUBLE,
    "string": _STRING,
    "complex64": _SCOMPLEX,
    "int64": _INT64,
    "bool": _BOOL,
    "bfloat16": _HALF,
    "complex128": _DCOMPLEX,
    "half": _HALF,
    "uint32": _UINT32,
    "uint64": _UINT64,
}
#: The number of the field that holds the elements of each type.
_VALUES: dict[int, int] = {
    dtype.number: _FIELD_OF.get(dtype.name, _FLOAT8 if dtype.name.startswith("float8") else _INT) for dtype in DTYPES
}
_DTYPE_OF = {dtype.number: dtype for dtype in DTYPES}
#: Fields whose packed elements are just the memory of an array.
_RAW = frozenset((_FLOAT, _DOUBLE, _SCOMPLEX, _DCOMPLEX, _FLOAT8))
_UNPACKED_TYPES = {_FLOAT: FIXED32, _SCOMPLEX: FIXED32, _DOUBLE: FIXED64, _DCOMPLEX: FIXED64}
_UNPACKED = frozenset(tag_of(number, _UNPACKED_TYPES.get(number, VARINT)) for number in {*_VALUES.values()} - {_STRING, _FLOAT8})
_PACKED = frozenset(tag_of(number, LENGTH) for number in _VALUES.values())
_FLOAT8_TAG = tag_of(_FLOAT8, LENGTH)

_DTYPE_TAG = tag_of(1, VARINT)
_SHAPE_TAG = tag_of(2, LENGTH)
_CONTENT_TAG = tag_of(4, LENGTH)
_STRING_TAG = tag_of(_STRING, LENGTH)
_DIM_TAG = tag_of(2, LENGTH)
_UNKNOWN_RANK_TAG = tag_of(3, VARINT)
_SIZE_TAG = tag_of(1, VARINT)

_TensorProto = message_class("tensorflow.TensorProto")


class View(NamedTuple):
    """Elements that lie in a message as an array has them."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, data: Buffer) -> Array:
        """The elements as a view of `data`, the message."""
        array: Array = np.ndarray(self.shape, self.dtype, data, self.offset)
        return array


def tensor_of(data: Buffer, start: int, end: int, alias: str, max_repeated_bytes: int = MAX_REPEATED_BYTES) -> Array:
    """The array of the TensorProto in `data[start:end]`, maybe read-only and unaligned; strings are an object array of bytes.

    Raises InvalidArgument: `tensor parsing error: ALIAS` and why, or that the message is malformed.
    """
    found = locate_tensor(data, start, end, alias, max_repeated_bytes)
    return found.array(data) if isinstance(found, View) else found


def locate_tensor(data: Buffer, start: int, end: int, alias: str, max_repeated_bytes: int = MAX_REPEATED_BYTES) -> View | Array:
    """Where the elements lie in `data`; where they have to be made, the array. Raises as `tensor_of` does."""
    number = 0
    shape: tuple[int, ...] = ()
    content: tuple[int, int] | None = None
    values: dict[int, tuple[int, int]] = {}
    strings: list[bytes] = []
    shapes = 0
    for tag, first, last in fields(data, start, end, _MAX_STRINGS):
        if tag == _STRING_TAG:
            strings.append(bytes(data[first:last]))
        elif tag == _DTYPE_TAG:
            number = signed32(first)
        elif tag == _SHAPE_TAG:
            shape = _shape(data, first, last, alias)
            shapes += 1
        elif tag == _CONTENT_TAG:
            content = first, last
        elif tag in _UNPACKED or (tag in values and tag != _FLOAT8_TAG):
            return _rewritten(data, start, end, alias, max_repeated_bytes)
        elif tag in _PACKED:
            values[tag] = first, last
    if shapes > 1:
        return _rewritten(data, start, end, alias, max_repeated_bytes)
    dtype = _DTYPE_OF.get(number)
    if dtype is None:
        raise refusal(alias, f"no array has elements of type {number}")
    count = math.prod(shape)
    if count == 0:
        return _empty(shape, dtype, alias)
    if content is not None and content[0] < content[1]:
        return _of_content(data, content, dtype, shape, alias)
    if dtype.is_string:
        return _of_strings(strings, shape, count, alias, max_repeated_bytes)
    return _of_values(data, values.get(tag_of(_VALUES[number], LENGTH)), dtype, shape, alias, max_repeated_bytes)


def refusal(alias: str, reason: str) -> InvalidArgument:
    """TensorFlow Serving's error for a tensor that is none (contract §2.1), with the reason behind it."""
    return InvalidArgument(f"tensor parsing error: {alias}: {reason}")


def encode_tensor(array: Array, as_content: bool = False) -> tuple[Buffer, ...]:
    """A TensorProto, as buffers one behind the other: elements in the field of their type, or in `tensor_content`.

    The last buffer may be the array's own memory.
    """
    dtype = dtype_of_array(array)
    return encode_type(dtype, array.shape), *encode_values(array, dtype, as_content)


def encode_type(dtype: DType, shape: tuple[int, ...]) -> bytes:
    """The fields of a TensorProto that come before its elements."""
    dims = [encode_bytes(2, encode_number(1, size) if size else b"") for size in shape]
    return encode_number(1, dtype.number) + encode_bytes(2, b"".join(dims))


def encode_values(array: Array, dtype: DType, as_content: bool) -> tuple[Buffer, ...]:
    """The field of a TensorProto that has the elements; none where there are none."""
    if array.size == 0:
        return ()
    if dtype.is_string:
        texts = [text.encode() if type(text) is str else bytes(text) for text in array.reshape(-1).tolist()]
        return (_string_content(texts) if as_content else b"".join([encode_bytes(_STRING, text) for text in texts]),)
    number = 4 if as_content else _VALUES[dtype.number]
    if is_raw(dtype, as_content):
        payload = raw_elements(array)
    elif number == _HALF:
        payload = memoryview(encode_varints(np.ascontiguousarray(array).view(np.uint16)))
    else:
        payload = memoryview(encode_varints(array))
    return encode_head(number, len(payload)), payload


def is_raw(dtype: DType, as_content: bool) -> bool:
    """Whether the elements are sent as an array has them in memory."""
    return not dtype.is_string and (as_content or _VALUES[dtype.number] in _RAW or dtype.name == "bool")


def raw_head(dtype: DType, size_bytes: int, as_content: bool) -> bytes:
    """What comes before the bytes of elements that are sent raw; nothing where there are none."""
    return encode_head(4 if as_content else _VALUES[dtype.number], size_bytes) if size_bytes else b""


def raw_elements(array: Array) -> memoryview:
    """The memory of the elements, in C order and little-endian."""
    little = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, little).reshape(-1).view(np.uint8).data


def _shape(data: Buffer, start: int, end: int, alias: str) -> tuple[int, ...]:
    sizes: list[int] = []
    for tag, first, last in fields(data, start, end, MAX_FIELDS):
        if tag == _DIM_TAG:
            size = 0
            for inner, value, _ in fields(data, first, last):
                if inner == _SIZE_TAG:
                    size = signed(value)
            if size < 0:
                raise refusal(alias, f"its dimension {len(sizes)} has the size {size}")
            sizes.append(size)
        elif tag == _UNKNOWN_RANK_TAG and first:
            raise refusal(alias, "its rank is unknown")
    if len(sizes) > _MAX_RANK:
        raise refusal(alias, f"it has {len(sizes)} dimensions, and {_MAX_RANK} are the most")
    return tuple(sizes)


def _empty(shape: tuple[int, ...], dtype: DType, alias: str) -> Array:
    try:
        return np.empty(shape, dtype.numpy)
    except ValueError:
        raise refusal(alias, f"its shape {list(shape)} is too large") from None


def _of_content(data: Buffer, content: tuple[int, int], dtype: DType, shape: tuple[int, ...], alias: str) -> View | Array:
    start, end = content
    count = math.prod(shape)
    if dtype.is_string:
        return _filled(_strings_of_content(data, start, end, count, alias), shape)
    if end - start != count * dtype.numpy.itemsize:
        needed = count * dtype.numpy.itemsize
        raise refusal(
            alias, f"tensor_content has {end - start} bytes, and its shape {list(shape)} of {dtype.name} needs {needed}"
        )
    view = View(shape, dtype.numpy.newbyteorder("<"), start)
    if dtype.name == "bool":
        return np.not_equal(np.frombuffer(data, np.uint8, count, start), 0).reshape(shape)
    return view


def _of_values(
    data: Buffer, span: tuple[int, int] | None, dtype: DType, shape: tuple[int, ...], alias: str, max_repeated_bytes: int
) -> View | Array:
    count, itemsize = math.prod(shape), dtype.numpy.itemsize
    start, end = span or (0, 0)
    field = _VALUES[dtype.number]
    if field in _RAW:
        if (end - start) % (itemsize // 2 if dtype.numpy.kind == "c" else itemsize):
            raise malformed("packed numbers are cut off")
        there = (end - start) // itemsize
        if there >= count:
            return View(shape, dtype.numpy.newbyteorder("<"), start)
        stored: Array = np.frombuffer(data, dtype.numpy.newbyteorder("<"), there, start)
    elif field == _HALF:
        stored = varints(data, start, end, np.uint16).view(dtype.numpy)
    else:
        stored = varints(data, start, end, dtype.numpy)
    if stored.size < count:
        if count * itemsize > max_repeated_bytes:
            raise refusal(alias, f"its shape {list(shape)} needs {count} elements, and {stored.size} are there")
        elements = np.empty(count, dtype.numpy)
        elements[: stored.size] = stored
        elements[stored.size :] = stored[-1] if stored.size else np.zeros((), dtype.numpy)
        stored = elements
    return stored[:count].reshape(shape)


def _of_strings(strings: list[bytes], shape: tuple[int, ...], count: int, alias: str, max_repeated_bytes: int) -> Array:
    missing = count - len(strings)
    if missing > 0:
        last = strings[-1] if strings else b""
        if missing * (len(last) + _POINTER_BYTES) > max_repeated_bytes:
            raise refusal(alias, f"its shape {list(shape)} needs {count} elements, and {len(strings)} are there")
        strings = strings + [last] * missing
    return _filled(strings[:count], shape)


def _strings_of_content(data: Buffer, start: int, end: int, count: int, alias: str) -> list[bytes]:
    """All lengths, then all the bytes."""
    if count > end - start:
        raise refusal(alias, f"tensor_content has {end - start} bytes, too few for {count} strings")
    lengths: list[int] = []
    position = start
    for _ in range(count):
        length, position = varint(data, position, end)
        lengths.append(length)
    if position + sum(lengths) != end:
        raise refusal(alias, "the strings of its tensor_content are not as long as it says")
    strings: list[bytes] = []
    for length in lengths:
        strings.append(bytes(data[position : position + length]))
        position += length
    return strings


def _string_content(texts: list[bytes]) -> bytes:
    content = b"".join([*[encode_varint(len(text)) for text in texts], *texts])
    return encode_bytes(4, content)


def _filled(strings: list[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(strings), np.object_)
    array[:] = strings
    return array.reshape(shape)


def _rewritten(data: Buffer, start: int, end: int, alias: str, max_repeated_bytes: int) -> Array:
    """The tensor of a message that has its fields in another way than protobuf writes them."""
    try:
        proper = _TensorProto.FromString(bytes(data[start:end])).SerializeToString()
    except (DecodeError, EncodeError):
        raise malformed("it is no TensorProto") from None
    return tensor_of(proper, 0, len(proper), alias, max_repeated_bytes)
