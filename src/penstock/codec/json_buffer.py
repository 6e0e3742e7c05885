"""Numeric tensors straight out of a simdjson document: no Python object per number.

`as_buffer` flattens nested lists without asking whether they are regular. That is proved afterwards, for the whole body
at once: its text without everything but `[`, `]` and `,` must equal the skeleton that its keys and shapes make up. With
the count of numbers this leaves no other reading, as nothing else in such a body may hold these three characters. A
224x224x3 image takes 4.8 ms: 3.0 to parse and copy, 1.6 to prove.

Every function returns None where it is not sure; the caller then takes the slow way, which also makes the errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import simdjson

from penstock.codec.json_number import NUMBERS, Numbers, narrow
from penstock.codec.json_tensor import MAX_RANK, Shape, to_array
from penstock.tensors import Array, DType, TensorSpec

#: A tensor, and what is left of its text.
Part = tuple[Array, bytes]

_JsonArray = simdjson.Array
_JsonObject = simdjson.Object
_STRUCTURE = b"[],"
_NOT_STRUCTURE = bytes(sorted(set(range(256)) - set(_STRUCTURE)))
_STRUCTURE_TEXT = frozenset(_STRUCTURE.decode())

#: simdjson counts no further (its sizes have 24 bits).
_MAX_SIZE = 0xFFFFFF

#: Rows whose tensors are smaller than this are cheaper as Python objects.
_LARGE_ROW = 32

_SKELETONS_KEPT = 1024
_SKELETON_BYTES_KEPT = 4096
_skeletons: dict[Shape, bytes] = {}


def is_regular(body: bytes, document: Any, names: Sequence[str], name: str, skeleton: bytes) -> bool:
    """Whether the member `name` of the document has just this skeleton; `names` are all its members, in order."""
    if len(names) > 1:
        if not all(map(is_plain, names)) or not all(is_plain(document[other]) for other in names if other != name):
            return False
        skeleton = b",".join([skeleton if other == name else b"" for other in names])
    return body.translate(None, _NOT_STRUCTURE) == skeleton


def is_plain(value: Any) -> bool:
    """Whether the text of a member or its name leaves nothing in the skeleton."""
    if type(value) is str:
        return _STRUCTURE_TEXT.isdisjoint(value)
    return type(value) is not _JsonArray and type(value) is not _JsonObject


def lone_tensor(value: Any, dtype: DType, body: bytes) -> Array | None:
    """The tensor of an array of numbers that is the only member of `body`; None also for a shape not seen before.

    A single row needs no skeleton: with as many `[` as levels there is no other list in it (0.2 µs instead of 0.8).
    """
    numbers = NUMBERS.get(dtype.number)
    shape = _shape_of(value)
    if numbers is None or numbers.bounds is not None or shape is None:
        return None
    size = prod(shape)
    if size == shape[-1]:
        at = -1
        for _ in shape:
            at = body.find(b"[", at + 1)
        if body.rfind(b"[") != at:
            return None
    else:
        skeleton = _skeletons.get(shape)
        if skeleton is None or body.translate(None, _NOT_STRUCTURE) != skeleton:
            return None
    try:
        buffer = value.as_buffer(of_type=numbers.code)
    except (TypeError, ValueError):
        return None
    wide = np.frombuffer(buffer, numbers.wide)
    return wide.astype(dtype.numpy).reshape(shape) if wide.size == size else None


def column(value: Any, dtype: DType, room: int) -> Part | None:
    """The tensor of an array of numbers, or of one number. A skeleton longer than `room`, the body, is none of its."""
    numbers = NUMBERS.get(dtype.number)
    if numbers is None:
        return None
    if type(value) is not _JsonArray:
        scalar = None if type(value) is _JsonObject else to_array(value, dtype)
        return None if scalar is None else (scalar, b"")
    shape = _shape_of(value)
    if shape is None:
        return None
    try:
        buffer = value.as_buffer(of_type=numbers.code)
    except (TypeError, ValueError):
        return None
    return _part(buffer, shape, numbers, dtype, room, shape)


def columns(members: Any, specs: Mapping[str, TensorSpec], room: int) -> tuple[tuple[Array, ...], bytes] | None:
    """The tensors of an object that has exactly the members `specs`, in the order of `specs`."""
    names = list(members)
    if not _are_exactly(names, specs):
        return None
    parts: dict[str, Part] = {}
    for name in names:
        part = column(members[name], specs[name].dtype, room)
        if part is None:
            return None
        parts[name] = part
    return tuple([parts[name][0] for name in specs]), b",".join([parts[name][1] for name in names])


def rows(elements: Any, specs: Mapping[str, TensorSpec], room: int) -> tuple[tuple[Array, ...], bytes] | None:
    """The tensors of an array of objects, stacked; each object must have exactly the members `specs`."""
    first = elements[0]
    names = list(first)
    if not _are_exactly(names, specs):
        return None
    shapes = {name: _shape_of(first[name]) for name in names}
    if max([prod(shape or (0,)) for shape in shapes.values()]) < _LARGE_ROW:
        return None
    objects = list(elements)
    if any(type(each) is not _JsonObject or len(each) != len(names) for each in objects):
        return None
    parts: dict[str, Part] = {}
    for name in names:
        part = _stacked(objects, name, shapes[name], specs[name].dtype, room)
        if part is None:
            return None
        parts[name] = part
    row = b",".join([parts[name][1] for name in names])
    if len(row) * len(objects) > room:
        return None
    return tuple([parts[name][0] for name in specs]), _list_of(row, len(objects))


def _are_exactly(names: list[str], specs: Mapping[str, TensorSpec]) -> bool:
    return len(names) == len(specs) == len(set(names)) and all(name in specs and is_plain(name) for name in names)


def _stacked(objects: list[Any], name: str, shape: Shape | None, dtype: DType, room: int) -> Part | None:
    """One member of all rows as a tensor, and the skeleton of one row's."""
    numbers = NUMBERS.get(dtype.number)
    if shape is None or numbers is None:
        return None
    try:
        values = [each[name] for each in objects]
    except KeyError:
        return None
    if not shape:
        scalars = None if _JsonArray in map(type, values) else to_array(values, dtype)
        return None if scalars is None else (scalars, b"")
    if len(shape) == MAX_RANK or set(map(type, values)) != {_JsonArray}:
        return None
    try:
        buffer = b"".join([value.as_buffer(of_type=numbers.code) for value in values])
    except (TypeError, ValueError):
        return None
    return _part(buffer, shape, numbers, dtype, room, (len(objects), *shape))


