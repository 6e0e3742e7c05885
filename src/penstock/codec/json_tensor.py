"""Parsed JSON values (nested lists) as arrays, for the bodies and types that json_buffer leaves.

Lists are taken level by level, at the speed of itertools and without recursion. Only when that fails is the value
walked element by element, to say where it is wrong in TensorFlow Serving's words (contract §1.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from penstock.codec.json_bytes import bytes_of_text, decode_base64, is_base64_object
from penstock.codec.json_number import NUMBERS, narrow, takes
from penstock.codec.json_text import quote, type_name
from penstock.errors import InvalidArgument, PenstockError, Unimplemented
from penstock.tensors import Array, DType

#: NumPy's own limit before version 2.
MAX_RANK = 32

Shape = tuple[int, ...]


def tensor(value: Any, dtype: DType) -> Array:
    """The array of a scalar or of nested lists. Raises InvalidArgument, or Unimplemented for a type without JSON."""
    array = to_array(value, dtype)
    if array is None:
        raise fault(value, dtype) or InvalidArgument(f"JSON Value: {quote(value)} is no tensor of type: {dtype.name}")
    return array


def shape_of(value: Any) -> Shape:
    """The sizes along the first elements, down to the level `MAX_RANK` + 1 at most."""
    shape: list[int] = []
    while type(value) is list and len(shape) <= MAX_RANK:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def to_array(value: Any, dtype: DType) -> Array | None:
    """The array of `value`, or None if it is ragged or has an element that `dtype` does not take."""
    shape = shape_of(value)
    if len(shape) > MAX_RANK:
        return None
    elements = [value]
    for size in shape:
        if set(map(type, elements)) != {list} or set(map(len, elements)) != {size}:
            return None
        elements = list(chain.from_iterable(elements))
    flat = _flat_array(elements, dtype)
    return None if flat is None else flat.reshape(shape)


def fault(value: Any, dtype: DType) -> PenstockError | None:
    """The first thing, in reading order, that keeps `value` from being a tensor of `dtype`."""
    shape = shape_of(value)
    rank = len(shape)
    if rank > MAX_RANK:
        return InvalidArgument(f"JSON Value: {quote(value)} has lists nested deeper than {MAX_RANK} levels")
    levels: list[Iterator[Any]] = [iter((value,))]
    while levels:
        level = len(levels) - 1
        for item in levels[-1]:
            if type(item) is not list:
                error = _misplaced(item, level, rank) or element_fault(item, dtype)
            else:
                error = _wrong_size(item, level, shape)
            if error is not None:
                return error
            if type(item) is list:
                levels.append(iter(item))
                break
        else:
            levels.pop()
    return None


def element_fault(value: Any, dtype: DType) -> PenstockError | None:
    """Why `value` is no element of `dtype`."""
    numbers = NUMBERS.get(dtype.number)
    if dtype.is_string and type(value) is dict:
        if not is_base64_object(value):
            return InvalidArgument(f"JSON Value: {quote(value)} not formatted correctly for base64 data")
        return InvalidArgument("Unable to base64 decode") if decode_base64(value["b64"]) is None else None
    if numbers is not None:
        is_right = takes(value, numbers)
    elif dtype.is_string or dtype.name == "bool":
        is_right = type(value) is (str if dtype.is_string else bool)
    elif type(value) is not dict:
        return Unimplemented(f"Conversion of JSON Value: {quote(value)} to type: {dtype.name}")
    else:
        is_right = False
    if is_right:
        return None
    return InvalidArgument(f"JSON Value: {quote(value)} Type: {type_name(value)} is not of expected type: {dtype.name}")


def _misplaced(item: Any, level: int, rank: int) -> InvalidArgument | None:
    if level == rank:
        return None
    return InvalidArgument(
        f"JSON Value: {quote(item)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {rank}"
    )


def _wrong_size(item: list[Any], level: int, shape: Shape) -> InvalidArgument | None:
    if level >= len(shape):
        return InvalidArgument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(item) != shape[level]:
        return InvalidArgument(
            f"Encountered list at unexpected size: {len(item)} at level: {level} expected size: {shape[level]}"
        )
    return None


def _flat_array(elements: list[Any], dtype: DType) -> Array | None:
    kinds = set(map(type, elements))
    numbers = NUMBERS.get(dtype.number)
    if numbers is not None:
        if not kinds <= ({int} if numbers.is_integer else {int, float}):
            return None
        if numbers.code == "u" and elements and min(elements) < 0:
            return None
        try:
            wide = np.array(elements, numbers.wide)
        except OverflowError:
            return None
        return narrow(wide, numbers, dtype)
    if dtype.is_string:
        return _strings(elements) if kinds <= {str, dict} else None
    if dtype.name == "bool":
        return np.array(elements, np.bool_) if kinds <= {bool} else None
    return None if elements else np.empty(0, dtype.numpy)


def _strings(elements: list[Any]) -> Array | None:
    strings: list[bytes] = []
    for element in elements:
        if type(element) is str:
            strings.append(bytes_of_text(element))
            continue
        decoded = decode_base64(element["b64"]) if is_base64_object(element) else None
        if decoded is None:
            return None
        strings.append(decoded)
    array = np.empty(len(strings), np.object_)
    array[:] = strings
    return array
