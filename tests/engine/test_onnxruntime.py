"""What is ONNX Runtime's alone: files that are no variants, its library and processes, and what it cannot hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper

from penstock.engine.base import EngineOptions
from penstock.engine.engines import ONNXRUNTIME
from penstock.engine.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeModel
from penstock.engine.variant import Variant, signature_entry, write_variant
from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.tensors import DTYPES, Array, Signature, TensorSpec, dtype_of_name

DEFAULT = "serving_default"

FORK = """
import os, sys
import numpy as np
from pathlib import Path
from penstock.engine.base import EngineOptions
from penstock.engine.engines import make_engine

before = len(os.listdir("/proc/self/task"))
engine = make_engine("onnxruntime")
assert len(os.listdir("/proc/self/task")) == before, "the library has started threads"
x = {"x": np.ones((1, 2), np.float32)}
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        model = engine.load(Path(sys.argv[1]), EngineOptions(intra_op=2))
        os._exit(0 if model.run("serving_default", x)["y"].tolist() == [[2, 2]] else 1)
    children.append(child)
assert all(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)
model = engine.load(Path(sys.argv[1]), EngineOptions(intra_op=2))
assert model.run("serving_default", x)["y"].tolist() == [[2, 2]]
assert "tensorflow" not in sys.modules
"""


def graph(kind: str = "Add", element: int = TensorProto.FLOAT, shape: tuple[Any, ...] = ("n", 2), **attributes: Any) -> Any:
    """y = x + x, or another operation with one or two inputs."""
    node = helper.make_node(kind, ["x", "x"] if kind == "Add" else ["x"], ["y"], **attributes)
    x, y = (helper.make_tensor_value_info(name, element, shape) for name in ("x", "y"))
    return helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def saved(folder: Path, model: Any) -> Path:
    folder.mkdir(exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    return folder


def load(folder: Path, **options: Any) -> OnnxRuntimeModel:
    return OnnxRuntimeEngine().load(folder, EngineOptions(**options))


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    return saved(tmp_path / "m", graph())


def rows(*values: float) -> dict[str, Array]:
    return {"x": np.array([values], np.float32)}


def test_a_file_of_its_own_has_one_signature(doubling: Path) -> None:
    model = load(doubling)
    assert list(model.signatures) == [DEFAULT]
    signature = model.signatures[DEFAULT]
    assert (signature.inputs["x"].shape, signature.outputs["y"].dtype.name) == ((None, 2), "float")
    assert signature.takes_batches
    assert signature.method_name == "tensorflow/serving/predict"
    assert model.run(DEFAULT, rows(1, 2))["y"].tolist() == [[2, 4]]


def test_its_version_is_that_of_the_library() -> None:
    assert OnnxRuntimeEngine().version[0].isdigit()


def test_processes_fork_after_loading_the_library_and_before_any_model(doubling: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, str(doubling)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FailedPrecondition, match=r"pip install penstock\[onnxruntime\]"):
        OnnxRuntimeEngine()


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "other"])
def test_a_device_that_is_not_there_is_refused(doubling: Path, device: str) -> None:
    engine = OnnxRuntimeEngine()
    if {"cuda": "CUDAExecutionProvider"}.get(device) in engine._library.get_available_providers():
        pytest.skip("it is there")
    with pytest.raises(FailedPrecondition, match=f"^--device {device}: .*onnxruntime-gpu"):
        engine.load(doubling, EngineOptions(device=device))


def test_the_cpu_may_be_named(doubling: Path) -> None:
    assert load(doubling, device="cpu", intra_op=1, inter_op=1).run(DEFAULT, rows(1, 2))["y"].tolist() == [[2, 4]]


@pytest.mark.parametrize("size", [0, 1, 40, -10])
def test_a_truncated_file_is_named(doubling: Path, size: int) -> None:
    file = doubling / "model.onnx"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(FailedPrecondition, match=str(file)):
        load(doubling)


def test_an_operation_that_it_lacks_is_named(tmp_path: Path) -> None:
    model = graph("Frobnicate")
    with pytest.raises(FailedPrecondition, match="Frobnicate"):
        load(saved(tmp_path / "m", model))


@pytest.mark.parametrize("element", [TensorProto.COMPLEX64, TensorProto.BFLOAT16], ids=["complex64", "bfloat16"])
def test_an_element_type_that_no_array_can_bring_is_refused_when_it_is_loaded(tmp_path: Path, element: int) -> None:
    with pytest.raises(FailedPrecondition, match=str(tmp_path)):
        load(saved(tmp_path / "m", graph("Identity", element)))


@pytest.mark.parametrize("shape", [(), ("n",), (2, 3), ("a", "b", 4)], ids=str)
def test_a_shape_is_that_of_the_file(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    signature = load(saved(tmp_path / "m", graph(shape=shape))).signatures[DEFAULT]
    assert signature.inputs["x"].shape == tuple(size if isinstance(size, int) else None for size in shape)


def test_an_error_is_one_line_without_the_library_s_own_codes(doubling: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(doubling).run(DEFAULT, {"x": np.ones((2, 2, 2), np.float32)})
    assert caught.value.message.startswith("Invalid rank for input: x")
    assert "\n" not in caught.value.message


@pytest.fixture
def echo(tmp_path: Path) -> OnnxRuntimeModel:
    return load(saved(tmp_path / "echo", graph("Identity", TensorProto.STRING, ("n",))))


def test_texts_may_have_zeros_in_them(echo: OnnxRuntimeModel) -> None:
    texts = np.array([b"a\0b", "é\0", b"\0", b""], object)
    assert echo.run(DEFAULT, {"x": texts})["y"].tolist() == [b"a\0b", "é\0".encode(), b"\0", b""]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"\xff", "input x: element 1 is not UTF-8, and this engine has no other texts"),
        ("\ud800", "input x: element 1 is str, expected bytes or valid text"),
        (3, "input x: element 1 is int, expected bytes or valid text"),
        (None, "input x: element 1 is NoneType, expected bytes or valid text"),
    ],
    ids=["bytes", "surrogate", "int", "none"],
)
def test_what_is_no_text_is_refused_with_its_place(echo: OnnxRuntimeModel, bad: object, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        echo.run(DEFAULT, {"x": np.array(["fine", bad], object)})
    assert caught.value.message == words
    assert echo.run(DEFAULT, {"x": np.array(["fine"], object)})["y"].tolist() == [b"fine"]


def variant_of(folder: Path, dtype: str, tensor: str) -> Path:
    """A variant whose description may say other things than its graph."""
    saved(folder, graph())
    kind = dtype_of_name(dtype)
    specs = {name: TensorSpec(name, kind, (None, 2), name) for name in ("x", "y")}
    signature = Signature("s", {"x": specs["x"]}, {"y": specs["y"]})
    entry = signature_entry(signature, "model.onnx", {"input x": tensor, "output y": "y"})
    write_variant(folder, Variant(ONNXRUNTIME, "fp32", [entry]))
    return folder


def test_a_variant_has_the_names_that_clients_use(tmp_path: Path) -> None:
    model = load(variant_of(tmp_path / "m", "float", "x"))
    assert model.run("s", rows(1, 2))["y"].tolist() == [[2, 4]]


@pytest.mark.parametrize(("dtype", "tensor"), [("double", "x"), ("float", "z")], ids=["element type", "name"])
def test_a_description_that_is_not_the_graphs_is_an_error_of_the_call(tmp_path: Path, dtype: str, tensor: str) -> None:
    model = load(variant_of(tmp_path / "m", dtype, tensor))
    with pytest.raises(InvalidArgument):
        model.run("s", {"x": np.ones((1, 2), dtype_of_name(dtype).numpy)})


def test_a_file_is_loaded_once_for_all_its_signatures(tmp_path: Path) -> None:
    folder = variant_of(tmp_path / "m", "float", "x")
    entries = []
    for name in ("one", "two"):
        specs = {alias: TensorSpec(alias, dtype_of_name("float"), (None, 2), alias) for alias in ("x", "y")}
        signature = Signature(name, {"x": specs["x"]}, {"y": specs["y"]})
        entries.append(signature_entry(signature, "model.onnx", {"input x": "x", "output y": "y"}))
    write_variant(folder, Variant(ONNXRUNTIME, "fp32", entries))
    model = load(folder)
    assert model._runs["one"].__self__ is model._runs["two"].__self__
    for name in ("one", "two"):
        assert model.run(name, rows(1, 2))["y"].tolist() == [[2, 4]]


def test_other_models_have_the_cores_when_a_run_is_over(doubling: Path) -> None:
    """Its threads do not spin between the runs: the process takes next to no time of the processor."""
    model = load(doubling, intra_op=os.cpu_count() or 2)
    model.run(DEFAULT, rows(1, 2))
    session: Any = model._runs[DEFAULT].__self__
    assert session.get_session_options().get_session_config_entry("session.force_spinning_stop") == "1"


def test_every_element_type_that_it_holds_is_one_of_ours() -> None:
    from penstock.engine.onnxruntime import _HELD

    assert {dtype.name for dtype in DTYPES} > _HELD
