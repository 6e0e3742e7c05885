"""The models that the tests serve: exported once for each content of their source and version of TensorFlow.

Guarantees: whatever number of processes ask at the same time, one exports and the others wait; a folder that is there is
whole, because it appears by a rename. Nothing changes the models afterwards: a test that breaks one copies it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_CACHE = _ROOT / ".cache"
_SOURCE = Path(__file__).with_name("model_exports.py")
_DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu")
_CONVERTERS = ("tf2onnx", "onnx", "onnxruntime", "openvino")

THIRD_PARTY = _ROOT.parent / "shared" / "models"


def exported_models() -> Path:
    """The folder that holds a model folder for each function of model_exports."""
    return made_once("test-models", [str(_SOURCE)], [_SOURCE])


def made_once(kind: str, program: list[str], sources: list[Path]) -> Path:
    """What the Python `program` writes into the folder that it gets as its last argument, made anew when `sources` change."""
    told = [_tensorflow_version(), sys.version, *map(_version, _CONVERTERS), *program]
    digest = hashlib.sha256("\n".join(told).encode() + b"".join(source.read_bytes() for source in sources)).hexdigest()
    folder = _CACHE / kind
    target = folder / digest[:16]
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _make(program, target)
    return target


def third_party_models() -> Path:
    """The folder with other people's models; skips the test where it is missing."""
    if not THIRD_PARTY.is_dir():
        pytest.skip("the third-party models are not there")
    return THIRD_PARTY


def _tensorflow_version() -> str:
    for name in _DISTRIBUTIONS:
        if version := _version(name):
            return version
    pytest.skip("TensorFlow, which exports the models, is not installed")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _make(program: list[str], target: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix=".exporting-", dir=target.parent))
    try:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        done = subprocess.run([sys.executable, *program, str(work)], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the test models cannot be exported:\n{done.stderr}")
        for old in target.parent.iterdir():
            if old.is_dir() and old != work:
                shutil.rmtree(old, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
