"""Which forms of a model are tried: a table of what the engines that are installed can execute."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from penstock.engine.engines import ONNXRUNTIME, OPENVINO, TENSORFLOW

#: The engines that have other forms of a model.
OPTIMIZED = (TENSORFLOW, ONNXRUNTIME, OPENVINO)
PRECISIONS = ("fp16", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A form to try. `source` is the candidate that it is made of, empty for the SavedModel.

    has_small_weights: the weights alone are of the precision, and nothing is calibrated; arithmetic stays as it was.
    """

    name: str
    engine: str
    precision: str = "fp32"
    source: str = ""
    has_small_weights: bool = False


#: In the order of trust: of two that are equally quick, the one named before wins.
_CANDIDATES = (
    Candidate("tensorflow-frozen", TENSORFLOW),
    Candidate("onnxruntime-fp32", ONNXRUNTIME),
    Candidate("openvino-fp32", OPENVINO),
    Candidate("openvino-fp16", OPENVINO, "fp16"),
    Candidate("openvino-bf16", OPENVINO, "bf16"),
    Candidate("onnxruntime-int8", ONNXRUNTIME, "int8", "onnxruntime-fp32"),
    Candidate("openvino-int8-weights", OPENVINO, "int8", "openvino-fp32", has_small_weights=True),
    Candidate("openvino-int8", OPENVINO, "int8", "openvino-fp32"),
)


def candidates(allowed: Collection[str], engines: Collection[str], installed: Callable[[str], str]) -> list[Candidate]:
    """Those of the wanted engines that are installed, with fp32 and the precisions that are allowed."""
    return [
        candidate
        for candidate in _CANDIDATES
        if candidate.engine in engines
        and (candidate.precision == "fp32" or candidate.precision in allowed)
        and installed(candidate.engine)
    ]
