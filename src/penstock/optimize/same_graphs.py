"""Signatures with the same graph: Keras saves `serve` and `serving_default` of one function, and converters write it twice.

Two graphs are the same where nothing but names differs. The second file goes, and its signature names the tensors of the first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from penstock.engine.variant import SignatureEntry, TensorEntry


@dataclass(frozen=True, slots=True)
class Shape:
    """A graph without its names: the digest of what it computes, and the names of its inputs and outputs in their order."""

    digest: bytes
    inputs: list[str]
    outputs: list[str]

    def holds(self, entry: SignatureEntry) -> bool:
        """Whether all tensors of a signature are among the names."""
        return all(
            any(one.tensor == name or one.tensor in name.split(",") for name in names)
            for ones, names in ((entry.inputs, self.inputs), (entry.outputs, self.outputs))
            for one in ones
        )


def share_graphs(folder: Path, entries: Sequence[SignatureEntry], shape_of: Callable[[Path], Shape]) -> list[SignatureEntry]:
    """The entries, with one file for those whose graphs are the same. Removes the files that are no longer needed."""
    kept: dict[bytes, tuple[str, Shape]] = {}
    shared: list[SignatureEntry] = []
    for entry in entries:
        shape = shape_of(folder / entry.file)
        if not shape.holds(entry):
            shared.append(entry)  # a graph with bodies of loops, whose names are not all found: it stays by itself
            continue
        file, first = kept.setdefault(shape.digest, (entry.file, shape))
        if file != entry.file:
            for leftover in folder.glob(f"{Path(entry.file).stem}.*"):
                leftover.unlink()
            entry = msgspec.structs.replace(
                entry,
                file=file,
                inputs=[_renamed(one, shape.inputs, first.inputs) for one in entry.inputs],
                outputs=[_renamed(one, shape.outputs, first.outputs) for one in entry.outputs],
            )
        shared.append(entry)
    return shared


def onnx_shape(file: Path) -> Shape:
    """Of an ONNX file: values are numbered in the order in which they come to be."""
    import onnx

    model = onnx.load(str(file))
    graph = model.graph
    inputs, outputs = [one.name for one in graph.input], [one.name for one in graph.output]
    numbers: dict[str, str] = {}
    _number_names(graph, numbers)
    digest = hashlib.sha256(repr([(one.domain, one.version) for one in model.opset_import]).encode())
    _digest_graph(graph, numbers, digest.update)
    return Shape(digest.digest(), inputs, outputs)


def openvino_shape(file: Path) -> Shape:
    """Of OpenVINO's XML file, with the weights beside it. Its ports are known by the names of their tensors."""
    text = file.read_text()
    inputs = re.findall(r'<layer[^>]*type="Parameter".*?names="([^"]*)"', text, re.DOTALL)
    results = re.findall(r'<layer id="(\d+)"[^>]*type="Result"', text)
    outputs = [_producer_names(text, number) for number in results]
    bare = re.sub(r' (?:names|name)="[^"]*"|output_names="[^"]*"', "", text.partition("<rt_info>")[0])
    weights = file.with_suffix(".bin")
    content = weights.read_bytes() if weights.exists() else b""
    return Shape(hashlib.sha256(bare.encode() + content).digest(), inputs, outputs)


def _renamed(entry: TensorEntry, names: Sequence[str], first: Sequence[str]) -> TensorEntry:
    place = next(place for place, name in enumerate(names) if entry.tensor == name or entry.tensor in name.split(","))
    return msgspec.structs.replace(entry, tensor=first[place].split(",")[0])


def _number_names(graph: Any, numbers: dict[str, str]) -> None:
    """Inputs first, then what nodes take and give, in their order: constants lie in the file in that of their names."""
    for one in graph.input:
        numbers.setdefault(one.name, str(len(numbers)))
    for node in graph.node:
        for name in (*node.input, *node.output):
            if name:
                numbers.setdefault(name, str(len(numbers)))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _number_names(attribute.g, numbers)


def _digest_graph(graph: Any, numbers: dict[str, str], update: Callable[[bytes], None]) -> None:
    """Feeds everything but names to `update`."""

    def told(names: Any) -> bytes:
        return ",".join(numbers.get(name, "") for name in names).encode()

    for one in graph.input:
        kind = one.type.tensor_type
        update(repr((kind.elem_type, [dim.dim_value for dim in kind.shape.dim])).encode())
    for tensor in sorted((one for one in graph.initializer if one.name in numbers), key=lambda one: int(numbers[one.name])):
        bare = type(tensor)()
        bare.CopyFrom(tensor)
        bare.ClearField("name")
        update(numbers[tensor.name].encode() + bare.SerializeToString())
    for node in graph.node:
        update(node.op_type.encode() + b"|" + node.domain.encode() + b"|" + told(node.input) + b"|" + told(node.output))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                update(attribute.name.encode())
                _digest_graph(attribute.g, numbers, update)
                continue
            bare = type(attribute)()
            bare.CopyFrom(attribute)
            bare.t.ClearField("name")
            update(bare.SerializeToString())
    update(told(one.name for one in graph.output))


def _producer_names(text: str, result: str) -> str:
    """The names of the tensor that a Result layer takes."""
    edge = re.search(rf'<edge from-layer="(\d+)" from-port="(\d+)" to-layer="{result}"', text)
    if edge is None:
        return ""
    layer = re.search(rf'<layer id="{edge[1]}".*?</layer>', text, re.DOTALL)
    port = layer and re.search(rf'<port id="{edge[2]}"[^>]*names="([^"]*)"', layer[0])
    return port[1] if port else ""
