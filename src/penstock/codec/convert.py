"""Arrays in the element type that an input takes.

Guarantees: a whole number that becomes one of another type stays the same, a float loses digits at the most, and text is never
taken for numbers nor numbers for text. What comes out is in C order, aligned and of the machine's byte order; it is copied only
where it was not so before.
"""

from __future__ import annotations

import numpy as np

from penstock.errors import InvalidArgument
from penstock.tensors import DTYPES, Array, DType, TensorSpec

#: Numbers become those of a later kind, and never of an earlier one.
_KINDS = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 3}
_WHOLE = _KINDS["i"]
_FOUR_BITS = {"int4": (-8, 7), "uint4": (0, 15)}
_FLOATS = {dtype.numpy for dtype in DTYPES if "float" in dtype.name}


def convert(array: Array, spec: TensorSpec, source: str = "") -> Array:
    """`array` as the input `spec` takes it; of strings, text is encoded as UTF-8. A float that is too large becomes infinite.

    Raises InvalidArgument with the input's name, what it takes and what came; `source` says where that came from.
    """
    wanted = spec.dtype.numpy
    if array.size == 0:
        return np.empty(array.shape, wanted)
    where = f"Input {spec.name}{source}"
    if spec.dtype.is_string:
        return _strings(array, where)
    if array.dtype == wanted:
        return np.require(array, requirements=["C", "A"])
    kind, wanted_kind = _kind(array.dtype), _kind(wanted)
    if kind is None or wanted_kind is None or kind > wanted_kind:
        raise InvalidArgument(f"{where}: expected {spec.dtype.name}, got {array.dtype}.")
    plain = array.astype(np.int8) if array.dtype.name in _FOUR_BITS else array  # NumPy does next to nothing with them
    if kind == wanted_kind == _WHOLE:
        least, most = int(plain.min()), int(plain.max())
        lowest, highest = _bounds(spec.dtype)
        if least < lowest or most > highest:
            raise InvalidArgument(f"{where}: expected {spec.dtype.name}, got {array.dtype} with numbers from {least} to {most}.")
    with np.errstate(over="ignore"):
        return plain.astype(wanted, order="C")


def _strings(array: Array, where: str) -> Array:
    """An object array of bytes."""
    if array.dtype.kind not in "OSUT":
        raise InvalidArgument(f"{where}: expected strings, got {array.dtype}.")
    encoded = np.empty(array.size, np.object_)
    try:
        encoded[:] = [_encoded(item, where) for item in array.ravel().tolist()]
    except (ValueError, SystemError):  # lone surrogates, and numbers that are no characters
        raise InvalidArgument(f"{where}: expected strings, got text that is not Unicode.") from None
    return encoded.reshape(array.shape)


def _encoded(item: object, where: str) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode()
    raise InvalidArgument(f"{where}: expected strings, got {type(item).__name__}.")


def _kind(dtype: np.dtype[np.generic]) -> int | None:
    """The place in `_KINDS` of an element type; None for one that is no number's. NumPy has one letter for all of ml_dtypes."""
    if dtype.kind != "V":
        return _KINDS.get(dtype.kind)
    if dtype.name in _FOUR_BITS:
        return _WHOLE
    return _KINDS["f"] if dtype in _FLOATS else None


def _bounds(dtype: DType) -> tuple[int, int]:
    """The least and the greatest number of an integer type."""
    if dtype.name in _FOUR_BITS:
        return _FOUR_BITS[dtype.name]
    limits = np.iinfo(dtype.numpy)
    return int(limits.min), int(limits.max)
