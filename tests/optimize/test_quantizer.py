"""int8 of fp32 variants: smaller, near the answers of what they were made of, and executed by the same engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("nncf")

from penstock.engine.base import EngineOptions
from penstock.engine.engines import ONNXRUNTIME, OPENVINO
from penstock.engine.variant import Variant, signature_entry, write_variant
from penstock.optimize.child import Child, ChildError
from penstock.optimize.export import Quantizer
from penstock.optimize.proof import TOLERANCES, Case, prove
from penstock.optimize.runner import Runner
from penstock.optimize.shared_weights import WEIGHTS_FILE, share_weights
from penstock.optimize.subject import QUIET
from tests.optimize.graphs import GRAPHS, SIGNATURE, WORDS, Graph, perceptron, write_model

LIMIT_S = 120.0
#: Networks with random weights have no opinion on some rows.
BOUNDS = replace(TOLERANCES["int8"], top1=0.2)


def excitation() -> Graph:
    """Two convolutions of one pixel, which is what a picture's means are, decide about its channels."""
    graph = Graph("excitation", "float", (None, 3, 12, 12), 6)
    wide = graph.node("Relu", [graph.node("Conv", ["x", graph.weight("k1", 32, 3, 3, 3)], "one", pads=[1, 1, 1, 1])], "wide")
    axes = graph.constant("axes", np.array([2, 3], np.int64))
    means = graph.node("ReduceMean", [wide, axes], "means", keepdims=0)
    pixel = graph.node("Reshape", [means, graph.constant("pixel_shape", np.array([-1, 32, 1, 1], np.int64))], "pixel")
    few = graph.node("Relu", [graph.node("Conv", [pixel, graph.weight("k2", 8, 32, 1, 1)], "squeezed")], "few")
    gate = graph.node("Sigmoid", [graph.node("Conv", [few, graph.weight("k3", 32, 8, 1, 1)], "excited")], "gate")
    pooled = graph.node("ReduceMean", [graph.node("Mul", [wide, gate], "gated"), axes], "pooled", keepdims=0)
    graph.node("Gemm", [pooled, graph.weight("head", 32, 6)], "y")
    return graph


def cases(graph: Graph, count: int = 6) -> list[Case]:
    random = np.random.default_rng(7)
    (spec,) = graph.signature.inputs.values()
    found = []
    for number in range(count):
        shape = (4, *(size or 1 for size in (spec.shape or ())[1:]))
        array = random.integers(0, WORDS, shape) if spec.dtype.name == "int64" else random.standard_normal(shape)
        found.append(Case(SIGNATURE, {"x": array.astype(spec.dtype.numpy)}, f"sample {number}"))
    return found


def write(folder: Path, graph: Graph, engine: str) -> None:
    """The graph's fp32 variant for an engine."""
    import openvino

    write_model(folder, graph, graph.model())
    if engine == ONNXRUNTIME:
        return
    openvino.save_model(openvino.convert_model(folder / "0.onnx"), folder / "0.xml", compress_to_fp16=False)
    (folder / "0.onnx").unlink()
    entry = signature_entry(graph.signature, "0.xml", {"input x": "x", "output y": "y"})
    write_variant(folder, Variant(OPENVINO, "fp32", [entry]))


def refusal(graph: Graph, folder: Path, made: Path, engine: str) -> str:
    """Why what was made is not proven against what it was made of, within the bounds of int8."""
    asked = cases(graph)
    ours, theirs = (
        Runner(engine, place, EngineOptions(intra_op=1)).answers(SIGNATURE, [case.inputs for case in asked])
        for place in (made, folder)
    )
    return prove(graph.signature, asked, theirs, ours, BOUNDS)[1]


@pytest.mark.parametrize("make", [*GRAPHS, excitation])
def test_weights_become_int8_and_answers_stay_near(make: Callable[[], Graph], tmp_path: Path) -> None:
    graph = make()
    write(tmp_path / "fp32", graph, OPENVINO)
    with Child(tmp_path / "log", Quantizer, tmp_path / "fp32", OPENVINO, environment=QUIET) as child:
        child.call("compress_weights", tmp_path / "int8", timeout_s=LIMIT_S)
    assert refusal(graph, tmp_path / "fp32", tmp_path / "int8", OPENVINO) == ""
    assert (tmp_path / "int8" / "0.bin").stat().st_size < 0.6 * (tmp_path / "fp32" / "0.bin").stat().st_size


@pytest.mark.parametrize("engine", [ONNXRUNTIME, OPENVINO])
@pytest.mark.parametrize("make", GRAPHS)
def test_calibrated_int8_answers_near(make: Callable[[], Graph], engine: str, tmp_path: Path) -> None:
    graph = make()
    write(tmp_path / "fp32", graph, engine)
    batches = {SIGNATURE: [case.inputs for case in cases(graph)]}
    with Child(tmp_path / "log", Quantizer, tmp_path / "fp32", engine, environment=QUIET) as child:
        child.call("quantize", tmp_path / "int8", batches, timeout_s=LIMIT_S)
    assert refusal(graph, tmp_path / "fp32", tmp_path / "int8", engine) == ""


def test_weights_of_two_graphs_in_one_file_become_int8_in_one_file(tmp_path: Path) -> None:
    graph, source, made = perceptron(), tmp_path / "fp32", tmp_path / "int8"
    write_model(source, graph, graph.model())
    shutil.copy(source / "0.onnx", source / "1.onnx")
    second = replace(graph.signature, name="second")
    names = {"input x": "x", "output y": "y"}
    entries = [signature_entry(graph.signature, "0.onnx", names), signature_entry(second, "1.onnx", names)]
    write_variant(source, Variant(ONNXRUNTIME, "fp32", entries))
    share_weights([source / "0.onnx", source / "1.onnx"])
    batches = [case.inputs for case in cases(graph)]
    with Child(tmp_path / "log", Quantizer, source, ONNXRUNTIME, environment=QUIET) as child:
        child.call("quantize", made, {SIGNATURE: batches, "second": batches}, timeout_s=LIMIT_S)
    assert refusal(graph, source, made, ONNXRUNTIME) == ""
    assert sorted(file.name for file in made.iterdir()) == ["0.onnx", "1.onnx", "variant.json", WEIGHTS_FILE]
    one, both = (Runner(ONNXRUNTIME, made, EngineOptions(intra_op=1)).answers(name, batches) for name in (SIGNATURE, "second"))
    for answer, other in zip(one, both, strict=True):
        assert not isinstance(answer, str)
        assert not isinstance(other, str)
        np.testing.assert_array_equal(answer["y"], other["y"])


def test_nothing_to_calibrate_with_is_named(tmp_path: Path) -> None:
    write(tmp_path / "fp32", GRAPHS[0](), ONNXRUNTIME)
    with (
        Child(tmp_path / "log", Quantizer, tmp_path / "fp32", ONNXRUNTIME, environment=QUIET) as child,
        pytest.raises(ChildError, match="no sample of signature serving_default"),
    ):
        child.call("quantize", tmp_path / "int8", {}, timeout_s=LIMIT_S)
