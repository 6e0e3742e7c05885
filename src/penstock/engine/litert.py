"""LiteRT, which executes models in TensorFlow Lite's format: a version folder with `model.tflite`.

Guarantees: signatures are the file's own; a file without any has one, serving_default, of its tensors' names. One run at a
time, because an interpreter has one set of buffers; a run that was begun cannot be ended. LiteRT is an extra
(`pip install penstock[litert]`), imported with the first model.
"""

from __future__ import annotations

import mmap
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from penstock.config import available_cores
from penstock.engine.base import EngineOptions
from penstock.engine.feeds import check_inputs, check_outputs, check_time, native, signature_named
from penstock.errors import FailedPrecondition, InvalidArgument, PenstockError
from penstock.savedmodel.layout import LITE_FILE
from penstock.tensors import STRING, Array, DType, Signature, TensorSpec, dtype_of_array

_DEFAULT_SIGNATURE = "serving_default"
_PREDICT = "tensorflow/serving/predict"
#: Operations that read or write what outlives a run, by their numbers in TensorFlow Lite's schema: VAR_HANDLE, READ_VARIABLE,
#: ASSIGN_VARIABLE.
_STATEFUL_OPERATIONS = frozenset({142, 143, 144})

_Run = Callable[[Mapping[str, Array]], dict[str, Array]]
_Details = Mapping[str, Mapping[str, Any]]


class LiteRtEngine:
    """LiteRT, as an engine."""

    name = "litert"

    def __init__(self) -> None:
        """Raises FailedPrecondition where it is not installed."""
        try:
            import ai_edge_litert
            from ai_edge_litert import schema_py_generated
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise FailedPrecondition(f"LiteRT is missing ({error}): pip install penstock[litert]") from None
        self._interpreter = Interpreter
        self._schema = schema_py_generated
        self.version = str(getattr(ai_edge_litert, "__version__", ""))

    def load(self, path: Path, options: EngineOptions) -> LiteRtModel:
        """Loads `model.tflite` of the version folder `path`. Raises a PenstockError whose message begins with the file."""
        file = path / LITE_FILE
        threads = options.intra_op or max(1, available_cores() - 1)
        try:
            interpreter = self._interpreter(model_path=str(file), num_threads=threads)
            return LiteRtModel(interpreter, _keeps_state(self._schema, file))
        except (ValueError, RuntimeError, OSError, struct.error, IndexError) as error:
            raise FailedPrecondition(f"{file}: {error}") from None
        except PenstockError as error:
            raise FailedPrecondition(f"{file}: {error.message}") from None


class LiteRtModel:
    """A file in an interpreter. Thread-safe. `is_stateful`: a run changes what the next one answers."""

    def __init__(self, interpreter: Any, is_stateful: bool) -> None:
        """Raises InvalidArgument for an element type that no array can hold."""
        self.is_stateful = is_stateful
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        signatures: dict[str, Signature] = {}
        for name in interpreter.get_signature_list():
            runner = interpreter.get_signature_runner(name)
            signatures[name] = _signature(name, runner.get_input_details(), runner.get_output_details())
            self._runs[name] = partial(_with_signature, runner)
        if not signatures:
            inputs, outputs = _by_alias(interpreter.get_input_details()), _by_alias(interpreter.get_output_details())
            signatures[_DEFAULT_SIGNATURE] = _signature(_DEFAULT_SIGNATURE, inputs, outputs)
            self._runs[_DEFAULT_SIGNATURE] = _without_signature(interpreter, inputs, outputs)
        self.signatures: Mapping[str, Signature] = signatures

    def run(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Runs `signature` once. `timeout_s` only keeps a run from beginning whose time is over."""
        definition = signature_named(self.signatures, signature)
        check_time(timeout_s)
        check_inputs(definition, inputs)
        check_outputs(definition, outputs or ())
        given = {name: _fed(inputs[name], name, spec.dtype) for name, spec in definition.inputs.items()}
        with self._lock:
            try:
                results = self._runs[signature](given)
            except (ValueError, RuntimeError) as error:
                raise InvalidArgument(str(error)) from None
        return {name: _taken(results[name], definition.outputs[name].dtype) for name in outputs or definition.outputs}

    def close(self) -> None:
        """Frees the interpreter. A later run is refused."""
        self.signatures = {}
        self._runs = {}


def _signature(name: str, inputs: _Details, outputs: _Details) -> Signature:
    return Signature(name, _specs(inputs), _specs(outputs), _PREDICT)


def _specs(details: _Details) -> dict[str, TensorSpec]:
    """Sorted by name, as all signatures are."""
    return {alias: _spec(alias, details[alias]) for alias in sorted(details)}


def _spec(alias: str, detail: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(None if size < 0 else int(size) for size in detail["shape_signature"])
    return TensorSpec(alias, _dtype(alias, detail["dtype"]), shape, detail["name"])


def _dtype(alias: str, kind: Any) -> DType:
    try:
        return STRING if np.dtype(kind).kind in "SO" else dtype_of_array(np.empty(0, kind))
    except (KeyError, TypeError):
        raise InvalidArgument(f"{alias} has elements of a type that is not supported: {kind}") from None


def _by_alias(details: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Tensors by name, without the number of an operation's output where that leaves them apart."""
    details = list(details)
    short = [str(detail["name"]).partition(":")[0] for detail in details]
    names = short if len(set(short)) == len(short) else [str(detail["name"]) for detail in details]
    return dict(zip(names, details, strict=True))


def _with_signature(runner: Any, given: Mapping[str, Array]) -> dict[str, Array]:
    results: dict[str, Array] = runner(**given)
    return results


def _without_signature(interpreter: Any, inputs: _Details, outputs: _Details) -> _Run:
    def run(given: Mapping[str, Array]) -> dict[str, Array]:
        for name, array in given.items():
            interpreter.resize_tensor_input(inputs[name]["index"], array.shape)
        interpreter.allocate_tensors()
        for name, array in given.items():
            interpreter.set_tensor(inputs[name]["index"], array)
        interpreter.invoke()
        return {name: interpreter.get_tensor(detail["index"]) for name, detail in outputs.items()}

    return run


def _fed(array: Array, name: str, dtype: DType) -> Array:
    """An input as LiteRT takes it. Raises InvalidArgument.

    Of an object array without dimensions it would read the object's address (2.3), so such a text gets a type of its own width.
    """
    array = np.asarray(native(array, name, dtype), order="C")
    if not dtype.is_string or array.ndim:
        return array
    text = array.item()
    text = text.encode() if isinstance(text, str) else bytes(text)
    if not text or text.endswith(b"\0"):
        raise InvalidArgument(
            f"input {name} is a text without dimensions: expected one that is not empty and ends with no zero byte"
        )
    return np.array(text)


def _taken(array: Array, dtype: DType) -> Array:
    """An output as the rest knows arrays: strings are objects, everything else is as it came."""
    return array.astype(object) if dtype.is_string and array.dtype != object else array


def _keeps_state(schema: Any, file: Path) -> bool:
    """Whether a graph of the file has variables. The file was found to be one of TensorFlow Lite's before."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        model = schema.Model.GetRootAs(content, 0)
        codes = (model.OperatorCodes(index).BuiltinCode() for index in range(model.OperatorCodesLength()))
        if any(code in _STATEFUL_OPERATIONS for code in codes):
            return True
        graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
        return any(graph.Tensors(index).IsVariable() for graph in graphs for index in range(graph.TensorsLength()))
