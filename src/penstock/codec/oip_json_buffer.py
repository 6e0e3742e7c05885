"""Large requests of the Open Inference Protocol in JSON: numbers straight out of simdjson's document.

As in json_buffer, lists are flattened first and proved to be regular afterwards: the body without everything but `[`, `]` and `,`
must equal what its members and shapes make up. Here the members are known: those of a request, of an input and of an output.
"""

from __future__ import annotations

from typing import Any

import simdjson

from penstock.codec.json_buffer import column, is_plain, is_regular
from penstock.codec.json_parse import parse_strict
from penstock.codec.oip_tensor import DATATYPES
from penstock.tensors import Array

_JsonArray = simdjson.Array
_JsonObject = simdjson.Object
#: For a skeleton that is of the whole body.
_ONE_MEMBER = ("",)


def decode_document(body: bytes) -> tuple[dict[str, Any], dict[int, Array]] | None:
    """The request without `data`, and that of each input by its place; None where another way has to be gone."""
    document = parse_strict(body)
    if document is None:
        return None
    try:
        return _Reader(body).request(document)
    except _Unsure:
        return None


class _Unsure(Exception):
    """The request is not one of those that can be read here."""


class _Reader:
    """Reads one document; `skeletons` of its members are what proves it."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._arrays: dict[int, Array] = {}

    def request(self, document: Any) -> tuple[dict[str, Any], dict[int, Array]]:
        tree: dict[str, Any] = {}
        skeletons: list[bytes] = []
        for name in _names(document):
            value = document[name]
            if name == "inputs" and type(value) is _JsonArray:
                parts = [self._input(item, index) for index, item in enumerate(value)]
            elif name == "outputs" and type(value) is _JsonArray:
                parts = [_members(item) for item in value]
            else:
                tree[name], skeleton = _flat(value)
                skeletons.append(skeleton)
                continue
            tree[name] = [part[0] for part in parts]
            skeletons.append(b"[" + b",".join([part[1] for part in parts]) + b"]")
        if not is_regular(self._body, document, _ONE_MEMBER, "", b",".join(skeletons)):
            raise _Unsure
        return tree, self._arrays

    def _input(self, item: Any, index: int) -> tuple[dict[str, Any], bytes]:
        tree: dict[str, Any] = {}
        skeletons: list[bytes] = []
        names = _names(item)
        datatype = item["datatype"] if "datatype" in names else None
        for name in names:
            value = item[name]
            if name == "data":
                dtype = DATATYPES.get(datatype) if type(datatype) is str else None
                part = column(value, dtype, len(self._body)) if dtype is not None and type(value) is _JsonArray else None
                if part is None:
                    raise _Unsure
                self._arrays[index] = part[0]
                skeletons.append(part[1])
            else:
                tree[name], skeleton = _flat(value)
                skeletons.append(skeleton)
        return tree, b",".join(skeletons)


def _names(value: Any) -> list[str]:
    """The names of an object's members."""
    if type(value) is not _JsonObject:
        raise _Unsure
    names = list(value)
    if len(set(names)) != len(names) or not all(map(is_plain, names)):
        raise _Unsure
    return names


def _members(value: Any) -> tuple[dict[str, Any], bytes]:
    tree: dict[str, Any] = {}
    skeletons: list[bytes] = []
    for name in _names(value):
        tree[name], skeleton = _flat(value[name])
        skeletons.append(skeleton)
    return tree, b",".join(skeletons)


def _flat(value: Any) -> tuple[Any, bytes]:
    """A plain value, or an object or a list of plain ones, with its skeleton."""
    if type(value) is _JsonObject:
        names = _names(value)
        members = {name: value[name] for name in names}
        skeleton = b"," * (len(names) - 1)
    elif type(value) is _JsonArray:
        items = list(value)
        if not all(map(is_plain, items)):
            raise _Unsure
        return items, b"[" + b"," * (len(items) - 1) + b"]"
    else:
        members = {"": value}
        skeleton = b""
    if not all(map(is_plain, members.values())):
        raise _Unsure
    return (members if type(value) is _JsonObject else value), skeleton
