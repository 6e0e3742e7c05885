"""Inference over the Open Inference Protocol's REST API: JSON, with tensors in it or as bytes behind it.

Guarantees: tensors that are bytes are views of the body. Numbers in large JSON bodies never become Python objects; a small body
is quicker as a tree. Bodies that strict JSON forbids (NaN) take a way of their own. Raises nothing but InvalidArgument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from penstock.codec.json_encode import encode_array, encode_text
from penstock.codec.json_parse import parse_lenient
from penstock.codec.json_tensor import fault, to_array
from penstock.codec.oip_json_buffer import decode_document
from penstock.codec.oip_request import (
    InferHead,
    InputHead,
    OutputHead,
    Place,
    Value,
    Write,
    check_count,
    output_head,
    place_of,
    place_parameters,
    stored,
    whole_number,
)
from penstock.codec.oip_tensor import Shape, checked_shape, datatype_of_array, dtype_of_datatype, view_of_array
from penstock.errors import InvalidArgument
from penstock.tensors import Array, DType

HEADER_FIELD = b"inference-header-content-length"
_BINARY_SIZE = "binary_data_size"
#: Bodies from here on are not made into Python objects (1.3 KB: 10 µs as a tree, 15 as a buffer; 10 KB: 33 and 25).
_LARGE_BODY = 4096
_KEPT_HEADS = 1024
_KEPT_HEAD_BYTES = 2048
_KEPT_OUTPUTS = 4096
_heads: dict[bytes, tuple[InferHead, tuple[int, ...]]] = {}
#: An input's size in the bytes behind the JSON where it is in shared memory.
_NO_BYTES = -1


def header_length(field: str | None) -> int | None:
    """The length of the JSON at the body's start, None where it is all of it. Raises InvalidArgument."""
    if field is None:
        return None
    text = field.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidArgument(f"Inference-Header-Content-Length is no number: {text[:40]}")
    return int(text)


def decode_infer(body: bytes | memoryview, json_bytes: int | None) -> tuple[InferHead, list[Value]]:
    """A request and the elements of its inputs; `json_bytes` is what `header_length` found. Raises InvalidArgument."""
    if json_bytes is None:
        return _decode_json(bytes(body))
    if json_bytes > len(body):
        raise InvalidArgument(f"Inference-Header-Content-Length is {json_bytes}, and the body has {len(body)} bytes")
    text = bytes(body[:json_bytes])
    kept = _heads.get(text)
    if kept is not None:
        return kept[0], _cut(kept[0], kept[1], body, json_bytes)
    tree = _parse(text)
    head, sizes, values = _decode_tree(tree, {}, len(body) - json_bytes)
    if all(value is None for value in values):
        _keep(text, head, sizes)
        return head, _cut(head, sizes, body, json_bytes)
    cut = _cut(head, sizes, body, json_bytes)
    return head, [other if value is None else value for value, other in zip(values, cut, strict=True)]


def _keep(text: bytes, head: InferHead, sizes: tuple[int, ...]) -> None:
    """Remembers the head of requests that may come again: those without an id."""
    if not head.id and len(text) <= _KEPT_HEAD_BYTES:
        if len(_heads) >= _KEPT_HEADS:
            _heads.clear()
        _heads[text] = head, sizes


def _cut(head: InferHead, sizes: Sequence[int], body: bytes | memoryview, at: int) -> list[Value]:
    """The bytes of each input, views of the body; None for those that have none there."""
    view = memoryview(body)
    values: list[Value] = []
    for size in sizes:
        if size == _NO_BYTES:
            values.append(None)
        else:
            values.append(view[at : at + size])
            at += size
    if at != len(body):
        raise InvalidArgument(f"The inputs have {_BINARY_SIZE} of {at} bytes with the JSON, and the body has {len(body)} bytes")
    return values


def _decode_json(body: bytes) -> tuple[InferHead, list[Value]]:
    found = decode_document(body) if len(body) >= _LARGE_BODY else None
    tree, arrays = (_parse(body), {}) if found is None else found
    head, sizes, values = _decode_tree(tree, arrays, None)
    for one, size in zip(head.inputs, sizes, strict=True):
        if size != _NO_BYTES:
            raise InvalidArgument(f"{one.title} has {_BINARY_SIZE}, and the request no Inference-Header-Content-Length")
    return head, values


