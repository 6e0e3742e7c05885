"""ONNX Runtime, which executes variants that `penstock optimize` has made, and version folders with a `model.onnx`.

Guarantees: TensorFlow is not loaded. Runs are side by side where threads ask for it; one that was begun is not ended. Texts are
UTF-8. ONNX Runtime is an extra (`pip install penstock[onnxruntime]`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from penstock.config import available_cores
from penstock.engine.base import EngineOptions
from penstock.engine.feeds import bytes_of, check_inputs, check_outputs, check_time, native, signature_named, texts_of
from penstock.engine.no_telemetry import refuse_telemetry
from penstock.engine.variant import VARIANT_FILE, read_variant
from penstock.errors import FailedPrecondition, InvalidArgument, PenstockError, ResourceExhausted
from penstock.savedmodel.layout import ONNX_FILE
from penstock.tensors import Array, DType, Signature, TensorSpec, dtype_of_name

_DEFAULT_SIGNATURE = "serving_default"
_PREDICT = "tensorflow/serving/predict"
#: Its names of element types, where they are not TensorFlow's.
_TYPES = {"float16": "half", "int4": "int4", "uint4": "uint4"}
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_WARNINGS_AND_WORSE = 3
#: The element types that its Python interface takes and gives as arrays.
_HELD = frozenset(
    ["float", "double", "half", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "string"]
)
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")

#: Sets of outputs that clients ask for by turns; past it, plans are made anew.
_MAX_PLANS = 256

_Errors = tuple[type[BaseException], ...]


class OnnxRuntimeEngine:
    """The ONNX Runtime that is installed. Making one loads its library and starts no thread: fork afterwards."""

    name = "onnxruntime"

    def __init__(self) -> None:
        """Raises FailedPrecondition where it is not installed."""
        refuse_telemetry()
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as state
        except ImportError as error:
            raise FailedPrecondition(f"ONNX Runtime is missing ({error}): pip install penstock[onnxruntime]") from None
        self._library = onnxruntime
        raised = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
        self._errors: _Errors = (*raised, RuntimeError, ValueError)
        onnxruntime.set_default_logger_severity(_WARNINGS_AND_WORSE)

    @property
    def version(self) -> str:
        return str(self._library.__version__)

    def load(self, path: Path, options: EngineOptions) -> OnnxRuntimeModel:
        """Loads a variant's folder, or one with `model.onnx`. Raises a PenstockError whose message begins with `path`."""
        providers = self._providers(options)
        if (path / VARIANT_FILE).is_file():
            variant, signatures = read_variant(path, self.name)
            files = {entry.name: entry.file for entry in variant.signatures}
        else:
            signatures, files = {}, {_DEFAULT_SIGNATURE: ONNX_FILE}
        sessions: dict[str, Any] = {}
        for file in dict.fromkeys(files.values()):
            sessions[file] = self._session(path / file, options, providers)
        if not signatures:
            try:
                signatures = {_DEFAULT_SIGNATURE: _own_signature(sessions[ONNX_FILE])}
            except PenstockError as error:
                raise FailedPrecondition(f"{path / ONNX_FILE}: {error.message}") from None
        for signature in signatures.values():
            for spec in (*signature.inputs.values(), *signature.outputs.values()):
                if spec.dtype.name not in _HELD:
                    raise FailedPrecondition(
                        f"{path}: signature {signature.name}: {spec.name} is {spec.dtype.name}, which ONNX Runtime cannot hold"
                    )
        return OnnxRuntimeModel({name: sessions[files[name]] for name in signatures}, signatures, self._errors)

    def _session(self, file: Path, options: EngineOptions, providers: list[Any]) -> Any:
        settings = self._library.SessionOptions()
        settings.intra_op_num_threads = options.intra_op or available_cores()
        settings.inter_op_num_threads = max(1, options.inter_op)
        # Threads may spin between the operations of a run, and not after it: other models want the cores.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            return self._library.InferenceSession(str(file), settings, providers=providers)
        except self._errors as error:
            raise FailedPrecondition(f"{file}: {_text(error)}") from None

    def _providers(self, options: EngineOptions) -> list[Any]:
        """Raises FailedPrecondition for a device that this installation cannot use."""
        if options.device in ("auto", "cpu"):
            return ["CPUExecutionProvider"]
        wanted = _PROVIDERS.get(options.device)
        there = self._library.get_available_providers()
        if wanted is None or wanted not in there:
            raise FailedPrecondition(
                f"--device {options.device}: this ONNX Runtime {self.version} cannot use one (it has {', '.join(there)}); "
                "pip install onnxruntime-gpu in place of onnxruntime where there is a GPU"
            )
        settings: dict[str, Any] = {"device_id": int(options.gpu.partition(",")[0] or 0)}
        return [(wanted, settings), "CPUExecutionProvider"]


