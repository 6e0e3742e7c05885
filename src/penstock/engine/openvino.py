"""OpenVINO, which executes variants that `penstock optimize` has made.

Guarantees: TensorFlow is not loaded. Each thread that runs at a time has an infer request of its own, which is kept for the next
run. Arithmetic has the precision that the variant says: left to itself, OpenVINO takes bfloat16 where the CPU has it. OpenVINO
is an extra (`pip install penstock[openvino]`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.config import available_cores
from penstock.engine.base import EngineOptions
from penstock.engine.feeds import check_inputs, check_outputs, check_time, native, signature_named
from penstock.engine.no_telemetry import refuse_telemetry
from penstock.engine.variant import read_variant
from penstock.errors import FailedPrecondition, InvalidArgument, PenstockError, ResourceExhausted
from penstock.tensors import Array, Signature

#: What OpenVINO calls the precisions of a variant; int8 is in the graph itself.
_HINTS = {"fp32": "f32", "fp16": "f32", "int8": "f32", "bf16": "bf16"}


#: The element types that its tensors share with NumPy.
_TYPES = frozenset(["float", "double", "half", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"])

#: Its CPU computes these as int32, and says nothing when a number does not fit.
_NARROWED = frozenset(["int64", "uint32", "uint64"])
_INT32 = np.iinfo(np.int32)


class OpenVinoEngine:
    """The OpenVINO that is installed. Making one loads its library and starts no thread: fork afterwards."""

    name = "openvino"

    def __init__(self) -> None:
        """Raises FailedPrecondition where it is not installed."""
        refuse_telemetry()
        try:
            import openvino
        except ImportError as error:
            raise FailedPrecondition(f"OpenVINO is missing ({error}): pip install penstock[openvino]") from None
        self._library = openvino
        self.version = str(openvino.__version__).partition("-")[0]

    def load(self, path: Path, options: EngineOptions) -> OpenVinoModel:
        """Loads a variant's folder. Raises a PenstockError whose message begins with `path`."""
        if options.device not in ("auto", "cpu"):
            raise FailedPrecondition(f"--device {options.device}: OpenVINO runs on the CPU here; take ONNX Runtime for a GPU")
        variant, signatures = read_variant(path, self.name)
        core = self._library.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[variant.precision],
            "INFERENCE_NUM_THREADS": options.intra_op or available_cores(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several hosts share the cores
        }
        compiled: dict[str, Any] = {}
        for entry in variant.signatures:
            if entry.file not in compiled:
                try:
                    compiled[entry.file] = core.compile_model(core.read_model(path / entry.file), "CPU", settings)
                except RuntimeError as error:
                    raise FailedPrecondition(f"{path / entry.file}: {_text(error)}") from None
        try:
            calls = {
                entry.name: _Calls(compiled[entry.file], signatures[entry.name], self._library.Tensor)
                for entry in variant.signatures
            }
        except PenstockError as error:
            raise FailedPrecondition(f"{path}: {error.message}") from None
        return OpenVinoModel(calls, signatures)


class _Calls:
    """A compiled graph, and the infer requests that are free for the next run."""

    __slots__ = ("_compiled", "_tensor", "free", "inputs", "outputs")

    def __init__(self, compiled: Any, signature: Signature, tensor: Any) -> None:
        """Raises InvalidArgument where the graph lacks a tensor of the signature, or cannot be given one."""
        for spec in (*signature.inputs.values(), *signature.outputs.values()):
            if spec.dtype.name not in _TYPES:
                raise InvalidArgument(f"signature {signature.name}: {spec.name} is {spec.dtype.name}, which OpenVINO cannot hold")
        self._compiled = compiled
        self._tensor = tensor
        self.free: list[Any] = []
        self.inputs = _places(compiled.inputs, [spec.tensor for spec in signature.inputs.values()])
        self.outputs = dict(
            zip(signature.outputs, _places(compiled.outputs, [spec.tensor for spec in signature.outputs.values()]), strict=True)
        )

    def run(self, arrays: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """Raises RuntimeError with OpenVINO's message."""
        try:
            request = self.free.pop()  # popping is atomic, so threads never get the same
        except IndexError:
            request = self._compiled.create_infer_request()
        for place, array in zip(self.inputs, arrays, strict=True):
            # OpenVINO shares no memory that is empty or read-only; it is copied.
            is_shared = array.size > 0 and array.flags.writeable
            request.set_input_tensor(place, self._tensor(array, shared_memory=is_shared))
        request.infer()
        # Copies: the request's own memory is that of the next run.
        results = [np.array(request.get_output_tensor(self.outputs[name]).data) for name in outputs]
        self.free.append(request)
        return results


class OpenVinoModel:
    """The compiled graphs of a variant. Thread-safe."""

    def __init__(self, calls: Mapping[str, _Calls], signatures: Mapping[str, Signature]) -> None:
        self.signatures = signatures
        self._calls = calls

    def run(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Runs `signature` once. `timeout_s` only keeps a run from beginning whose time is over."""
        if not self._calls:
            raise FailedPrecondition("the model is closed")
        definition = signature_named(self.signatures, signature)
        check_time(timeout_s)
        check_inputs(definition, inputs)
        if outputs is not None:
            check_outputs(definition, outputs)
        wanted = list(definition.outputs) if outputs is None else outputs
        arrays = []
        for name, spec in definition.inputs.items():
            array = inputs[name]
            if array.dtype is not spec.dtype.numpy:
                array = native(array, name, spec.dtype)
            if spec.dtype.name in _NARROWED:
                _check_range(array, name)
            arrays.append(np.ascontiguousarray(array).reshape(array.shape))
        try:
            results = self._calls[signature].run(arrays, wanted)
        except RuntimeError as error:
            raise _error(error) from None
        return dict(zip(wanted, results, strict=True))

    def close(self) -> None:
        """Frees the graphs. A later run is refused."""
        self.signatures = {}
        self._calls = {}


def _check_range(array: Array, name: str) -> None:
    """Raises InvalidArgument for a number that OpenVINO would make another of."""
    if array.size and not (_INT32.min <= array.min() and array.max() <= _INT32.max):
        raise InvalidArgument(f"input {name}: has numbers beyond 32 bits, which OpenVINO cannot compute with")


def _places(ports: Sequence[Any], tensors: Sequence[str]) -> list[int]:
    """Where the tensors of these names are among a graph's ports. Raises InvalidArgument."""
    by_name = {name: place for place, port in enumerate(ports) for name in port.get_names()}
    try:
        return [by_name[tensor] for tensor in tensors]
    except KeyError as error:
        raise InvalidArgument(f"the graph has no tensor {error.args[0]}") from None


def _error(error: RuntimeError) -> PenstockError:
    text = _text(error)
    return ResourceExhausted(text) if "alloc" in text and "memory" in text.lower() else InvalidArgument(text)


def _text(error: BaseException) -> str:
    """Its message: the last of the lines, as those before say where in its sources it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