def _parse(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return parse_lenient(text)


def _decode_tree(tree: Any, arrays: Mapping[int, Array], room: int | None) -> tuple[InferHead, tuple[int, ...], list[Value]]:
    """The head, the bytes of each input behind the JSON, and the elements of those whose elements are in it.

    `arrays` are those that have been read already, by the inputs' places. No input can have more than `room` bytes.
    """
    root = _object(tree, "The body")
    parameters = _object(root.get("parameters", {}), "parameters")
    request_id = root.get("id", "")
    if type(request_id) is not str:
        raise InvalidArgument("id is no text")
    heads: list[InputHead] = []
    sizes: list[int] = []
    values: list[Value] = []
    for index, item in enumerate(_list(root.get("inputs"), "inputs")):
        head, size, value = _input(_object(item, f"inputs[{index}]"), index, arrays.get(index))
        if room is not None and size > room:
            raise InvalidArgument(f"{head.title}: {_BINARY_SIZE} is {size}, and only {room} bytes follow the JSON")
        heads.append(head)
        sizes.append(size)
        values.append(value)
    outputs = root.get("outputs")
    wanted = None if outputs is None else tuple([_output(item, at) for at, item in enumerate(_list(outputs, "outputs"))])
    return InferHead(tuple(heads), wanted or None, parameters, request_id=request_id), tuple(sizes), values


def _input(item: dict[str, Any], index: int, array: Array | None) -> tuple[InputHead, int, Value]:
    name = _name(item, f"inputs[{index}]")
    where = f"Input '{name}'"
    dtype = dtype_of_datatype(item.get("datatype"), where)
    shape = checked_shape(_list(item.get("shape"), f"{where}: shape"), where)
    parameters = item.get("parameters")
    if parameters:
        _object(parameters, f"{where}: parameters")
        place = place_of(parameters, where)
        size = whole_number(parameters, _BINARY_SIZE, where)
        if place is not None or size is not None:
            if "data" in item or array is not None or (place is not None and size is not None):
                raise InvalidArgument(f"{where}: its elements are in more than one place")
            return InputHead(name, dtype, shape, place), _NO_BYTES if size is None else size, None
    head = InputHead(name, dtype, shape, None)
    if array is not None:
        return head, _NO_BYTES, _shaped(array, shape, where)
    if "data" not in item:
        raise InvalidArgument(f"{where} has no data")
    return head, _NO_BYTES, _shaped(_array(item["data"], dtype, where), shape, where)


def _array(data: Any, dtype: DType, where: str) -> Array:
    if type(data) is not list:
        raise InvalidArgument(f"{where}: data is no list")
    array = to_array(data, dtype)
    if array is None:
        error = fault(data, dtype)
        raise InvalidArgument(f"{where}: {error.message if error is not None else 'data is no tensor'}")
    return array


def _shaped(array: Array, shape: Shape, where: str) -> Array:
    """Elements that came flat, or nested as the shape says."""
    check_count(array.size, shape, where)
    if array.ndim > 1 and array.size and array.shape != shape:
        raise InvalidArgument(f"{where}: data is nested as {list(array.shape)}, and the shape is {list(shape)}")
    return array.reshape(shape)


def _output(item: Any, index: int) -> OutputHead:
    where = f"outputs[{index}]"
    name = _name(_object(item, where), where)
    return output_head(name, _object(item.get("parameters") or {}, f"Output '{name}': parameters"))


def _name(item: dict[str, Any], where: str) -> str:
    name = item.get("name")
    if type(name) is not str or not name:
        raise InvalidArgument(f"{where} has no name")
    return name


def _object(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidArgument(f"{where} is no JSON object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if type(value) is not list:
        raise InvalidArgument(f"{where} is no list" if value is not None else f"{where} is missing")
    return value


def encode_infer(
    head: InferHead,
    model: str,
    version: int,
    outputs: Sequence[tuple[OutputHead, Array]],
    write: Write,
    *,
    is_finite: bool = False,
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of the JSON at its start where tensors follow it as bytes.

    `is_finite` promises that no output holds NaN or infinity. Raises InvalidArgument for elements that the protocol lacks.
    """
    texts: list[bytes] = []
    parts: list[bytes | memoryview] = []
    for one, array in outputs:
        start = _output_start(one.name, datatype_of_array(array), array.shape)
        if one.place is not None:
            text = _placed(stored(one, array, write))
        elif head.is_binary if one.is_binary is None else one.is_binary:
            part = view_of_array(array)
            parts.append(part)
            text = b',"parameters":{"binary_data_size":%d}}' % len(part)
        else:
            text = b',"data":' + encode_array(array.reshape(-1), is_finite=is_finite) + b"}"
        texts.append(start + text)
    request_id = b',"id":' + encode_text(head.id) if head.id else b""
    body = b'%b%b,"outputs":[%b]}' % (_answer_start(model, version), request_id, b",".join(texts))
    if not parts:
        return body, None
    return b"".join([body, *parts]), len(body)


def _placed(place: Place) -> bytes:
    return b',"parameters":' + orjson.dumps(place_parameters(place)) + b"}"


@lru_cache(_KEPT_OUTPUTS)
def _answer_start(model: str, version: int) -> bytes:
    return b'{"model_name":%b,"model_version":"%d"' % (encode_text(model), version)


@lru_cache(_KEPT_OUTPUTS)
def _output_start(name: str, datatype: str, shape: Shape) -> bytes:
    sizes = ",".join(map(str, shape))
    return b'{"name":%b,"datatype":"%b","shape":[%b]' % (encode_text(name), datatype.encode(), sizes.encode())
