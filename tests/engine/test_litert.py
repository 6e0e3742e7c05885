"""Models in TensorFlow Lite's format, run by LiteRT; skipped where it is not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from penstock.engine.base import EngineOptions
from penstock.engine.litert import LiteRtEngine, LiteRtModel
from penstock.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from penstock.tensors import STRING

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.xdist_group("litert")
_ROWS = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lite")
    program = [sys.executable, str(Path(__file__).with_name("lite_exports.py")), str(folder)]
    subprocess.run(program, check=True, capture_output=True, timeout=120, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"})
    return folder


def _load(path: Path) -> LiteRtModel:
    return LiteRtEngine().load(path, EngineOptions(intra_op=1))


def test_the_signatures_are_those_of_the_file(files: Path) -> None:
    signatures = _load(files / "lite" / "1").signatures
    assert sorted(signatures) == ["add", "echo", "serving_default"]
    default = signatures["serving_default"]
    assert default.inputs["x"].shape == (None, 2)
    assert list(default.outputs) == ["total", "y"]
    assert default.takes_batches
    assert signatures["echo"].inputs["text"].dtype is STRING


def test_any_number_of_rows_is_run(files: Path) -> None:
    model = _load(files / "lite" / "1")
    for count in (3, 1, 2):
        found = model.run("serving_default", {"x": _ROWS[:count]})
        assert found["y"].tolist() == (_ROWS[:count] * 2).tolist()
        assert found["total"].tolist() == _ROWS[:count].sum(axis=1).tolist()
    assert list(model.run("serving_default", {"x": _ROWS}, ["total"])) == ["total"]
    assert model.run("add", {"a": np.array([1]), "b": np.array([2])})["c"].tolist() == [3]


def test_strings_go_in_and_come_out(files: Path) -> None:
    model = _load(files / "lite" / "1")
    for text in (b"a\0b", b"x" * 5000, "hé"):
        for shape in ((), (1,), (1, 1)):
            array = np.empty(shape, object)
            array[...] = text
            found = model.run("echo", {"text": array})["same"]
            assert found.dtype == object
            assert found.tolist() == [text.encode() if isinstance(text, str) else text]
    for text in (b"a\0", b""):
        assert model.run("echo", {"text": np.array([text], object)})["same"].tolist() == [text]
        with pytest.raises(InvalidArgument, match="input text is a text without dimensions"):
            model.run("echo", {"text": np.array(text, object)})


def test_a_file_without_signatures_has_one(files: Path) -> None:
    model = _load(files / "plain" / "1")
    (signature,) = model.signatures.values()
    assert signature.name == "serving_default"
    (name,) = signature.inputs
    found = model.run("serving_default", {name: _ROWS})
    assert sorted(array.shape for array in found.values()) == [(3,), (3, 2)]


def test_threads_get_their_own_answers(files: Path) -> None:
    model = _load(files / "lite" / "1")

    def ask(number: int) -> bool:
        row = np.full((1 + number % 3, 2), number, np.float32)
        return bool((model.run("serving_default", {"x": row})["y"] == row * 2).all())

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(400)))


def test_state_is_noticed(files: Path) -> None:
    assert not _load(files / "lite" / "1").is_stateful
    counter = _load(files / "counter" / "1")
    assert counter.is_stateful
    (name,) = counter.signatures["serving_default"].inputs
    counts = [counter.run("serving_default", {name: np.ones(1, np.float32)})["count"][0] for _ in range(3)]
    assert counts == [1, 2, 3]


def test_what_the_graph_refuses_is_the_requests_fault_and_the_next_one_runs(files: Path) -> None:
    model = _load(files / "lite" / "1")
    with pytest.raises(InvalidArgument, match="not broadcastable"):
        model.run("add", {"a": np.array([1, 2, 3]), "b": np.array([1, 2])})
    assert model.run("add", {"a": np.array([1, 2]), "b": np.array([1, 2])})["c"].tolist() == [2, 4]


def test_inputs_and_outputs_that_are_none_are_named(files: Path) -> None:
    model = _load(files / "lite" / "1")
    with pytest.raises(InvalidArgument, match=r"Signature input alias: x.*not found in request"):
        model.run("serving_default", {"z": _ROWS})
    with pytest.raises(InvalidArgument, match="Expects input x to be float but double is provided"):
        model.run("serving_default", {"x": _ROWS.astype(np.float64)})
    with pytest.raises(InvalidArgument, match="output tensor alias not found in signature: q"):
        model.run("serving_default", {"x": _ROWS}, ["q"])
    with pytest.raises(FailedPrecondition, match='Serving signature key "none" not found'):
        model.run("none", {"x": _ROWS})
    with pytest.raises(DeadlineExceeded):
        model.run("serving_default", {"x": _ROWS}, timeout_s=0)


@pytest.mark.parametrize("content", [b"", b"no model", b"\0" * 4096, b"\xff" * 64])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"model\.tflite: "):
        _load(tmp_path)


def test_a_file_that_was_cut_off_is_refused(files: Path, tmp_path: Path) -> None:
    whole = (files / "lite" / "1" / "model.tflite").read_bytes()
    (tmp_path / "model.tflite").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FailedPrecondition, match=r"model\.tflite: "):
        _load(tmp_path)


def test_a_closed_model_refuses_to_run(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "lite" / "1", tmp_path / "1")
    model = _load(tmp_path / "1")
    model.close()
    with pytest.raises(FailedPrecondition):
        model.run("serving_default", {"x": _ROWS})
