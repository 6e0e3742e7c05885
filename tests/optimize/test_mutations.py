"""No variant that answers otherwise is proven: faults that are put into graphs, and 200 graphs that are changed at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from penstock.engine.base import EngineOptions
from penstock.engine.engines import ONNXRUNTIME
from penstock.optimize.proof import TOLERANCES, Case, prove
from penstock.optimize.runner import Runner
from penstock.optimize.samples import made_up
from penstock.tensors import Array, Signature
from tests.optimize.graphs import GRAPHS, SIGNATURE, WORDS, Graph, weights_of, with_weight, write_model

TOLERANCE = TOLERANCES["fp32"]
MUTANTS = 200
#: An output that is off by less than this part of its largest element is the same: it is the arithmetic's own last digits.
SAME = 2e-6

REFUSALS = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.NotImplemented, errors.RuntimeException)

Mutation = Callable[[Any, np.random.Generator], str]


@pytest.mark.parametrize("make", GRAPHS, ids=lambda make: str(make.__name__))
def test_a_weight_that_is_changed_by_one_percent_is_refused(make: Callable[[], Graph], tmp_path: Path) -> None:
    graph = make()
    model = graph.model()
    cases = made_up(graph.signature)
    references = answers_of_variant(tmp_path / "model", graph, model, cases)
    assert prove(graph.signature, cases, references, references, TOLERANCE)[1] == ""
    for name, value in weights_of(model).items():
        changed = with_weight(model, name, value * np.float32(1.01))
        answers = answers_of_variant(tmp_path / name, graph, changed, cases)
        _, reason = prove(graph.signature, cases, references, answers, TOLERANCE)
        assert "is allowed" in reason or "is expected" in reason, f"{name} times 1.01"


def answers_of_variant(folder: Path, graph: Graph, model: Any, cases: list[Case]) -> list[dict[str, Array] | str]:
    write_model(folder, graph, model)
    return Runner(ONNXRUNTIME, folder, EngineOptions(intra_op=1)).answers(SIGNATURE, [case.inputs for case in cases])


# Changes: each makes one in a model, and says which; "" where the model has no place for it.


def scale_layer(model: Any, random: np.random.Generator) -> str:
    weights = weights_of(model)
    name, factor = str(random.choice(list(weights))), np.float32(random.uniform(0.9, 1.1))
    model.CopyFrom(with_weight(model, name, weights[name] * factor))
    return f"{name} times {factor}"


def transpose_constant(model: Any, random: np.random.Generator) -> str:
    square = {name: value for name, value in weights_of(model).items() if value.ndim > 1 and value.shape[-1] == value.shape[-2]}
    if not square:
        return ""
    name = str(random.choice(list(square)))
    model.CopyFrom(with_weight(model, name, square[name].swapaxes(-1, -2)))
    return f"{name} transposed"


_OTHER_OPS: dict[str, tuple[str, ...]] = {
    "Relu": ("LeakyRelu", "Elu", "Softplus", "Abs", "Identity"),
    "LeakyRelu": ("Relu", "Elu", "Identity"),
    "Sigmoid": ("HardSigmoid", "Tanh", "Softplus"),
    "Tanh": ("Softsign", "Erf", "Sigmoid", "Sin"),
    "Add": ("Sub", "Max", "Mul"),
    "Mul": ("Add", "Min"),
    "AveragePool": ("MaxPool",),
    "GlobalAveragePool": ("GlobalMaxPool",),
    "Softmax": ("LogSoftmax", "Hardmax"),
    "ReduceMean": ("ReduceMax", "ReduceSum"),
}


def replace_op(model: Any, random: np.random.Generator) -> str:
    nodes = [node for node in model.graph.node if node.op_type in _OTHER_OPS]
    node = nodes[int(random.integers(len(nodes)))]
    before, node.op_type = node.op_type, str(random.choice(_OTHER_OPS[node.op_type]))
    if before == "LeakyRelu" or node.op_type == "LeakyRelu":
        del node.attribute[:]
    return f"{node.name}: {node.op_type}"


#: By operation and attribute: other values, as far as the shapes stay.
_OTHER_VALUES: dict[tuple[str, str], tuple[Any, ...]] = {
    ("Conv", "pads"): ([0, 0, 2, 2], [2, 2, 0, 0], [0, 2, 2, 0]),
    ("AveragePool", "pads"): ([0, 0, 1, 1], [1, 0, 1, 1]),
    ("AveragePool", "count_include_pad"): (1, 0),
    ("AveragePool", "ceil_mode"): (1,),
    ("LeakyRelu", "alpha"): (0.2, 0.11, 0.1001, 0.100001),
    ("Gemm", "alpha"): (1.01, 0.99, 1.0),
    ("Gemm", "beta"): (1.05, 0.0, 1.0),
    ("LayerNormalization", "epsilon"): (1e-2, 1e-5, 1.1e-5, 1e-12),
    ("Softmax", "axis"): (0, -1),
    ("Flatten", "axis"): (1, -3),
    ("ReduceMean", "noop_with_empty_axes"): (1,),
}


def change_attribute(model: Any, random: np.random.Generator) -> str:
    places = [(node, key) for node in model.graph.node for key in _OTHER_VALUES if key[0] == node.op_type]
    node, key = places[int(random.integers(len(places)))]
    value = _OTHER_VALUES[key][int(random.integers(len(_OTHER_VALUES[key])))]
    kept = [attribute for attribute in node.attribute if attribute.name != key[1]]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx_attribute(key[1], value)])
    return f"{node.name}: {key[1]} {value}"


def onnx_attribute(name: str, value: Any) -> Any:
    from onnx import helper

    return helper.make_attribute(name, value)


MUTATIONS: tuple[Mutation, ...] = (scale_layer, replace_op, change_attribute, transpose_constant)


class Outcome(NamedTuple):
    """What became of a changed graph: `off` is how far it is off over fresh inputs, of each row's largest element."""

    what: str
    is_proven: bool
    off: float
    off_in_proof: float


