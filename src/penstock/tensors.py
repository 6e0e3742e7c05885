"""Element types, and the description of a signature's tensors.

Arrays are NumPy's everywhere. Strings are object arrays of `bytes`. The numbers are those of TensorFlow's DataType enum,
which its C API, its protobufs and the frames between our processes share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: `name` as TensorFlow prints it, `number` in its enum, and what NumPy calls it."""

    name: str
    number: int
    numpy: np.dtype[Any]

    @property
    def enum_name(self) -> str:
        """The name in TensorFlow's protobufs: DT_FLOAT."""
        return "DT_" + self.name.upper()

    @property
    def is_string(self) -> bool:
        return self.number == STRING_NUMBER

    def __reduce__(self) -> tuple[Any, ...]:
        return dtype_of_number, (self.number,)


STRING_NUMBER = 7

_TABLE: tuple[tuple[str, int, Any], ...] = (
    ("float", 1, np.float32),
    ("double", 2, np.float64),
    ("int32", 3, np.int32),
    ("uint8", 4, np.uint8),
    ("int16", 5, np.int16),
    ("int8", 6, np.int8),
    ("string", STRING_NUMBER, np.object_),
    ("complex64", 8, np.complex64),
    ("int64", 9, np.int64),
    ("bool", 10, np.bool_),
    ("bfloat16", 14, ml_dtypes.bfloat16),
    ("uint16", 17, np.uint16),
    ("complex128", 18, np.complex128),
    ("half", 19, np.float16),
    ("uint32", 22, np.uint32),
    ("uint64", 23, np.uint64),
    ("float8_e5m2", 24, ml_dtypes.float8_e5m2),
    ("float8_e4m3fn", 25, ml_dtypes.float8_e4m3fn),
    ("float8_e4m3fnuz", 26, ml_dtypes.float8_e4m3fnuz),
    ("float8_e4m3b11fnuz", 27, ml_dtypes.float8_e4m3b11fnuz),
    ("float8_e5m2fnuz", 28, ml_dtypes.float8_e5m2fnuz),
    ("int4", 29, ml_dtypes.int4),
    ("uint4", 30, ml_dtypes.uint4),
)

DTYPES: tuple[DType, ...] = tuple(DType(name, number, np.dtype(kind)) for name, number, kind in _TABLE)
_BY_NUMBER = {dtype.number: dtype for dtype in DTYPES}
_BY_NAME = {dtype.name: dtype for dtype in DTYPES}
_BY_NUMPY = {dtype.numpy: dtype for dtype in DTYPES}

#: Element types that exist in graphs and that no array can hold.
OPAQUE_NAMES: dict[int, str] = {
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    20: "resource",
    21: "variant",
}

FLOAT = _BY_NAME["float"]
STRING = _BY_NAME["string"]


def dtype_of_number(number: int) -> DType:
    """The element type of a TensorFlow DataType number; reference types (100 + n) mean their base type.

    Raises KeyError for a type that no array can hold.
    """
    return _BY_NUMBER[number - 100 if number > 100 else number]


def dtype_of_name(name: str) -> DType:
    """The element type that TensorFlow prints as `name`. Raises KeyError."""
    return _BY_NAME[name]


def dtype_of_array(array: Array) -> DType:
    """The element type of an array; text and byte strings of any width are `string`. Raises KeyError."""
    if array.dtype.kind in "OSUT":
        return STRING
    return _BY_NUMPY[array.dtype.newbyteorder("=")]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature.

    `name` is the alias that clients use, `tensor` the graph's own name ("x:0"). `shape` is a hint (DESIGN.md 10): None
    for an unknown rank, and None as a dimension of unknown size.
    """

    name: str
    dtype: DType
    shape: tuple[int | None, ...] | None
    tensor: str = ""

    def shape_text(self) -> str:
        """`[?, 28, 28]`, or `unknown rank`."""
        if self.shape is None:
            return "unknown rank"
        return "[" + ", ".join("?" if size is None else str(size) for size in self.shape) + "]"


@dataclass(frozen=True, slots=True)
class Signature:
    """A named set of typed inputs and outputs. Both maps are ordered by name, and that order is the one of the channel.

    `defaults` are values of inputs that a client may leave out (over gRPC).
    """

    name: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    method_name: str = ""
    defaults: dict[str, Array] = field(default_factory=dict)

    @property
    def takes_batches(self) -> bool:
        """Whether every input and output has a first dimension of unknown size, so that rows may be added to it."""
        specs = (*self.inputs.values(), *self.outputs.values())
        return all(spec.shape is None or (len(spec.shape) > 0 and spec.shape[0] is None) for spec in specs)
