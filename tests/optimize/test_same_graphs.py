"""Signatures that compute the same are found by what they compute, and others are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.optimize.same_graphs import same_graphs
from penstock.savedmodel.protos import SavedModelProto
from penstock.savedmodel.reader import read_saved_model
from penstock.tensors import Signature, TensorSpec, dtype_of_name

#: TensorProto in AttrValue, which our own messages do not have: field 8.
_TENSOR = 8 << 3 | 2


def constant(content: bytes) -> Any:
    """An attribute with a tensor, as other programs write it."""
    proto = SavedModelProto.FromString(b"")
    value = type(proto.meta_graphs.add().graph_def.node.add().attr.add().value)()
    value.MergeFromString(bytes([_TENSOR, len(content)]) + content)
    return value


def put(nodes: Any, name: str, op: str, *inputs: str, **attributes: Any) -> None:
    node = nodes.add(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        attribute = node.attr.add(key=key)
        if isinstance(value, str):
            attribute.value.func.name = value
        else:
            attribute.value.CopyFrom(value)


def put_function(graph: Any, name: str, weight: bytes, argument: str = "x", shared: str = "") -> None:
    """argument -> relu(argument * weight + a variable)"""
    function = graph.library.function.add()
    function.signature.name = name
    function.signature.input_arg.add(name=argument)
    function.signature.output_arg.add(name="y")
    nodes = function.node_def
    # In no order: what a node takes may come behind it.
    put(nodes, f"{name}/relu", "Relu", f"{name}/sum:z:0")
    put(nodes, f"{name}/sum", "AddV2", f"{name}/product:z:0", f"{shared or name}/read:value:0")
    put(nodes, f"{name}/product", "Mul", argument, f"{name}/weight:output:0")
    put(nodes, f"{name}/weight", "Const", value=constant(weight))
    put(nodes, f"{shared or name}/read", "VarHandleOp", **({"shared_name": constant(b"")} if shared else {}))
    function.ret["y"] = f"{name}/relu:activations:0"
    function.control_ret["done"] = f"{name}/relu"


def signature(name: str, number: int) -> Signature:
    float32 = dtype_of_name("float")
    call = "StatefulPartitionedCall" + (f"_{number}" if number else "")
    return Signature(
        name,
        {"x": TensorSpec("x", float32, (None, 3), f"{name}_x:0")},
        {"y": TensorSpec("y", float32, (None, 3), f"{call}:0")},
    )


class Model:
    """Two signatures, each of which calls a function, which calls another."""

    def __init__(self) -> None:
        self.proto = SavedModelProto()
        meta = self.proto.meta_graphs.add()
        meta.meta_info_def.tags.append("serve")
        self.graph = meta.graph_def
        self.signatures = {name: signature(name, number) for number, name in enumerate(("serve", "serving_default"))}
        for number, name in enumerate(self.signatures):
            wrapper = self.graph.library.function.add()
            wrapper.signature.name = f"wrapper_{name}"
            wrapper.signature.input_arg.add(name=f"in_{name}")
            wrapper.signature.output_arg.add(name="identity")
            put(wrapper.node_def, f"{name}/call", "StatefulPartitionedCall", f"in_{name}", f=f"inner_{number}")
            wrapper.ret["identity"] = f"{name}/call:output:0"
            put(self.graph.node, f"{name}_x", "Placeholder")
            put(self.graph.node, self.call(name), "StatefulPartitionedCall", f"{name}_x", f=f"wrapper_{name}")

    def call(self, name: str) -> str:
        return self.signatures[name].outputs["y"].tensor.partition(":")[0]

    def firsts(self, folder: Path) -> Mapping[str, str]:
        (folder / "saved_model.pb").write_bytes(self.proto.SerializeToString())
        return same_graphs(folder, ["serve"], self.signatures)


APART = {"serve": "serve", "serving_default": "serving_default"}
SAME = {"serve": "serve", "serving_default": "serve"}


def test_names_make_no_difference(tmp_path: Path) -> None:
    model = Model()
    put_function(model.graph, "inner_0", b"weight", "a")
    put_function(model.graph, "inner_1", b"weight", "b")
    assert model.firsts(tmp_path) == SAME


def test_a_constant_makes_one_however_deep_it_lies(tmp_path: Path) -> None:
    model = Model()
    put_function(model.graph, "inner_0", b"weight")
    put_function(model.graph, "inner_1", b"Weight")
    assert model.firsts(tmp_path) == APART


@pytest.mark.parametrize(("other", "expected"), [("variable", SAME), ("another", APART)])
def test_what_outlives_a_call_is_known_by_its_name(other: str, expected: Mapping[str, str], tmp_path: Path) -> None:
    model = Model()
    put_function(model.graph, "inner_0", b"weight", shared="variable")
    put_function(model.graph, "inner_1", b"weight", shared=other)
    assert model.firsts(tmp_path) == expected


@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_types_and_names_of_the_signature_make_one(field: str, tmp_path: Path) -> None:
    for change in ({"name": "z"}, {"dtype": dtype_of_name("double")}, {"shape": (None, None)}):
        model = Model()
        for number in range(2):
            put_function(model.graph, f"inner_{number}", b"weight")
        old = model.signatures["serving_default"]
        specs = {"inputs": old.inputs, "outputs": old.outputs}
        changed = replace(*specs[field].values(), **change)
        specs[field] = {changed.name: changed}
        model.signatures["serving_default"] = replace(old, inputs=specs["inputs"], outputs=specs["outputs"])
        assert model.firsts(tmp_path) == APART


def test_another_output_of_the_same_node_makes_one(tmp_path: Path) -> None:
    model = Model()
    for number in range(2):
        put_function(model.graph, f"inner_{number}", b"weight")
    old = model.signatures["serving_default"]
    second = replace(old.outputs["y"], tensor="StatefulPartitionedCall_1:1")
    model.signatures["serving_default"] = replace(old, outputs={"y": second})
    assert model.firsts(tmp_path) == APART


def test_what_is_only_executed_makes_one(tmp_path: Path) -> None:
    model = Model()
    for number in range(2):
        put_function(model.graph, f"inner_{number}", b"weight")
    put(model.graph.node, "printed", "PrintV2", "serve_x")
    next(node for node in model.graph.node if node.name == model.call("serve")).input.append("^printed")
    assert model.firsts(tmp_path) == APART


def test_inputs_are_told_apart(tmp_path: Path) -> None:
    """a - b is not b - a."""
    model = Model()
    float32 = dtype_of_name("float")
    for number, name in enumerate(model.signatures):
        inputs = {one: TensorSpec(one, float32, (None,), f"{name}_{one}:0") for one in "ab"}
        for one in inputs:
            put(model.graph.node, f"{name}_{one}", "Placeholder")
        order = [f"{name}_{one}" for one in ("ab" if number else "ba")]
        put(model.graph.node, f"difference_{number}", "Sub", *order)
        output = TensorSpec("y", float32, (None,), f"difference_{number}:0")
        model.signatures[name] = Signature(name, inputs, {"y": output})
    assert model.firsts(tmp_path) == APART


def test_loops_recursion_and_what_is_missing_end(tmp_path: Path) -> None:
    model = Model()
    for number in range(2):
        function = model.graph.library.function.add()
        function.signature.name = f"inner_{number}"
        function.signature.output_arg.add(name="y")
        put(function.node_def, "merge", "Merge", "enter:output:0", "next:output:0")
        put(function.node_def, "next", "NextIteration", "merge:output:0", f=f"inner_{number}")
        function.ret["y"] = "merge:output:0"
    assert model.firsts(tmp_path) == APART  # names count in a function that calls itself


def test_a_function_that_does_not_say_what_it_returns_is_none_of_the_others(tmp_path: Path) -> None:
    model = Model()
    for number in range(2):
        put_function(model.graph, f"inner_{number}", b"weight")
    del next(one for one in model.graph.library.function if one.signature.name == "inner_1").ret["y"]
    assert model.firsts(tmp_path) == APART


def test_a_deep_graph_is_walked(tmp_path: Path) -> None:
    model = Model()
    for number in range(2):
        put_function(model.graph, f"inner_{number}", b"weight")
        put(model.graph.node, f"deep_{number}_0", "Relu", model.call(list(model.signatures)[number]))
        for depth in range(1, 5000):
            put(model.graph.node, f"deep_{number}_{depth}", "Relu", f"deep_{number}_{depth - 1}")
    model.signatures = {
        name: replace(one, outputs={"y": replace(one.outputs["y"], tensor=f"deep_{number}_4999:0")})
        for number, (name, one) in enumerate(model.signatures.items())
    }
    assert model.firsts(tmp_path) == SAME


def test_the_form_of_text_is_not_compared(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pbtxt").write_text("")
    assert same_graphs(tmp_path, ["serve"], Model().signatures) == APART


def test_what_keras_saves_twice_is_found(tmp_path: Path) -> None:
    """And a third function, of the same layers, in which one number differs, is not taken for it."""
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("keras")
    x = keras.Input((4,), name="x")
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="gelu")(x))
    model = keras.Model({"x": x}, keras.layers.Dense(2)(hidden))
    archive = keras.export.ExportArchive()
    archive.track(model)
    inputs = [{"x": tf.TensorSpec((None, 4), tf.float32, name="x")}]
    for name, offset in (("serve", 1.0), ("again", 1.0), ("other", 2.0)):
        archive.add_endpoint(name, lambda x, offset=offset: model(x) + offset, inputs)
    archive.write_out(str(tmp_path / "1"), verbose=False)
    saved = read_saved_model(tmp_path / "1")
    assert same_graphs(saved.path, saved.tags, saved.signatures) == {
        "again": "again", "other": "other", "serve": "again", "serving_default": "again",
    }  # fmt: skip
