"""InferTensorContents: elements of a tensor in the field of their type, as arrays without a Python object for each number.

Guarantees: numbers that do not fit the tensor's own type, fields of other types and counts that are not the shape's are refused
with InvalidArgument, and nothing else is raised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.codec.oip_request import InputHead, Value, check_count
from penstock.codec.oip_tensor import DATATYPES, strings_array
from penstock.codec.protobuf_wire import FIXED32, FIXED64, LENGTH, VARINT, fields, malformed, tag_of, varints
from penstock.errors import InvalidArgument
from penstock.tensors import Array, DType


class _Typed:
    """A field of InferTensorContents: its number, its packed elements' width (0: varints), and what it is read as."""

    __slots__ = ("number", "wide", "width")

    def __init__(self, number: int, width: int, wide: Any) -> None:
        self.number = number
        self.width = width
        self.wide = np.dtype(wide)


_INT32, _UINT32 = _Typed(2, 0, np.int32), _Typed(4, 0, np.uint32)
_CONTENTS = {
    "BOOL": _Typed(1, 0, np.bool_),
    **dict.fromkeys(("INT8", "INT16", "INT32"), _INT32),
    "INT64": _Typed(3, 0, np.int64),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), _UINT32),
    "UINT64": _Typed(5, 0, np.uint64),
    "FP32": _Typed(6, 4, np.float32),
    "FP64": _Typed(7, 8, np.float64),
}
_BYTES_CONTENTS = tag_of(8, LENGTH)
#: By TensorFlow's numbers; FP16 and BF16 have no field, their elements are always raw.
_CONTENTS_OF = {DATATYPES[name].number: typed for name, typed in _CONTENTS.items()}


def read_contents(view: memoryview, spans: list[tuple[int, int]], head: InputHead) -> Value:
    """The elements in InferTensorContents, None where there are none. Raises InvalidArgument."""
    parts = [part for span in spans for part in fields(view, *span)]
    if not parts:
        return None
    if head.place is not None:
        raise InvalidArgument(f"{head.title} has contents, and is in shared memory")
    if head.dtype.is_string:
        items = [bytes(view[first:end]) for tag, first, end in parts if tag == _BYTES_CONTENTS]
        _check_fields(len(items), parts, head)
        check_count(len(items), head.shape, head.title)
        return strings_array(items, head.shape)
    typed = _CONTENTS_OF.get(head.dtype.number)
    if typed is None:
        raise InvalidArgument(f"{head.title}: elements of this datatype come in raw_input_contents")
    return _numbers(view, parts, typed, head)


def _numbers(view: memoryview, parts: list[tuple[int, int, int]], typed: _Typed, head: InputHead) -> Array:
    packed = tag_of(typed.number, LENGTH)
    single = tag_of(typed.number, {0: VARINT, 4: FIXED32, 8: FIXED64}[typed.width])
    arrays: list[Array] = []
    singles: list[int] = []
    count = 0
    for tag, first, end in parts:
        if tag == packed:
            count += 1
            arrays.append(_packed(view, first, end, typed))
        elif tag == single:
            count += 1
            if typed.width:
                arrays.append(np.frombuffer(view[first:end], typed.wide))
            else:
                singles.append(first)
    _check_fields(count, parts, head)
    if singles:
        arrays.append(_narrow(np.array(singles, np.uint64), typed))
    wide = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    check_count(wide.size, head.shape, head.title)
    return _fitted(wide, head.dtype, head.title).reshape(head.shape)


def _packed(view: memoryview, start: int, end: int, typed: _Typed) -> Array:
    if not typed.width:
        return _narrow(varints(view, start, end), typed)
    if (end - start) % typed.width:
        raise malformed("packed numbers are cut off")
    return np.frombuffer(view[start:end], typed.wide) if end > start else np.empty(0, typed.wide)


def _narrow(numbers: Array, typed: _Typed) -> Array:
    """Varints as the field's type: of 32-bit numbers the lower half counts."""
    return np.not_equal(numbers, 0) if typed.wide.kind == "b" else numbers.astype(typed.wide)


def _fitted(wide: Array, dtype: DType, where: str) -> Array:
    """Numbers of a wider field as the input's own type. Raises InvalidArgument for those that do not fit."""
    if wide.dtype == dtype.numpy:
        return wide
    bounds = np.iinfo(dtype.numpy)
    if wide.size and (wide.min() < bounds.min or wide.max() > bounds.max):
        raise InvalidArgument(f"{where}: a number in contents does not fit {dtype.name}")
    return wide.astype(dtype.numpy)


def _check_fields(count: int, parts: list[tuple[int, int, int]], head: InputHead) -> None:
    if count != len(parts):
        raise InvalidArgument(f"{head.title}: contents has a field that is not the one of its datatype")
