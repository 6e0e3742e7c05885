"""The values of inputs that a signature lets a client leave out: TensorProtos as arrays.

Guarantees: the memory taken is bounded, whatever shape a file claims.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from penstock.tensors import Array, dtype_of_number

_MAX_ELEMENTS = 1 << 24

#: The field that holds the elements of each DataType where they are not raw bytes in `tensor_content`.
_FIELDS: dict[int, str] = {
    1: "float_val",
    2: "double_val",
    3: "int_val",
    4: "int_val",
    5: "int_val",
    6: "int_val",
    7: "string_val",
    8: "scomplex_val",
    9: "int64_val",
    10: "bool_val",
    14: "half_val",
    17: "int_val",
    18: "dcomplex_val",
    19: "half_val",
    22: "uint32_val",
    23: "uint64_val",
    29: "int_val",
    30: "int_val",
}


def array_of_proto(proto: Any) -> Array:
    """The array of a TensorProto, read-only. Raises ValueError for what does not add up, KeyError for opaque dtypes."""
    dtype = dtype_of_number(proto.dtype)
    if proto.tensor_shape.unknown_rank:
        raise ValueError("its rank is unknown")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise ValueError(f"its shape {list(shape)} has a negative size")
    count = math.prod(shape)
    if count > _MAX_ELEMENTS:
        raise ValueError(f"its shape {list(shape)} has more than {_MAX_ELEMENTS} elements")
    array = _elements(proto, dtype.number, dtype.numpy, count).reshape(shape)
    array.flags.writeable = False
    return array


def _elements(proto: Any, number: int, dtype: np.dtype[Any], count: int) -> Array:
    """All elements, flat. Where fewer are stored than the shape asks for, the last one stands for the rest."""
    if proto.tensor_content and not dtype.hasobject:
        if len(proto.tensor_content) != count * dtype.itemsize:
            raise ValueError(f"it has {len(proto.tensor_content)} bytes, its shape asks for {count * dtype.itemsize}")
        return np.frombuffer(proto.tensor_content, dtype.newbyteorder("<")).astype(dtype)
    stored = _stored(proto, number, dtype)
    if len(stored) > count:
        raise ValueError(f"it has {len(stored)} elements, its shape asks for {count}")
    elements = np.empty(count, dtype)
    elements[: len(stored)] = stored
    if dtype.hasobject:
        elements[len(stored) :] = stored[-1] if len(stored) else b""
    else:
        elements[len(stored) :] = stored[-1] if len(stored) else np.zeros((), dtype)
    return elements


def _stored(proto: Any, number: int, dtype: np.dtype[Any]) -> Array:
    if number not in _FIELDS:
        return np.frombuffer(proto.float8_val, dtype)
    values = list(getattr(proto, _FIELDS[number]))
    match _FIELDS[number]:
        case "string_val":
            strings = np.empty(len(values), np.object_)
            strings[:] = values
            return strings
        case "half_val":
            return np.array(values, np.int64).astype(np.uint16).view(dtype)
        case "scomplex_val" | "dcomplex_val":
            pairs = np.array(values[: len(values) // 2 * 2], np.float64).reshape(-1, 2)
            return (pairs[:, 0] + 1j * pairs[:, 1]).astype(dtype)
        case "uint64_val":
            return np.array(values, np.uint64)
        case "float_val" | "double_val":
            return np.array(values, np.float64).astype(dtype)
        case _:
            return np.array(values, np.int64).astype(dtype)