def _part(buffer: Any, shape: Shape, numbers: Numbers, dtype: DType, room: int, final_shape: Shape) -> Part | None:
    """The tensor of shape `final_shape` that `buffer` fills, and the skeleton of a value of shape `shape`."""
    wide = np.frombuffer(buffer, numbers.wide)
    if wide.size != prod(final_shape):
        return None
    array = narrow(wide, numbers, dtype)
    skeleton = _skeleton(shape, room)
    return None if array is None or skeleton is None else (array.reshape(final_shape), skeleton)


def _shape_of(value: Any) -> Shape | None:
    """The sizes along the first elements; None where one is too small or too large to be sure of."""
    shape: list[int] = []
    while type(value) is _JsonArray:
        size = len(value)
        if size == 0 or size >= _MAX_SIZE or len(shape) == MAX_RANK:
            return None
        shape.append(size)
        value = value[0]
    return tuple(shape)


def _skeleton(shape: Shape, room: int) -> bytes | None:
    """What is left of the text of a regular tensor; None if that is longer than `room`."""
    kept = _skeletons.get(shape)
    if kept is not None:
        return kept
    length = 0
    for size in reversed(shape):
        length = size * (length + 1) + 1
    if length > room:
        return None
    skeleton = b""
    for size in reversed(shape):
        skeleton = _list_of(skeleton, size)
    if length <= _SKELETON_BYTES_KEPT and len(_skeletons) < _SKELETONS_KEPT:
        _skeletons[shape] = skeleton
    return skeleton


def _list_of(element: bytes, size: int) -> bytes:
    return b"[" + ((element + b",") * size)[:-1] + b"]"
