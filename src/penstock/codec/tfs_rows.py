"""The row format: `{"instances": [...]}`, one element per row of the batch (contract §1.3)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from penstock.codec.json_bytes import is_base64_object
from penstock.codec.json_tensor import MAX_RANK, Shape, fault, shape_of, to_array
from penstock.codec.json_text import printable, quote
from penstock.errors import BY_CODE, InvalidArgument, PenstockError
from penstock.tensors import Array, DType, TensorSpec

_PLAIN_LIST = "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"


def stack_rows(rows: list[Any], specs: Mapping[str, TensorSpec]) -> tuple[Array, ...]:
    """The inputs of a non-empty list of instances, in the order of `specs`. Raises InvalidArgument or Unimplemented."""
    if not _is_named(rows[0]):
        if len(specs) > 1:
            raise InvalidArgument(_PLAIN_LIST)
        (spec,) = specs.values()
        array = to_array(rows, spec.dtype)
        if array is None:
            raise _fault_of_plain(rows, spec)
        return (array,)
    arrays = _stack_named(rows, specs)
    if arrays is None:
        raise _fault_of_named(rows, specs)
    return arrays


def _is_named(row: Any) -> bool:
    return type(row) is dict and not is_base64_object(row)


def _stack_named(rows: list[Any], specs: Mapping[str, TensorSpec]) -> tuple[Array, ...] | None:
    if not all(map(_is_named, rows)) or set(map(len, rows)) != {len(specs)}:
        return None
    arrays: list[Array] = []
    for name, spec in specs.items():
        try:
            values = [row[name] for row in rows]
        except KeyError:
            return None
        array = to_array(values, spec.dtype)
        if array is None:
            return None
        arrays.append(array)
    return tuple(arrays)


def _fault_of_plain(rows: list[Any], spec: TensorSpec) -> PenstockError:
    expected = shape_of(rows[0])
    for index, row in enumerate(rows):
        if _is_named(row):
            return InvalidArgument(f"Expecting value/list but got object at item {index} of input list")
        error = _element_fault(row, spec.dtype, expected)
        if error is not None:
            return _in_element(f"{index}", error)
    return InvalidArgument("The elements of 'instances' are no tensor")


def _fault_of_named(rows: list[Any], specs: Mapping[str, TensorSpec]) -> PenstockError:
    expected: dict[str, Shape] = {}
    for index, row in enumerate(rows):
        if not _is_named(row):
            return InvalidArgument(f"Expecting object but got list at item {index} of input list")
        for name, value in row.items():
            if name not in specs:
                error: PenstockError | None = InvalidArgument(f"JSON object: does not have named input: {printable(name)}")
            else:
                error = _element_fault(value, specs[name].dtype, expected.setdefault(name, shape_of(value)))
            if error is not None:
                return _in_element(f"{index} key: {printable(name)}", error)
        if row.keys() != specs.keys():
            return InvalidArgument(
                f"Failed to process element: {index} of 'instances' list. "
                f"JSON object: {quote(row)} keys must be equal to: {','.join(sorted(specs))}"
            )
    return InvalidArgument("The elements of 'instances' are no tensors")


def _element_fault(value: Any, dtype: DType, expected: Shape) -> PenstockError | None:
    """Why `value` is no tensor, or not like the first row's, whose shape is `expected`."""
    error = fault(value, dtype)
    if error is not None:
        return error
    shape = shape_of(value)
    if prod(shape) != prod(expected):
        return InvalidArgument(f"Expecting tensor size: {prod(expected)} but got: {prod(shape)}")
    if shape != expected:
        return InvalidArgument(f"Expecting shape {_text(expected)} but got: {_text(shape)}")
    if len(shape) == MAX_RANK:
        return InvalidArgument(f"JSON Value: {quote(value)} has lists nested deeper than {MAX_RANK - 1} levels")
    return None


def _in_element(where: str, error: PenstockError) -> PenstockError:
    """`error` with its place. It keeps its code: TensorFlow Serving makes all of them INVALID_ARGUMENT."""
    message = f"Failed to process element: {where} of 'instances' list. Error: {error.code.name}: {error.message}"
    return BY_CODE[error.code](message)


def _text(shape: Shape) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
