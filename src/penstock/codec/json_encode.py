"""Arrays as JSON text, for every element type that has one.

Guarantees: compact text; the shortest digits that read back as the same number of the same type; NaN and infinities as
the bare tokens `NaN`, `Infinity` and `-Infinity`, which the standard lacks and the contract wants (§1.4). Strings that
are not UTF-8 get U+FFFD where TensorFlow Serving would write broken JSON; outputs named `..._bytes` are base64.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import orjson

from penstock.codec.json_text import printable
from penstock.errors import InvalidArgument
from penstock.tensors import DTYPES, Array, dtype_of_array

_FLOAT = np.dtype(np.float32)
_WITH_NUMPY = orjson.OPT_SERIALIZE_NUMPY

#: Types that orjson reads in place.
_NATIVE = frozenset(dtype.numpy for dtype in DTYPES if dtype.numpy.isbuiltin == 1 and dtype.numpy.kind in "biuf")

#: Types of ml_dtypes, and what holds their values and is native.
_WIDER: dict[np.dtype[Any], np.dtype[Any]] = {
    dtype.numpy: np.dtype(np.int8 if "int" in dtype.name else np.float32) for dtype in DTYPES if dtype.numpy.isbuiltin == 2
}


def encode_error(message: str) -> bytes:
    """`{"error": message}`."""
    return b'{"error":' + encode_text(message) + b"}"


def encode_text(text: str) -> bytes:
    """A JSON string; lone surrogates, which come from bytes that are not UTF-8, become U+FFFD."""
    try:
        return orjson.dumps(text)
    except TypeError:
        return orjson.dumps(printable(text))


def encode_array(array: Array, name: str = "", is_finite: bool = False) -> bytes:
    """A tensor as a number, a string or nested lists. `is_finite` promises that there is no NaN and no infinity in it.

    Raises InvalidArgument for a type without JSON.
    """
    if is_finite and array.dtype is _FLOAT and array.ndim and array.flags.c_contiguous:
        return orjson.dumps(array, option=_WITH_NUMPY)  # what most outputs are, without another question
    array = _encodable(array, name)
    if array.dtype.kind == "O":
        return orjson.dumps(array.tolist())
    return _encode_numbers(array, is_finite)


def encode_rows(outputs: Mapping[str, Array], is_finite: bool = False) -> bytes:
    """Tensors with the same first dimension as a list of objects, one per row."""
    ready = {name: _encodable(array, name) for name, array in outputs.items()}
    if is_finite or all(array.dtype.kind != "f" or np.isfinite(array).all() for array in ready.values()):
        names = list(ready)
        columns = [array.tolist() if array.dtype.kind == "O" else array for array in ready.values()]
        return orjson.dumps([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)], option=_WITH_NUMPY)
    keys = [encode_text(name) + b":" for name in ready]
    rows = zip(*[encode_each(array, name) for name, array in outputs.items()], strict=True)
    return b"[" + b",".join([b"{" + b",".join(map(bytes.__add__, keys, row)) + b"}" for row in rows]) + b"]"


def encode_each(array: Array, name: str = "", is_finite: bool = False) -> list[bytes]:
    """The texts of `array[0]`, `array[1]` and so on."""
    array = _encodable(array, name)
    if array.dtype.kind == "O":
        return [orjson.dumps(row) for row in array.tolist()]
    if not array.size:
        return [_encode_numbers(row, True) for row in array]
    inner = array.ndim - 1
    start, end = b"[" * inner, b"]" * inner
    texts = _encode_numbers(array, is_finite)[1 + inner : -1 - inner].split(end + b"," + start)
    return [start + text + end for text in texts] if inner else texts


def _encode_numbers(array: Array, is_finite: bool) -> bytes:
    if array.ndim == 0:
        return _encode_numbers(array.reshape(1), is_finite)[1:-1]
    text = orjson.dumps(array, option=_WITH_NUMPY)
    if is_finite or array.dtype.kind != "f":
        return text
    are_finite = np.isfinite(array)
    return text if are_finite.all() else _with_tokens(text, array[~are_finite])


def _with_tokens(text: bytes, values: Array) -> bytes:
    """`text` with its nulls, which is what orjson makes of NaN and infinities, replaced by `values` in order."""
    tokens = [b"NaN" if value != value else b"Infinity" if value > 0 else b"-Infinity" for value in values.tolist()]
    return b"".join(chain.from_iterable(zip(text.split(b"null"), [*tokens, b""], strict=True)))


def _encodable(array: Array, name: str) -> Array:
    """`array` as orjson can read it: native and contiguous, or an object array of text and base64 objects."""
    dtype = array.dtype
    if dtype in _NATIVE and array.flags.c_contiguous:
        return array
    if dtype.kind in "OSUT":
        return _texts(array, name.endswith("_bytes"))
    native = _WIDER.get(dtype) or dtype.newbyteorder("=")
    if native not in _NATIVE:
        raise InvalidArgument(f"Failed to write JSON value for tensor type: {_type_name(array)}")
    return array.astype(native, order="C")


def _texts(array: Array, is_bytes: bool) -> Array:
    values = [value if isinstance(value, bytes) else str(value).encode("utf-8", "replace") for value in array.flat]
    texts = np.empty(array.size, np.object_)
    if is_bytes:
        texts[:] = [{"b64": binascii.b2a_base64(value, newline=False).decode()} for value in values]
    else:
        texts[:] = [value.decode("utf-8", "replace") for value in values]
    return texts.reshape(array.shape)


def _type_name(array: Array) -> str:
    try:
        return dtype_of_array(array).name
    except KeyError:
        return str(array.dtype)
