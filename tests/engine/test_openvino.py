"""What is OpenVINO's alone: its precision, its requests, and numbers that it would change unasked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino")

import openvino
from openvino import opset13 as ops

from penstock.engine.base import EngineOptions
from penstock.engine.engines import OPENVINO
from penstock.engine.openvino import OpenVinoEngine, OpenVinoModel
from penstock.engine.variant import Variant, signature_entry, write_variant
from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.tensors import Signature, TensorSpec, dtype_of_name
from tests.engine.test_onnxruntime import FORK

SIGNATURE = "serving_default"
Operation = Callable[[Any], Any]


def twice(x: Any) -> Any:
    return ops.add(x, x)


def variant(
    folder: Path, operation: Operation = twice, dtype: str = "float", precision: str = "fp32", names: Mapping[str, str] = {}
) -> Path:
    """A variant with y = operation(x) over rows of two. `names` has other names of the graph's tensors than x and y."""
    folder.mkdir()
    kind = dtype_of_name(dtype)
    x = ops.parameter([-1, 2], kind.numpy, name="x")
    result = operation(x)
    for node, name in ((x, "x"), (result, "y")):
        node.output(0).get_tensor().set_names({name})
    openvino.save_model(openvino.Model([result], [x]), str(folder / "0.xml"), compress_to_fp16=False)
    specs = {name: TensorSpec(name, kind, (None, 2), name) for name in ("x", "y")}
    signature = Signature(SIGNATURE, {"x": specs["x"]}, {"y": specs["y"]})
    tensors = {"input x": names.get("x", "x"), "output y": names.get("y", "y")}
    write_variant(folder, Variant(OPENVINO, precision, [signature_entry(signature, "0.xml", tensors)]))
    return folder


def load(folder: Path, **options: Any) -> OpenVinoModel:
    return OpenVinoEngine().load(folder, EngineOptions(**{"intra_op": 1, **options}))


def test_a_variant_runs(tmp_path: Path) -> None:
    model = load(variant(tmp_path / "m"))
    assert model.run(SIGNATURE, {"x": np.array([[1, 2]], np.float32)})["y"].tolist() == [[2, 4]]
    assert OpenVinoEngine().version[0].isdigit()