class _Plan(NamedTuple):
    """What a call of a signature with one set of outputs needs, worked out once."""

    signature: Signature
    inputs: tuple[tuple[str, str, DType], ...]
    tensors: list[str]
    outputs: tuple[str, ...]
    has_texts: bool
    run: Callable[[list[str], dict[str, Array]], list[Any]]


class OnnxRuntimeModel:
    """The sessions of a variant. Thread-safe."""

    def __init__(self, sessions: Mapping[str, Any], signatures: Mapping[str, Signature], errors: _Errors) -> None:
        self.signatures = signatures
        self._errors = errors
        self._runs = {name: session.run for name, session in sessions.items()}
        self._plans: dict[tuple[str, tuple[str, ...] | None], _Plan] = {}

    def run(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Runs `signature` once. `timeout_s` only keeps a run from beginning whose time is over."""
        check_time(timeout_s)
        key = (signature, None if outputs is None else tuple(outputs))
        plan = self._plans.get(key) or self._plan(*key)
        if len(inputs) != len(plan.inputs):
            check_inputs(plan.signature, inputs)
        fed = {}
        for name, tensor, dtype in plan.inputs:
            try:
                array = inputs[name]
            except KeyError:
                check_inputs(plan.signature, inputs)
                raise
            is_ready = not plan.has_texts and type(array) is np.ndarray and array.dtype is dtype.numpy
            fed[tensor] = array if is_ready else _fed(array, name, dtype)
        try:
            results = plan.run(plan.tensors, fed)
        except self._errors as error:
            raise _error(error) from None
        if plan.has_texts:
            results = [bytes_of(result) if result.dtype == object else result for result in map(np.asarray, results)]
        return dict(zip(plan.outputs, results, strict=True))

    def close(self) -> None:
        """Frees the sessions. A later run is refused."""
        self.signatures = {}
        self._runs = {}
        self._plans = {}

    def _plan(self, name: str, outputs: tuple[str, ...] | None) -> _Plan:
        if not self._runs:
            raise FailedPrecondition("the model is closed")
        signature = signature_named(self.signatures, name)
        if outputs is not None:
            check_outputs(signature, outputs)
        wanted = [signature.outputs[output] for output in (signature.outputs if outputs is None else outputs)]
        specs = (*signature.inputs.values(), *wanted)
        plan = _Plan(
            signature,
            tuple((spec.name, spec.tensor, spec.dtype) for spec in signature.inputs.values()),
            [spec.tensor for spec in wanted],
            tuple(spec.name for spec in wanted),
            any(spec.dtype.is_string for spec in specs),
            self._runs[name],
        )
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[name, outputs] = plan
        return plan


def _fed(array: Array, name: str, dtype: DType) -> Array:
    array = np.asarray(array)  # it takes no scalars of NumPy
    if array.dtype is not dtype.numpy:
        array = native(array, name, dtype)
    return texts_of(array, name) if dtype.is_string else array


def _error(error: BaseException) -> PenstockError:
    text = _text(error)
    if "alloc" in text and "memory" in text.lower():
        return ResourceExhausted(text)
    return InvalidArgument(text)


def _text(error: BaseException) -> str:
    """Its message, in one line, without the code that it begins with."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return _CODE.sub("", text) or type(error).__name__


def _own_signature(session: Any) -> Signature:
    """The tensors of a file, by its own names. Raises InvalidArgument for an element type that no array can hold."""
    inputs, outputs = (
        {tensor.name: _own_spec(tensor) for tensor in sorted(tensors, key=lambda tensor: str(tensor.name))}
        for tensors in (session.get_inputs(), session.get_outputs())
    )
    return Signature(_DEFAULT_SIGNATURE, inputs, outputs, _PREDICT)


def _own_spec(tensor: Any) -> TensorSpec:
    kind = str(tensor.type).removeprefix("tensor(").removesuffix(")")
    try:
        dtype = dtype_of_name(_TYPES.get(kind, kind))
    except KeyError:
        raise InvalidArgument(f"{tensor.name} is {tensor.type}, which no array can hold") from None
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in tensor.shape)
    return TensorSpec(tensor.name, dtype, shape, tensor.name)
