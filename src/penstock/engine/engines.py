"""The engines by name. An engine's library is imported when one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata

from penstock.engine.base import Engine
from penstock.errors import UsageError

TENSORFLOW = "tensorflow"
ONNXRUNTIME = "onnxruntime"
OPENVINO = "openvino"
LITERT = "litert"

#: The packages that bring each engine, in the order in which they are looked for.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    TENSORFLOW: ("tensorflow-cpu", "tensorflow", "tensorflow-intel", "tensorflow-macos"),
    ONNXRUNTIME: ("onnxruntime", "onnxruntime-gpu"),
    OPENVINO: ("openvino",),
    LITERT: ("ai-edge-litert",),
}


def make_engine(name: str, op_libraries: Sequence[str] = ()) -> Engine:
    """Loads an engine's library. Raises FailedPrecondition where it is not installed, UsageError for a name that is none."""
    if name == TENSORFLOW:
        from penstock.engine.tensorflow import TensorFlowEngine

        return TensorFlowEngine(op_libraries)
    if name == ONNXRUNTIME:
        from penstock.engine.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine()
    if name == OPENVINO:
        from penstock.engine.openvino import OpenVinoEngine

        return OpenVinoEngine()
    if name == LITERT:
        from penstock.engine.litert import LiteRtEngine

        return LiteRtEngine()
    raise UsageError(f"engine {name!r}: expected one of {', '.join(PACKAGES)}")


def installed_version(name: str) -> str:
    """The version of the package that brings an engine, without loading it; empty where there is none."""
    for package in PACKAGES[name]:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""
