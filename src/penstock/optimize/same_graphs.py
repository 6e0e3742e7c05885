"""Signatures that compute the same: Keras saves `serve` and `serving_default` of one function, under other names.

Guarantees: two signatures are taken for one only where their graphs differ in nothing but the names of nodes and functions.
They are told apart before they are converted, since what a converter makes of the same graph differs from one time to the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.savedmodel.layout import GRAPH_FILE
from penstock.savedmodel.protos import SavedModelProto
from penstock.tensors import Signature, TensorSpec


def same_graphs(version: Path, tags: Sequence[str], signatures: Mapping[str, Signature]) -> dict[str, str]:
    """For each signature the first that computes the same from inputs of the same names, types and shapes: itself, if none."""
    file = version / GRAPH_FILE
    if not file.is_file():
        return {name: name for name in signatures}  # in the form of text constants are not read
    metas = SavedModelProto.FromString(file.read_bytes()).meta_graphs
    graph = next(meta.graph_def for meta in metas if set(meta.meta_info_def.tags) == set(tags))
    functions = _Functions(graph.library.function)
    firsts: dict[bytes, str] = {}
    return {name: firsts.setdefault(_of_signature(one, graph, functions), name) for name, one in signatures.items()}


def _of_signature(signature: Signature, graph: Any, functions: _Functions) -> bytes:
    inputs = sorted(signature.inputs.values(), key=lambda spec: spec.name)
    outputs = sorted(signature.outputs.values(), key=lambda spec: spec.name)
    values = _Values(graph.node, {_node_name(spec.tensor): _told("input", _type(spec)) for spec in inputs}, functions)
    found = [part for spec in outputs for part in (_type(spec), values.digest(spec.tensor))]
    return _told("signature", *map(_type, inputs), *found)


def _type(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype.name} {spec.shape}"


class _Functions:
    """The functions of a graph, by what they compute."""

    def __init__(self, functions: Iterable[Any]) -> None:
        self._functions = {function.signature.name: function for function in functions}
        self._digests: dict[str, bytes] = {}

    def digest(self, name: str) -> bytes:
        """Of a function, or of an operation, which is known by its name."""
        if name not in self._digests:
            self._digests[name] = _told("name", name)  # in a function that calls itself it stays this
            if name in self._functions:
                self._digests[name] = self._of_body(self._functions[name])
        return self._digests[name]

    def _of_body(self, function: Any) -> bytes:
        arguments = {one.name: _told("argument", str(place)) for place, one in enumerate(function.signature.input_arg)}
        values = _Values(function.node_def, arguments, self)
        returned = [values.digest(function.ret[one.name]) for one in function.signature.output_arg]
        done = sorted(values.digest(f"^{node}") for node in function.control_ret.values())
        return _told("function", *returned, "and", *done)


class _Values:
    """What the nodes of a graph or of a function's body give; `given` are the nodes whose values come from outside."""

    def __init__(self, nodes: Iterable[Any], given: Mapping[str, bytes], functions: _Functions) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._digests = dict(given)
        self._functions = functions

    def digest(self, value: str) -> bytes:
        """Of `node`, `node:0`, `node:output:0`, or `^node`, which says that it has been executed."""
        self._walk(_node_name(value))
        return self._of_value(value)

    def _walk(self, name: str) -> None:
        """Everything that a node depends on comes before it; a stack, since graphs are deeper than Python's."""
        opened: set[str] = set()
        waiting = [name]
        while waiting:
            name = waiting[-1]
            node = self._nodes.get(name)
            missing = [] if node is None or name in opened else [one for one in map(_node_name, node.input) if self._lacks(one)]
            opened.add(name)
            # One that is opened and not done lies below on the stack: a loop, in which names count.
            waiting.extend(one for one in missing if one not in opened)
            if name == waiting[-1]:
                waiting.pop()
                if self._lacks(name):
                    self._digests[name] = _told("missing", name) if node is None else self._of_node(node)

    def _lacks(self, name: str) -> bool:
        return name not in self._digests

    def _of_value(self, value: str) -> bytes:
        name, _, port = value.removeprefix("^").partition(":")
        return _told("control" if value.startswith("^") else "value", port or "0", self._digests.get(name) or _told("loop", name))

    def _of_node(self, node: Any) -> bytes:
        attributes = {attribute.key: attribute.value for attribute in node.attr if not attribute.key.startswith("_")}
        told = [part for key in sorted(attributes) for part in (key, self._of_attribute(attributes[key]))]
        # What outlives a call is found by its own name, or by its node's.
        name = node.name if "shared_name" in attributes else ""
        return _told("node", self._functions.digest(node.op), name, *told, "of", *map(self._of_value, node.input))

    def _of_attribute(self, value: Any) -> bytes:
        bare = type(value)()
        bare.CopyFrom(value)
        for function in ([bare.func] if bare.HasField("func") else []) + list(bare.list.func):
            function.name = self._functions.digest(function.name).hex()
        serialized: bytes = bare.SerializeToString()
        return serialized


def _node_name(value: str) -> str:
    return value.removeprefix("^").partition(":")[0]


def _told(*parts: str | bytes) -> bytes:
    """The digest of parts, of which none runs into the next."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()
