"""`variant.json`: what it says is read, and whatever else is in it is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.engine.engines import ONNXRUNTIME, OPENVINO
from penstock.engine.variant import Variant, read_variant, signature_entry, write_variant
from penstock.errors import FailedPrecondition
from penstock.tensors import DTYPES, FLOAT, STRING, Array, DType, Signature, TensorSpec


def written(folder: Path, **defaults: Array) -> Signature:
    """A variant with an input for each default, and one without."""
    kinds = {array.dtype: dtype for dtype in DTYPES for array in (np.empty(0, dtype.numpy),)}
    inputs = {name: TensorSpec(name, kinds[array.dtype], None, f"{name}:0") for name, array in defaults.items()}
    inputs["x"] = TensorSpec("x", FLOAT, (None, 3), "x:0")
    outputs = {"y": TensorSpec("y", STRING, None, "end")}
    signature = Signature("s", dict(sorted(inputs.items())), outputs, "tensorflow/serving/predict", defaults)
    tensors = {f"input {name}": f"{name}:0" for name in inputs} | {"output y": "end"}
    (folder / "0.onnx").write_bytes(b"")
    write_variant(folder, Variant(ONNXRUNTIME, "fp32", [signature_entry(signature, "0.onnx", tensors)]))
    return signature


def test_a_signature_comes_back_as_it_was(tmp_path: Path) -> None:
    signature = written(tmp_path)
    variant, signatures = read_variant(tmp_path, ONNXRUNTIME)
    assert signatures == {"s": signature}
    assert (variant.engine, variant.precision, variant.signatures[0].file) == (ONNXRUNTIME, "fp32", "0.onnx")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (0, 3)], ids=str)
def test_a_default_keeps_its_type_shape_and_value(tmp_path: Path, dtype: DType, shape: tuple[int, ...]) -> None:
    values = [b"", b"\0\xff", b"long" * 100] if dtype.is_string else [0, 1, 2]
    array = np.empty(3, dtype.numpy)
    array[:] = values
    array = np.resize(array, shape) if shape != (0, 3) else np.empty(shape, dtype.numpy)
    written(tmp_path, given=array)
    found = read_variant(tmp_path, ONNXRUNTIME)[1]["s"].defaults["given"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tolist() == array.tolist()


def test_a_default_may_be_no_number(tmp_path: Path) -> None:
    written(tmp_path, infinite=np.array([np.inf, -np.inf, np.nan, -0.0]))
    found = read_variant(tmp_path, ONNXRUNTIME)[1]["s"].defaults["infinite"]
    assert found.tobytes() == np.array([np.inf, -np.inf, np.nan, -0.0]).tobytes()


def change(folder: Path, *path: str | int, to: Any) -> None:
    told = json.loads((folder / "variant.json").read_text())
    at = told
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    (folder / "variant.json").write_text(json.dumps(told))


ENTRY = ("signatures", 0)


@pytest.mark.parametrize(
    ("path", "to", "words"),
    [
        (("format",), 2, "format 2, expected 1"),
        (("engine",), OPENVINO, "it is for the engine openvino, not for onnxruntime"),
        (("precision",), "fp8", "precision 'fp8', expected one of fp32, fp16, bf16, int8"),
        (("signatures",), {}, "not a variant's description"),
        ((*ENTRY, "file"), "../0.onnx", "which is not there"),
        ((*ENTRY, "file"), "/etc/passwd", "which is not there"),
        ((*ENTRY, "file"), "..", "which is not there"),
        ((*ENTRY, "file"), "", "which is not there"),
        ((*ENTRY, "file"), "a\0b", "which is not there"),
        ((*ENTRY, "file"), "1.onnx", "which is not there"),
        ((*ENTRY, "inputs", 0, "dtype"), "resource", "not a variant's description"),
        ((*ENTRY, "inputs", 0, "shape"), "all", "not a variant's description"),
        ((*ENTRY, "inputs", 0, "default"), 3, "not a variant's description"),
        ((*ENTRY, "inputs", 0, "default"), {"shape": [], "data": [3]}, "not a variant's description"),
        ((*ENTRY, "inputs", 0, "default"), {"shape": [], "data": ["A"]}, "not a variant's description"),
        ((*ENTRY, "inputs", 0, "default"), {"shape": [1 << 80], "data": [""]}, "not a variant's description"),
        ((*ENTRY, "inputs", 0, "default"), {"shape": [2, 2], "data": [""]}, "not a variant's description"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file(tmp_path: Path, path: tuple[str | int, ...], to: Any, words: str) -> None:
    written(tmp_path)
    change(tmp_path, *path, to=to)
    with pytest.raises(FailedPrecondition) as caught:
        read_variant(tmp_path, ONNXRUNTIME)
    assert caught.value.message.startswith(f"{tmp_path / 'variant.json'}: ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null", b"[" * 100_000], ids=["empty", "open", "bytes", "null", "deep"])
def test_a_file_that_is_no_description_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "variant.json").write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"variant\.json: not a variant's description"):
        read_variant(tmp_path, ONNXRUNTIME)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"variant\.json: No such file"):
        read_variant(tmp_path, ONNXRUNTIME)
