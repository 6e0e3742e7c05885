"""A variant in a process of its own: its answers, its times, and what a proof makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from penstock.engine.base import EngineOptions
from penstock.engine.engines import ONNXRUNTIME, OPENVINO
from penstock.optimize.child import Child, ChildError
from penstock.optimize.proof import TOLERANCES, prove
from penstock.optimize.runner import Runner
from penstock.optimize.samples import made_up
from penstock.tensors import Array
from tests.optimize.graphs import SIGNATURE, perceptron, write_model

ANSWER_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graph = perceptron()
    write_model(tmp_path / "m", graph, graph.model())
    return tmp_path / "m"


@pytest.fixture
def runner(folder: Path) -> Runner:
    return Runner(ONNXRUNTIME, folder, EngineOptions(intra_op=1))


X = np.ones((3, 24), np.float32)


def test_answers_are_outputs_or_the_words_of_an_error(runner: Runner) -> None:
    good, bad = runner.answers(SIGNATURE, [{"x": X}, {"x": X[:, :5]}])
    assert isinstance(good, dict)
    assert good["y"].shape == (3, 10)
    assert isinstance(bad, str)
    assert "\n" not in bad


@pytest.mark.parametrize("callers", [1, 2])
def test_calls_are_timed_side_by_side(runner: Runner, callers: int) -> None:
    runner.keep("three", {"x": X})
    times, rate = runner.time(SIGNATURE, "three", callers, 0.0)
    assert len(times) == 3 * callers
    assert min(times) > 0
    assert rate > 0


def test_figures_are_of_loading(runner: Runner) -> None:
    load_s, memory = runner.figures()
    assert load_s > 0
    assert memory >= 0


def test_it_lives_in_a_child(folder: Path, tmp_path: Path) -> None:
    with Child(tmp_path / "runner.log", Runner, ONNXRUNTIME, folder, EngineOptions(intra_op=1)) as child:
        (answer,) = child.call("answers", SIGNATURE, [{"x": X}], timeout_s=ANSWER_S)
        expected = Runner(ONNXRUNTIME, folder, EngineOptions(intra_op=1)).answers(SIGNATURE, [{"x": X}])[0]
        np.testing.assert_array_equal(answer["y"], expected["y"])  # type: ignore[index]


def test_a_variant_that_cannot_be_loaded_is_a_reason(tmp_path: Path) -> None:
    child = Child(tmp_path / "runner.log", Runner, ONNXRUNTIME, tmp_path / "nope", EngineOptions())
    with child, pytest.raises(ChildError, match="nope"):
        child.call("signatures", timeout_s=ANSWER_S)


def wrong_remainder(ops: Any, x: Any) -> Any:
    return ops.floor_mod(x, np.int32(1000))


def wrong_comparison(ops: Any, x: Any) -> Any:
    return ops.convert(ops.equal(ops.add(x, np.int32(1)), x), np.int32)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [(wrong_remainder, lambda x: x % 1000), (wrong_comparison, np.zeros_like)],
    ids=["remainder", "comparison"],
)
def test_integers_that_openvino_rounds_are_found(
    tmp_path: Path, operation: Callable[[Any, Any], Any], expected: Callable[[Array], Array]
) -> None:
    """It computes these in float32: right for small numbers, silently wrong for large ones."""
    pytest.importorskip("openvino")
    from openvino import opset13

    from tests.engine.test_openvino import variant

    folder = variant(tmp_path / "m", lambda x: operation(opset13, x), "int32")
    runner = Runner(OPENVINO, folder, EngineOptions(intra_op=1))
    signature = runner.signatures()[SIGNATURE]
    cases = made_up(signature)
    references: list[dict[str, Array] | str] = [{"y": expected(case.inputs["x"])} for case in cases]
    answers = runner.answers(SIGNATURE, [case.inputs for case in cases])
    small = sum(not case.is_guess for case in cases)
    assert not any(case.is_guess for case in cases[:small])
    assert prove(signature, cases[:small], references[:small], answers[:small], TOLERANCES["fp32"])[1] == ""
    assert "tens of millions" in prove(signature, cases, references, answers, TOLERANCES["fp32"])[1]
