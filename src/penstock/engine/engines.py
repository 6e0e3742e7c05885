"""The engines by name. An engine's library is imported when one is made, and nothing heavy before: a server starts with this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.engine.base import Engine

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
_MODULES: Mapping[str, str] = {
    TENSORFLOW: "tensorflow",
    ONNXRUNTIME: "onnxruntime",
    OPENVINO: "openvino",
    LITERT: "ai_edge_litert",
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


def seems_installed(name: str) -> bool:
    """Whether there is a module of an engine's name: a guess, quicker by 30 ms than its version."""
    module = _MODULES.get(name)
    return module is not None and find_spec(module) is not None


def installed_version(name: str) -> str:
    """The version of the package that brings an engine, without loading it; empty where there is none."""
    from importlib import metadata

    for package in PACKAGES[name]:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""
