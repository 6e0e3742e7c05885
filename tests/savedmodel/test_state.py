"""Which signatures change something that outlives the call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.savedmodel.protos import message_class
from penstock.savedmodel.reader import read_saved_model
from penstock.savedmodel.state import find_state
from penstock.tensors import FLOAT, Signature, TensorSpec

GraphDef = message_class("penstock.savedmodel.GraphDef")


def graph_of(**nodes: tuple[str, list[str]]) -> Any:
    """A graph of nodes given as name=(op, inputs)."""
    graph = GraphDef()
    for name, (op, inputs) in nodes.items():
        graph.node.add(name=name, op=op, input=inputs)
    return graph


def signatures_of(outputs: str = "y:0", inputs: str = "x:0") -> dict[str, Signature]:
    spec = {tensor: TensorSpec(tensor, FLOAT, None, tensor) for tensor in (inputs, outputs)}
    return {"s": Signature("s", {inputs: spec[inputs]}, {outputs: spec[outputs]})}


def test_model_is_stateful_if_one_signature_is_however_deep(exported: Path) -> None:
    model = read_saved_model(exported)
    assert model.is_stateful
    assert model.stateful_reason == "AssignAddVariableOp in signature 'count'"


def test_loops_tables_variables_and_random_numbers_are_no_state(exported: Path, tf: Any) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    graph = GraphDef.FromString(proto.meta_graphs[0].graph_def.SerializeToString())
    signatures = read_saved_model(exported).signatures
    assert find_state(graph, {name: signatures[name] for name in ("scale", "look_up", "noise")}) == ""


def test_plain_keras_model_is_stateless(exported_keras: Path) -> None:
    model = read_saved_model(exported_keras)
    assert not model.is_stateful
    assert model.stateful_reason == ""
    assert "AssignVariableOp" in model.ops


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("counter/00000123", "AssignAdd in signature 'incr_counter'"),
        ("half_plus_two_cpu/00000123", ""),
        ("half_plus_two_tf2_cpu/00000123", ""),
        ("half_plus_two_2_versions/00000124", ""),
        ("half_plus_three/00000123", ""),
    ],
)
def test_third_party_models(third_party_models: Path, name: str, reason: str) -> None:
    assert read_saved_model(third_party_models / name).stateful_reason == reason


@pytest.mark.parametrize(
    "op",
    [
        "Assign",
        "AssignSub",
        "AssignVariableOp",
        "AssignSubVariableOp",
        "ResourceScatterUpdate",
        "ResourceScatterNdAdd",
        "ScatterNdUpdate",
        "ScatterMax",
        "ResourceApplyAdam",
        "ResourceSparseApplyFtrlV2",
        "ApplyGradientDescent",
        "ResourceStridedSliceAssign",
        "CountUpTo",
        "ResourceCountUpTo",
        "LookupTableInsertV2",
        "LookupTableImportV2",
        "LookupTableRemoveV2",
        "QueueEnqueueManyV2",
        "QueueDequeueV2",
        "StackPushV2",
        "StackPop",
        "BarrierTakeMany",
        "IteratorGetNext",
        "AccumulatorApplyGradient",
        "OrderedMapUnstage",
    ],
)
def test_ops_that_change_state(op: str) -> None:
    assert find_state(graph_of(y=(op, ["x"]), x=("Placeholder", [])), signatures_of()) == f"{op} in signature 's'"


@pytest.mark.parametrize(
    "op",
    [
        "ScatterNd",
        "ScatterNdNonAliasingAdd",
        "TensorScatterUpdate",
        "ReadVariableOp",
        "ResourceGather",
        "LookupTableFindV2",
        "LookupTableSizeV2",
        "RandomUniform",
        "StatefulUniform",
        "TensorArrayWriteV3",
    ],
)
def test_ops_that_do_not(op: str) -> None:
    assert find_state(graph_of(y=(op, ["x"]), x=("Placeholder", [])), signatures_of()) == ""


def test_control_inputs_are_followed() -> None:
    graph = graph_of(y=("Identity", ["x", "^save"]), save=("AssignAdd", []), x=("Placeholder", []))
    assert find_state(graph, signatures_of()) == "AssignAdd in signature 's'"


def test_what_no_output_needs_does_not_count() -> None:
    graph = graph_of(y=("Identity", ["x"]), x=("Placeholder", []), restore=("Assign", ["y"]))
    assert find_state(graph, signatures_of()) == ""


def test_what_lies_behind_a_fed_tensor_does_not_run() -> None:
    graph = graph_of(y=("Identity", ["batch"]), batch=("QueueDequeueV2", []))
    assert find_state(graph, signatures_of(inputs="batch:0")) == ""
    assert find_state(graph, signatures_of(inputs="batch:1")) == "QueueDequeueV2 in signature 's'"


def test_signatures_with_other_inputs_are_searched_anew() -> None:
    """A node seen behind one signature's feed may still run for another."""
    graph = graph_of(y=("Identity", ["batch"]), batch=("Identity", ["queue"]), queue=("QueueDequeueV2", []))
    first, second = signatures_of(inputs="batch:0")["s"], signatures_of(inputs="other:0")["s"]
    assert find_state(graph, {"first": first, "second": second}) == "QueueDequeueV2 in signature 'second'"


def test_cycles_of_nodes_and_of_functions_end() -> None:
    graph = graph_of(y=("Merge", ["x", "next"]), next=("NextIteration", ["y"]), x=("f", []))
    body = graph.library.function.add()
    body.signature.name = "f"
    body.node_def.add(name="again", op="PartitionedCall").attr.add().value.func.name = "f"
    assert find_state(graph, signatures_of(inputs="none:0")) == ""


@pytest.mark.parametrize("through", ["op", "func", "list"])
def test_functions_are_searched_however_they_are_called(through: str) -> None:
    graph = graph_of(y=("f" if through == "op" else "Call", []))
    if through == "func":
        graph.node[0].attr.add().value.func.name = "f"
    elif through == "list":
        graph.node[0].attr.add().value.list.func.add(name="f")
    body = graph.library.function.add()
    body.signature.name = "f"
    body.node_def.add(name="a", op="Identity")
    body.node_def.add(name="b", op="AssignVariableOp")
    assert find_state(graph, signatures_of()) == "AssignVariableOp in signature 's'"


def test_deep_graphs_do_not_recurse() -> None:
    graph = GraphDef()
    for number in range(20_000):
        graph.node.add(name=f"n{number}", op="Identity", input=[f"n{number + 1}"])
        function = graph.library.function.add()
        function.signature.name = f"f{number}"
        function.node_def.add(name="call", op=f"f{number + 1}")
    graph.node.add(name="n20000", op="f0")
    assert find_state(graph, signatures_of("n0:0")) == ""