def test_no_changed_graph_is_proven_that_answers_otherwise() -> None:
    outcomes = [outcome for number, make in enumerate(GRAPHS) for outcome in mutate(make(), number)]
    assert len(outcomes) == MUTANTS
    wrong = [one for one in outcomes if one.is_proven and one.off > 3 * TOLERANCE.relative]
    assert not wrong
    same = [one for one in outcomes if one.off <= SAME]
    assert same, "some changes should change nothing"
    assert len(same) < MUTANTS / 5, "most changes should change something"
    assert [one for one in same if not one.is_proven] == []
    otherwise = [one for one in outcomes if one.off > 3 * TOLERANCE.relative]
    assert len(otherwise) > MUTANTS * 0.7


def mutate(graph: Graph, number: int) -> list[Outcome]:
    """This graph's share of the mutants."""
    random = np.random.default_rng(number)
    count = MUTANTS // len(GRAPHS) + (number < MUTANTS % len(GRAPHS))
    model = graph.model()
    cases, fresh = made_up(graph.signature), fresh_inputs(graph.signature, random)
    session = session_of(model)
    references, expected = answers(session, cases), [run(session, inputs) for inputs in fresh]
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        changed = type(model)()
        changed.CopyFrom(model)
        what = MUTATIONS[int(random.integers(len(MUTATIONS)))](changed, random)
        if not what:
            continue
        try:
            session = session_of(changed)
            off = max(difference(before, run(session, inputs)) for before, inputs in zip(expected, fresh, strict=True))
            proofs, reason = prove(graph.signature, cases, references, answers(session, cases), TOLERANCE)
        except REFUSALS:  # what is no graph any more is not loaded, or runs nothing
            continue
        outcomes.append(Outcome(f"{graph.name}, {what}", not reason, off, proofs[0].max_relative))
    return outcomes


def session_of(model: Any) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def run(session: Any, inputs: Any) -> Array:
    result: Array = session.run(["y"], dict(inputs))[0]
    return result


def answers(session: Any, cases: list[Case]) -> list[dict[str, Array] | str]:
    """As an engine gives them; the words of an error for numbers beyond the end of a table."""
    found: list[dict[str, Array] | str] = []
    for case in cases:
        try:
            found.append({"y": run(session, case.inputs)})
        except errors.InvalidArgument as error:
            assert case.is_guess
            found.append(str(error))
    return found


def fresh_inputs(signature: Signature, random: np.random.Generator) -> list[dict[str, Array]]:
    """Inputs of other sizes and spreads than those of the proof."""
    (spec,) = signature.inputs.values()
    found = []
    for rows, spread in ((1, 1.0), (5, 0.5), (16, 2.0), (64, 1.0)):
        shape = (rows, *[size or 1 for size in (spec.shape or ())[1:]])
        if spec.dtype.name == "int64":
            found.append({"x": random.integers(0, WORDS, shape)})
        else:
            found.append({"x": (random.standard_normal(shape) * spread).astype(np.float32)})
    return found


def difference(before: Array, after: Array) -> float:
    """Of each row's largest element: the measure that the proof is held to, written a second time."""
    if before.shape != after.shape:
        return float("inf")
    if not np.isfinite(after).all():
        return float("inf")
    before, after = before.astype(np.float64), after.astype(np.float64)
    return max(float(np.abs(one - two).max() / np.abs(one).max()) for one, two in zip(before, after, strict=True))
