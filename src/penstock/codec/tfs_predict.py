"""Predict over REST, TensorFlow Serving's JSON in both directions (contract §1.3, §1.4).

A body goes through at most three ways, each more patient than the one before: numbers copied out of simdjson's
document, the document as Python objects, and the parser that takes what the standard forbids. All errors come from the last two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import simdjson

from penstock.codec import json_buffer
from penstock.codec.json_bytes import is_base64_object
from penstock.codec.json_encode import encode_array, encode_rows, encode_text
from penstock.codec.json_parse import parse_lenient, parse_strict, tree_of
from penstock.codec.json_tensor import tensor
from penstock.codec.json_text import quote
from penstock.codec.tfs_rows import stack_rows
from penstock.errors import InvalidArgument
from penstock.tensors import Array, Signature

_INSTANCES_ALONE = ("instances",)
_PLAIN_INPUTS = "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"


@dataclass(slots=True)
class PredictRequest:
    """A decoded request: `inputs` in the order of `signature.inputs`."""

    signature: Signature
    inputs: tuple[Array, ...]
    is_row_format: bool


def decode_predict(body: bytes, find_signature: Callable[[str], Signature]) -> PredictRequest:
    """The request that `body` holds.

    `find_signature` gets the name ("" where there is none) and raises for what is unknown; it is asked once the body
    has proved to be JSON, and before the values are looked at. Raises InvalidArgument, or Unimplemented for complex inputs.
    """
    document = parse_strict(body)
    if document is None:
        return _from_tree(parse_lenient(body), find_signature)
    names: Sequence[str] = _INSTANCES_ALONE
    if len(document) == 1 and type(instances := document.get("instances")) is simdjson.Array:
        signature = _found("", find_signature)
        if len(signature.inputs) == 1:  # what most requests are, with the fewest steps: a fifth quicker
            (spec,) = signature.inputs.values()
            array = json_buffer.lone_tensor(instances, spec.dtype, body)
            if array is not None:
                return PredictRequest(signature, (array,), True)
    else:
        names = list(document)
        name = document["signature_name"] if "signature_name" in names else ""
        if type(name) is not str:
            return _from_tree(tree_of(document, body), find_signature)
        signature = _found(name, find_signature)
    inputs = _from_document(document, names, signature, body)
    if inputs is None:
        return _of_values(tree_of(document, body), signature)
    return PredictRequest(signature, inputs, "instances" in names)


def signature_name_of(root: Any) -> str:
    """The `signature_name` of a parsed body, "" where it has none. Raises InvalidArgument."""
    if type(root) is not dict:
        raise InvalidArgument(f"JSON Value: {quote(root)} Is not object")
    name = root.get("signature_name", "")
    if type(name) is not str:
        raise InvalidArgument(f"JSON Value: {quote(root)} not formatted correctly. 'signature_name' key must be a string value.")
    return name


def encode_predict(outputs: Mapping[str, Array], is_row_format: bool, is_finite: bool = False) -> bytes:
    """The response: `{"predictions": [...]}` for a request in row format, otherwise `{"outputs": ...}`.

    A single output goes without its name. `is_finite` promises that no output holds NaN or infinity, and saves looking.
    Raises InvalidArgument for outputs that rows cannot be made of, and for types without JSON.
    """
    if not outputs:
        raise InvalidArgument("Cannot convert empty tensor map to JSON")
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        if is_row_format and array.ndim == 0:
            _check_rows(outputs)
        text = encode_array(array, name, is_finite)
    elif is_row_format:
        _check_rows(outputs)
        text = encode_rows(outputs, is_finite)
    else:
        members = [encode_text(name) + b":" + encode_array(array, name, is_finite) for name, array in outputs.items()]
        text = b"{" + b",".join(members) + b"}"
    return (b'{"predictions":' if is_row_format else b'{"outputs":') + text + b"}"


def _found(name: str, find_signature: Callable[[str], Signature]) -> Signature:
    signature = find_signature(name)
    if not signature.inputs:
        raise InvalidArgument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    return signature


def _from_document(document: Any, names: Sequence[str], signature: Signature, body: bytes) -> tuple[Array, ...] | None:
    """The inputs, if they are regular tensors of numbers."""
    if ("instances" in names) == ("inputs" in names) or len(set(names)) != len(names):
        return None
    key = "instances" if "instances" in names else "inputs"
    value = document[key]
    kind: type[Any] = type(value)
    specs = signature.inputs
    found: tuple[tuple[Array, ...], bytes] | None = None
    if kind is simdjson.Object:
        found = json_buffer.columns(value, specs, len(body)) if key == "inputs" else None
    elif kind is simdjson.Array and len(value):
        if type(value[0]) is simdjson.Object:
            found = json_buffer.rows(value, specs, len(body)) if key == "instances" else None
        elif len(specs) == 1:
            (spec,) = specs.values()
            part = json_buffer.column(value, spec.dtype, len(body))
            found = None if part is None else ((part[0],), part[1])
    if found is None or not json_buffer.is_regular(body, document, names, key, found[1]):
        return None
    return found[0]


def _from_tree(root: Any, find_signature: Callable[[str], Signature]) -> PredictRequest:
    return _of_values(root, _found(signature_name_of(root), find_signature))


def _of_values(root: dict[str, Any], signature: Signature) -> PredictRequest:
    if "instances" not in root:
        if "inputs" not in root:
            raise InvalidArgument("Missing 'inputs' or 'instances' key")
        return PredictRequest(signature, _columns(root["inputs"], signature), False)
    if "inputs" in root:
        raise InvalidArgument(
            f"JSON Value: {quote(root)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    rows = root["instances"]
    if type(rows) is not list:
        raise InvalidArgument(f"JSON Value: {quote(root)} Expecting 'instances' to be an list/array")
    if not rows:
        raise InvalidArgument(f"JSON Value: {quote(root)} No values in 'instances' array")
    return PredictRequest(signature, stack_rows(rows, signature.inputs), True)


def _columns(value: Any, signature: Signature) -> tuple[Array, ...]:
    specs = signature.inputs
    if type(value) is not dict or is_base64_object(value):
        if len(specs) > 1:
            raise InvalidArgument(_PLAIN_INPUTS)
        (spec,) = specs.values()
        return (tensor(value, spec.dtype),)
    arrays: list[Array] = []
    for name, spec in specs.items():
        if name not in value:
            raise InvalidArgument(f"Missing named input: {name} in 'inputs' object.")
        arrays.append(tensor(value[name], spec.dtype))
    return tuple(arrays)


def _check_rows(outputs: Mapping[str, Array]) -> None:
    batch_size: int | None = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise InvalidArgument(f"Tensor name: {name} has no shape information ")
        if batch_size not in (None, len(array)):
            raise InvalidArgument(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch_size}")
        batch_size = len(array)
