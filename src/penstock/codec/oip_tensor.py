"""Tensors of the Open Inference Protocol as bytes: its element types by name, and their elements one behind the other.

Guarantees: numbers that are read are views of the message, not copies; sizes are compared with what is there before anything of
that size is allocated; raises nothing but InvalidArgument.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from penstock.codec.json_tensor import MAX_RANK
from penstock.errors import InvalidArgument
from penstock.tensors import STRING_NUMBER, Array, DType, dtype_of_array, dtype_of_name

Buffer = bytes | bytearray | memoryview
Shape = tuple[int, ...]

_NAMES = {"BOOL": "bool", "BYTES": "string", "FP16": "half", "BF16": "bfloat16", "FP32": "float", "FP64": "double"}
_INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
#: Element types by the protocol's names.
DATATYPES: dict[str, DType] = {name: dtype_of_name(ours) for name, ours in _NAMES.items()}
DATATYPES.update({name: dtype_of_name(name.lower()) for name in _INTEGERS})
_BY_NUMBER = {dtype.number: name for name, dtype in DATATYPES.items()}
_BY_NUMPY = {dtype.numpy: name for name, dtype in DATATYPES.items()}
_BOOL_NUMBER = DATATYPES["BOOL"].number
_LENGTH = struct.Struct("<I")
#: NumPy counts the bytes of an empty array too, as if its sizes of 0 were 1; an element has 16 at most.
_MAX_ELEMENTS = ((1 << 63) - 1) // 16
_KEPT_SHAPES = 1024
#: From here on another copy takes longer than making a view.
_LARGE_TENSOR_BYTES = 16 << 10


def datatype_of(dtype: DType) -> str:
    """The protocol's name of an element type; TensorFlow's in capitals where it has none."""
    return _BY_NUMBER.get(dtype.number) or dtype.name.upper()


def datatype_of_array(array: Array) -> str:
    """The protocol's name of an array's element type. Raises InvalidArgument where it has none."""
    name = _BY_NUMPY.get(array.dtype)
    if name is None:
        ours = dtype_of_array(array)
        name = _BY_NUMBER.get(ours.number)
        if name is None:
            raise InvalidArgument(f"The Open Inference Protocol has no tensors of type {ours.name}.")
    return name


def dtype_of_datatype(name: object, where: str) -> DType:
    """The element type that the protocol calls `name`. Raises InvalidArgument."""
    dtype = DATATYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise InvalidArgument(f"{where}: datatype {str(name)[:40]!r} is not one of {', '.join(sorted(DATATYPES))}")
    return dtype


def checked_shape(shape: Sequence[Any], where: str) -> Shape:
    """The shape that a request gives. Raises InvalidArgument for one that no array can have."""
    try:
        if any(type(size) is not int for size in shape):  # the cache takes true and 1.0 for 1
            raise TypeError
        return _checked(tuple(shape))
    except (TypeError, ValueError):
        raise InvalidArgument(f"{where}: shape {str(list(shape)[:40])[:200]} is none that a tensor can have") from None


@lru_cache(_KEPT_SHAPES)
def _checked(shape: Shape) -> Shape:
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise ValueError
    if math.prod(size or 1 for size in shape) > _MAX_ELEMENTS:
        raise ValueError
    return shape


def array_of_bytes(data: Buffer, dtype: DType, shape: Shape, where: str) -> Array:
    """The tensor whose elements are `data`; strings have their length before each, as four bytes.

    Raises InvalidArgument saying how many bytes were expected.
    """
    if dtype.number == STRING_NUMBER:
        return _strings(data, math.prod(shape), where).reshape(shape)
    kind = dtype.numpy
    expected = math.prod(shape) * kind.itemsize
    if len(data) != expected:
        raise InvalidArgument(
            f"{where}: expected {expected} bytes for {datatype_of(dtype)} of shape {list(shape)}, got {len(data)}"
        )
    if not expected:
        return np.empty(shape, kind)
    if dtype.number == _BOOL_NUMBER:
        return np.not_equal(np.frombuffer(data, np.uint8), 0).reshape(shape)
    return np.frombuffer(data, kind).reshape(shape)


def bytes_of_array(array: Array) -> bytes:
    """The elements of a tensor as bytes, strings with their lengths."""
    if array.dtype.kind not in "OSU":
        return array.tobytes()
    items = [item if type(item) is bytes else str(item).encode() for item in array.ravel().tolist()]
    return b"".join(chain.from_iterable(zip(map(_LENGTH.pack, map(len, items)), items, strict=True)))


def view_of_array(array: Array) -> bytes | memoryview:
    """The same; of large numeric tensors where they are, to be copied before their memory is used for something else."""
    if array.nbytes < _LARGE_TENSOR_BYTES or array.dtype.kind in "OSU":
        return bytes_of_array(array)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def strings_array(items: Sequence[bytes], shape: Shape) -> Array:
    """A tensor of strings."""
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array.reshape(shape)


def _strings(data: Buffer, count: int, where: str) -> Array:
    text = bytes(data)
    size = len(text)
    if 4 * count > size:
        raise InvalidArgument(f"{where}: {count} strings with their lengths need {4 * count} bytes or more, got {size}")
    items: list[bytes] = []
    at = 0
    for _ in range(count):
        if at + 4 > size:
            break
        (length,) = _LENGTH.unpack_from(text, at)
        end = at + 4 + length
        items.append(text[at + 4 : end])
        at = end
    if len(items) != count or at != size:
        raise InvalidArgument(f"{where}: expected {count} strings with their lengths in {size} bytes, and they are not that long")
    return strings_array(items, (count,))
