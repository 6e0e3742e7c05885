"""What handlers return, checked and made into bytes or arrays. Each function raises TypeError that says what was wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.script.response import JSON_TYPE
from penstock.tensors import Array

#: The name under which an array goes to the engine that is not in a dict: it is the signature's only input.
ONLY_INPUT = ""

_FIELD_VALUE = re.compile(r"[\t\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class ScriptAnswer:
    """What the client gets, with status 200."""

    body: bytes
    content_type: str


def answer(name: str, returned: Any) -> ScriptAnswer:
    """The answer that the handler `name` returned: (body, content_type), or a body alone, which is taken for JSON."""
    body, content_type = returned, None
    if isinstance(returned, (tuple, list)):
        if len(returned) != 2:
            raise TypeError(f"{name} returned a {_kind(returned)} of {len(returned)}; expected (body, content_type)")
        body, content_type = returned
    if content_type is not None and not isinstance(content_type, str):
        raise TypeError(f"{name} returned a content type of type {_kind(content_type)}; expected str")
    if content_type and not _FIELD_VALUE.fullmatch(content_type):
        raise TypeError(f"{name} returned the content type {content_type!a}, which cannot be sent in a header")
    if body is None:
        return ScriptAnswer(b"", content_type or JSON_TYPE)
    encoded = _encoded(body)
    if encoded is None:
        raise TypeError(f"{name} returned a body of type {_kind(body)}; expected str or bytes (for JSON: json.dumps(...))")
    return ScriptAnswer(encoded, content_type or JSON_TYPE)


def request(name: str, returned: Any) -> bytes | dict[str, Array]:
    """What the engine is asked, as returned by the handler `name`: the body of a REST request, or arrays by input name."""
    encoded = _encoded(returned)
    if encoded is not None:
        return encoded
    if isinstance(returned, Mapping):
        return {_input_name(name, key): _array(f"{name} returned a dict in which {key!r} is", returned[key]) for key in returned}
    return {ONLY_INPUT: _array(f"{name} returned", returned)}


def _encoded(value: Any) -> bytes | None:
    """Text and bytes of any kind as bytes; None for everything else."""
    if isinstance(value, str):
        return value.encode(errors="replace")
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else None


def _input_name(name: str, key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{name} returned a dict with the key {key!r}; expected the names of inputs, as str")
    return key


def _array(where: str, value: Any) -> Array:
    """`value` as an array, if it is one, of NumPy or of another library whose arrays NumPy reads."""
    if isinstance(value, type) or not hasattr(value, "__array__"):
        raise TypeError(
            f"{where} a value of type {_kind(value)}; "
            "expected str or bytes (the JSON of a request), a NumPy array, or a dict of NumPy arrays"
        )
    return np.asarray(value)


def _kind(value: Any) -> str:
    return type(value).__name__
