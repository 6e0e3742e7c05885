"""Small networks in ONNX, built from code with random weights, and the signatures that they have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penstock.engine.engines import ONNXRUNTIME
from penstock.engine.variant import Variant, signature_entry, write_variant
from penstock.tensors import Array, Signature, TensorSpec, dtype_of_name

SIGNATURE = "serving_default"
WORDS = 128
_OPSET = 18
_IR = 9


class Graph:
    """A network with one input and one output, and what it is called with."""

    def __init__(self, name: str, dtype: str, shape: tuple[int | None, ...], columns: int) -> None:
        self.name = name
        self.signature = Signature(
            SIGNATURE,
            {"x": TensorSpec("x", dtype_of_name(dtype), shape, "x")},
            {"y": TensorSpec("y", dtype_of_name("float"), (None, columns), "y")},
        )
        self._random = np.random.default_rng(len(name))
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def weight(self, name: str, *shape: int, scale: float = 0.0) -> str:
        """Normal numbers, by default as large as keeps what goes through about as it was."""
        size = scale or 1 / float(np.sqrt(np.prod(shape[1:]) if len(shape) > 2 else shape[0]))
        return self.constant(name, (self._random.standard_normal(shape) * size).astype(np.float32))

    def constant(self, name: str, value: Array) -> str:
        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{output}_{kind}", **attributes))
        return output

    def model(self) -> Any:
        kinds = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64}
        inputs, outputs = (
            [helper.make_tensor_value_info(spec.name, kinds[spec.dtype.name], ["n", *(spec.shape or ())[1:]]) for spec in specs]
            for specs in (self.signature.inputs.values(), self.signature.outputs.values())
        )
        graph = helper.make_graph(self._nodes, self.name, inputs, outputs, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
        onnx.checker.check_model(model)
        return model


def perceptron() -> Graph:
    graph = Graph("perceptron", "float", (None, 24), 10)
    one = graph.node("Gemm", ["x", graph.weight("w1", 24, 32), graph.weight("b1", 32, scale=0.3)], "one")
    act = graph.node("Relu", [one], "one_act")
    two = graph.node("MatMul", [act, graph.weight("w2", 32, 32)], "two")
    both = graph.node("Add", [two, graph.weight("b2", 32, scale=0.3)], "two_sum")
    gate = graph.node("Sigmoid", [both], "gate")
    gated = graph.node("Mul", [gate, both], "gated")
    graph.node("Gemm", [gated, graph.weight("w3", 32, 10), graph.weight("b3", 10, scale=0.3)], "y")
    return graph


def convolution() -> Graph:
    graph = Graph("convolution", "float", (None, 3, 12, 12), 6)
    one = graph.node("Conv", ["x", graph.weight("k1", 8, 3, 3, 3), graph.weight("c1", 8, scale=0.3)], "one", pads=[1, 1, 1, 1])
    act = graph.node("LeakyRelu", [one], "one_act", alpha=0.1)
    pooled = graph.node("AveragePool", [act], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    two = graph.node("Conv", [pooled, graph.weight("k2", 8, 8, 3, 3), graph.weight("c2", 8, scale=0.3)], "two", pads=[1, 1, 1, 1])
    both = graph.node("Add", [two, pooled], "both")
    relu = graph.node("Relu", [both], "two_act")
    flat = graph.node("Flatten", [graph.node("GlobalAveragePool", [relu], "mean")], "flat", axis=1)
    graph.node("Softmax", [graph.node("Gemm", [flat, graph.weight("w", 8, 6, scale=2.0)], "logits")], "y", axis=1)
    return graph


def tokens() -> Graph:
    graph = Graph("tokens", "int64", (None, 12), 5)
    looked = graph.node("Gather", [graph.weight("table", WORDS, 16, scale=1.0), "x"], "looked", axis=0)
    placed = graph.node("Add", [looked, graph.weight("places", 12, 16, scale=0.5)], "placed")
    scale, shift = graph.constant("scale", np.ones(16, np.float32)), graph.weight("shift", 16, scale=0.2)
    normal = graph.node("LayerNormalization", [placed, scale, shift], "normal", axis=-1, epsilon=1e-5)
    mixed = graph.node("Tanh", [graph.node("MatMul", [normal, graph.weight("mix", 16, 16)], "mixed")], "act")
    axes = graph.constant("axes", np.array([1], np.int64))
    whole = graph.node("ReduceMean", [mixed, axes], "whole", keepdims=0)
    graph.node("Gemm", [whole, graph.weight("head", 16, 5, scale=0.5), graph.weight("base", 5, scale=0.2)], "y")
    return graph


GRAPHS: tuple[Callable[[], Graph], ...] = (perceptron, convolution, tokens)


def weights_of(model: Any) -> dict[str, Array]:
    """Those that are numbers of the network, by name."""
    arrays = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    return {name: array for name, array in arrays.items() if array.dtype == np.float32}


def with_weight(model: Any, name: str, value: Array) -> Any:
    """A copy with another value of a weight."""
    changed = type(model)()
    changed.CopyFrom(model)
    tensor = next(tensor for tensor in changed.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return changed


def write_model(folder: Path, graph: Graph, model: Any) -> None:
    """A variant's folder."""
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "0.onnx"))
    entry = signature_entry(graph.signature, "0.onnx", {"input x": "x", "output y": "y"})
    write_variant(folder, Variant(ONNXRUNTIME, "fp32", [entry]))