def test_processes_fork_after_loading_the_library_and_before_any_model(tmp_path: Path) -> None:
    program = FORK.replace('"onnxruntime"', '"openvino"')
    command = [sys.executable, "-c", program, str(variant(tmp_path / "m"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(FailedPrecondition, match=r"pip install penstock\[openvino\]"):
        OpenVinoEngine()


def test_a_gpu_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"^--device cuda: .*ONNX Runtime"):
        load(variant(tmp_path / "m"), device="cuda")


def test_arithmetic_has_the_precision_that_the_variant_says(tmp_path: Path) -> None:
    """Left to itself, it takes bfloat16 where the processor has it."""
    weight = np.full((2, 2), 1 / 3, np.float32)
    model = load(variant(tmp_path / "m", lambda x: ops.matmul(x, ops.constant(weight), False, False)))
    x = np.array([[1.001, 2.003]], np.float32)
    np.testing.assert_allclose(model.run(SIGNATURE, {"x": x})["y"], x @ weight, rtol=1e-6)


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="precision 'fp8'"):
        load(variant(tmp_path / "m", precision="fp8"))


@pytest.mark.parametrize("names", [{"x": "other"}, {"y": "other"}], ids=["input", "output"])
def test_a_tensor_that_the_graph_lacks_is_named_when_it_is_loaded(tmp_path: Path, names: dict[str, str]) -> None:
    with pytest.raises(FailedPrecondition, match="the graph has no tensor other"):
        load(variant(tmp_path / "m", names=names))


@pytest.mark.parametrize("dtype", ["bfloat16", "int4"])
def test_an_element_type_that_no_array_can_bring_is_refused_when_it_is_loaded(tmp_path: Path, dtype: str) -> None:
    folder = variant(tmp_path / "m")
    (folder / "variant.json").write_text((folder / "variant.json").read_text().replace('"float"', f'"{dtype}"'))
    with pytest.raises(FailedPrecondition, match=f"x is {dtype}, which OpenVINO cannot hold"):
        load(folder)


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_broken_file_is_named(tmp_path: Path, suffix: str) -> None:
    weight = ops.constant(np.arange(2, dtype=np.float32))
    folder = variant(tmp_path / "m", lambda x: ops.add(x, weight))
    file = folder / f"0{suffix}"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(FailedPrecondition, match=str(folder / "0.xml")):
        load(folder)


@pytest.mark.parametrize("dtype", ["int64", "uint32", "uint64"])
def test_numbers_beyond_32_bits_are_refused_and_never_changed(tmp_path: Path, dtype: str) -> None:
    """Its processor plugin computes all of these as int32."""
    kind = dtype_of_name(dtype).numpy
    model = load(variant(tmp_path / "m", lambda x: ops.subtract(x, np.array(2, kind)), dtype))
    assert model.run(SIGNATURE, {"x": np.array([[4, 2**31 - 1]], kind)})["y"].tolist() == [[2, 2**31 - 3]]
    assert model.run(SIGNATURE, {"x": np.empty((0, 2), kind)})["y"].shape == (0, 2)
    for number in (2**31, 2**32 - 2, *((2**40,) if "64" in dtype else ()), *((-(2**31) - 1,) if dtype == "int64" else ())):
        with pytest.raises(InvalidArgument, match="input x: has numbers beyond 32 bits"):
            model.run(SIGNATURE, {"x": np.array([[1, number]], kind)})


@pytest.mark.parametrize("rows", [0, 1, 3, 1000])
def test_read_only_inputs_of_any_size_are_taken(tmp_path: Path, rows: int) -> None:
    model = load(variant(tmp_path / "m"))
    x = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    x.flags.writeable = False
    np.testing.assert_array_equal(model.run(SIGNATURE, {"x": x})["y"], 2 * x)
    borrowed = np.frombuffer(x.tobytes(), np.float32).reshape(rows, 2)
    np.testing.assert_array_equal(model.run(SIGNATURE, {"x": borrowed})["y"], 2 * x)


def test_an_input_is_left_as_it_was(tmp_path: Path) -> None:
    model = load(variant(tmp_path / "m", lambda x: ops.relu(ops.negative(x))))
    x = np.array([[1, -2]], np.float32)
    model.run(SIGNATURE, {"x": x})
    assert x.tolist() == [[1, -2]]


def test_what_comes_back_is_the_callers_own(tmp_path: Path) -> None:
    model = load(variant(tmp_path / "m"))
    first = model.run(SIGNATURE, {"x": np.ones((2, 2), np.float32)})["y"]
    model.run(SIGNATURE, {"x": np.full((2, 2), 7, np.float32)})
    assert np.all(first == 2)
    assert first.flags.owndata
    model.close()
    assert np.all(first == 2)


def test_each_thread_at_a_time_has_a_request_which_is_kept(tmp_path: Path) -> None:
    model = load(variant(tmp_path / "m"))
    calls = model._calls[SIGNATURE]
    for _ in range(3):
        model.run(SIGNATURE, {"x": np.ones((1, 2), np.float32)})
    assert len(calls.free) == 1

    def run(seed: int) -> bool:
        x = np.full((seed % 5 + 1, 2), seed, np.float32)
        return bool(np.array_equal(model.run(SIGNATURE, {"x": x})["y"], 2 * x))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(run, range(400)))
    assert 1 <= len(calls.free) <= 4


def test_a_run_that_fails_takes_nothing_from_the_next(tmp_path: Path) -> None:
    model = load(variant(tmp_path / "m"))
    for _ in range(3):
        with pytest.raises(InvalidArgument):
            model.run(SIGNATURE, {"x": np.ones((1, 3), np.float32)})
        assert model.run(SIGNATURE, {"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[2, 2]]
