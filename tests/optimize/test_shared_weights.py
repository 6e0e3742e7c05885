"""Weights that several graphs have lie on disk once, and the graphs answer as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from penstock.optimize.shared_weights import WEIGHTS_FILE, share_weights
from penstock.tensors import Array

_RANDOM = np.random.default_rng(0)
LARGE = _RANDOM.standard_normal((64, 64)).astype(np.float32)
OTHER = _RANDOM.standard_normal((64, 64)).astype(np.float32)
SMALL = np.array([3.0], np.float32)
X = _RANDOM.standard_normal((2, 64)).astype(np.float32)


def graph(*weights: Array) -> Any:
    """The input, multiplied by each weight in turn."""
    nodes, tensors, name = [], [], "x"
    for number, weight in enumerate(weights):
        tensors.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes.append(helper.make_node("MatMul" if weight.ndim == 2 else "Mul", [name, f"w{number}"], [f"y{number}"]))
        name = f"y{number}"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64])]
    made = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def saved(folder: Path, *models: Any) -> list[Path]:
    files = [folder / f"{number}.onnx" for number in range(len(models))]
    for file, model in zip(files, models, strict=True):
        onnx.save(model, str(file))
    return files


def answer(file: Path) -> Array:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": X})[0]
    return result


def places(file: Path) -> dict[str, tuple[int, int]]:
    """By tensor: where it is in the file of weights, and its length."""
    found = {}
    for tensor in onnx.load(str(file), load_external_data=False).graph.initializer:
        told = {entry.key: entry.value for entry in tensor.external_data}
        if told:
            assert told["location"] == WEIGHTS_FILE
            found[tensor.name] = int(told["offset"]), int(told["length"])
    return found


def test_answers_stay_what_they_were(tmp_path: Path) -> None:
    files = saved(tmp_path, graph(LARGE, SMALL, OTHER), graph(LARGE), graph(OTHER, LARGE))
    before = [answer(file) for file in files]
    share_weights(files)
    for file, expected in zip(files, before, strict=True):
        np.testing.assert_array_equal(answer(file), expected)


def test_each_weight_is_there_once(tmp_path: Path) -> None:
    files = saved(tmp_path, graph(LARGE, OTHER), graph(LARGE), graph(OTHER, LARGE))
    share_weights(files)
    assert (tmp_path / WEIGHTS_FILE).stat().st_size == LARGE.nbytes + OTHER.nbytes
    first, second, third = map(places, files)
    assert first["w0"] == second["w0"] == third["w1"]
    assert first["w1"] == third["w0"] != first["w0"]
    assert all(file.stat().st_size < LARGE.nbytes / 4 for file in files)


def test_weights_begin_on_a_page(tmp_path: Path) -> None:
    odd = _RANDOM.standard_normal((64, 64)).astype(np.float32)[:, :63]
    files = saved(tmp_path, graph(np.ascontiguousarray(np.pad(odd, ((0, 0), (0, 1)))), LARGE), graph(OTHER))
    share_weights(files)
    assert all(offset % 4096 == 0 for file in files for offset, _ in places(file).values())


def test_the_same_numbers_of_another_shape_are_the_same_bytes(tmp_path: Path) -> None:
    files = saved(tmp_path, graph(LARGE), graph(np.ascontiguousarray(LARGE.reshape(64, 64).copy())))
    share_weights(files)
    assert (tmp_path / WEIGHTS_FILE).stat().st_size == LARGE.nbytes


def test_small_ones_stay_in_the_graph(tmp_path: Path) -> None:
    files = saved(tmp_path, graph(LARGE, SMALL), graph(SMALL))
    share_weights(files)
    assert list(places(files[0])) == ["w0"]
    assert places(files[1]) == {}


def test_weights_that_are_external_already_are_taken_along(tmp_path: Path) -> None:
    files = saved(tmp_path, graph(LARGE), graph(LARGE))
    expected = answer(files[0])
    onnx.save_model(graph(LARGE), str(files[0]), save_as_external_data=True, location="own.bin", size_threshold=0)
    share_weights(files)
    (tmp_path / "own.bin").unlink()
    np.testing.assert_array_equal(answer(files[0]), expected)


def test_a_single_file_is_left_alone(tmp_path: Path) -> None:
    files = saved(tmp_path, graph(LARGE))
    before = files[0].read_bytes()
    share_weights(files)
    assert files[0].read_bytes() == before
    assert not (tmp_path / WEIGHTS_FILE).exists()
