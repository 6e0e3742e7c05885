"""Which JSON numbers an element type takes, and how they become its elements.

Floating types take any number: what is too large becomes infinite (contract §1.3). Integer types take integers, and
refuse what does not fit: TensorFlow Serving wraps 8- and 16-bit ones silently, which is a defect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from penstock.tensors import DTYPES, Array, DType

# What is too large for a floating type is meant to become infinite. Said once for the process: around each conversion it
# would cost a tenth of decoding a small request.
np.seterr(over="ignore")


@dataclass(frozen=True, slots=True)
class Numbers:
    """`code` and `wide` are the type that numbers are read as (simdjson's letter, NumPy's type); an integer type
    narrower than that has bounds."""

    code: Literal["d", "i", "u"]
    wide: np.dtype[Any]
    bounds: tuple[int, int] | None = None

    @property
    def is_integer(self) -> bool:
        return self.code != "d"


def _numbers_of(dtype: DType) -> Numbers | None:
    if dtype.name in ("float", "double", "half") or "float" in dtype.name:
        return Numbers("d", np.dtype(np.float64))
    if dtype.name == "uint64":
        return Numbers("u", np.dtype(np.uint64))
    if dtype.name == "int64":
        return Numbers("i", np.dtype(np.int64))
    is_signed, is_unsigned = dtype.name.startswith("int"), dtype.name.startswith("uint")
    if not is_signed and not is_unsigned:
        return None
    bits = int(dtype.name.removeprefix("u").removeprefix("int"))
    bounds = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    return Numbers("i", np.dtype(np.int64), bounds)


#: By DType.number; strings, bools and complex numbers are missing.
NUMBERS: dict[int, Numbers] = {dtype.number: numbers for dtype in DTYPES if (numbers := _numbers_of(dtype)) is not None}


def narrow(wide: Array, numbers: Numbers, dtype: DType) -> Array | None:
    """A copy of `wide` as `dtype`; None if an element is out of bounds."""
    if numbers.bounds is not None and wide.size:
        lowest, highest = numbers.bounds
        if wide.min() < lowest or wide.max() > highest:
            return None
    return wide.astype(dtype.numpy)


def takes(value: Any, numbers: Numbers) -> bool:
    """Whether a parsed JSON value is one of `numbers`."""
    if not numbers.is_integer:
        return type(value) is int or type(value) is float
    if type(value) is not int:
        return False
    lowest, highest = numbers.bounds or (np.iinfo(numbers.wide).min, np.iinfo(numbers.wide).max)
    return bool(lowest <= value <= highest)
