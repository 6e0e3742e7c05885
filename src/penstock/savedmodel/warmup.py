"""The requests that a version brings along to be warmed up with, from its folder `assets.extra` (contract §6).

`tf_serving_warmup_requests` has TensorFlow Serving's PredictionLogs as TFRecords; `warmup.json` has one body of its REST
predict. Guarantees: whatever the bytes of a file are, only a PenstockError comes out, whose message names the file; the
memory taken is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from penstock.errors import DataLoss, InvalidArgument, PenstockError, PermissionDenied, ResourceExhausted, Unimplemented
from penstock.savedmodel.defaults import array_of_proto
from penstock.savedmodel.protos import message_class
from penstock.savedmodel.tfrecord import read_records
from penstock.tensors import OPAQUE_NAMES, Array

MAX_RECORDS = 1000
MAX_BYTES = 2 << 30

_FOLDER = "assets.extra"
RECORDS = "tf_serving_warmup_requests"
_BODY = "warmup.json"
_DEFAULT_SIGNATURE = "serving_default"
_EXAMPLE_METHODS = frozenset({"tensorflow/serving/classify", "tensorflow/serving/regress"})

_PredictionLog = message_class("penstock.savedmodel.PredictionLog")


@dataclass(frozen=True, slots=True)
class WarmupRequest:
    """One call of a signature.

    Either `inputs` by name, and `outputs` as the names of those wanted (None: all); or, for classify and regress,
    `examples`: serialized tf.Examples, a string tensor [n] for the signature's only input.
    """

    signature_name: str
    inputs: dict[str, Array]
    outputs: tuple[str, ...] | None = None
    examples: list[bytes] | None = None

    @property
    def input_bytes(self) -> int:
        """What the inputs take of memory; a string counts with its bytes."""
        arrays = self.inputs.values()
        numbers = sum(array.nbytes for array in arrays)
        strings = sum(len(value) for array in arrays if array.dtype.hasobject for value in array.flat)
        return numbers + strings + sum(map(len, self.examples or ()))


def read_warmup(version_folder: Path) -> list[WarmupRequest]:
    """The recorded requests of a version, as `read_recorded` gives them; none where the file is missing."""
    try:
        return read_recorded(version_folder / _FOLDER / RECORDS)
    except FileNotFoundError:
        return []


def read_recorded(file: Path) -> list[WarmupRequest]:
    """The requests in a file of PredictionLogs, in their order. Raises FileNotFoundError where it is missing.

    A multi-inference becomes one request for each of its tasks. Raises DataLoss for a file that is no TFRecord file,
    InvalidArgument for records that are no requests or too many, Unimplemented for other kinds of logs,
    ResourceExhausted above MAX_BYTES, and PermissionDenied.
    """
    requests: list[WarmupRequest] = []
    total = 0
    try:
        for number, record in enumerate(read_records(file), 1):
            if number > MAX_RECORDS:
                raise InvalidArgument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}")
            for request in _requests(record, f"record {number} of {file}"):
                total += request.input_bytes
                if total > MAX_BYTES:
                    raise ResourceExhausted(f"{file}: the inputs take more than {MAX_BYTES >> 30} GiB up to record {number}")
                requests.append(request)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(file, error) from error
    except DataLoss as error:
        raise DataLoss(f"{error.message}. Please verify your warmup data is in TFRecord format.") from error
    return requests


def recorded_request(version_folder: Path) -> bytes | None:
    """The content of `assets.extra/warmup.json`, or None where it is missing. Raises PermissionDenied and DataLoss."""
    file = version_folder / _FOLDER / _BODY
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> PenstockError:
    if isinstance(error, PermissionError):
        return PermissionDenied(f"{file}: {error.strerror}")
    return DataLoss(f"{file}: cannot be read: {error.strerror}")


def _requests(record: bytes, place: str) -> Iterator[WarmupRequest]:
    try:
        log = _PredictionLog.FromString(record)
    except DecodeError as error:
        raise InvalidArgument(f"Failed to parse warmup record: {place} is not a PredictionLog") from error
    match log.WhichOneof("log_type"):
        case None:
            pass
        case "predict_log":
            yield _predict(log.predict_log.request, place)
        case "classify_log":
            yield _on_examples(log.classify_log.request.model_spec, log.classify_log.request.input, place)
        case "regress_log":
            yield _on_examples(log.regress_log.request.model_spec, log.regress_log.request.input, place)
        case "multi_inference_log":
            yield from _multi_inference(log.multi_inference_log.request, place)
        case other:
            number = _PredictionLog.DESCRIPTOR.fields_by_name[other].number
            raise Unimplemented(f"Unsupported log_type for warmup: {number} ({other}, {place})")


def _predict(request: Any, place: str) -> WarmupRequest:
    inputs = {name: _array(request.inputs[name], f"input {name!r}, {place}") for name in sorted(request.inputs)}
    return WarmupRequest(_signature_name(request.model_spec), inputs, tuple(request.output_filter) or None)


def _array(proto: Any, place: str) -> Array:
    try:
        return array_of_proto(proto)
    except KeyError:
        kind = OPAQUE_NAMES.get(proto.dtype % 100, f"number {proto.dtype}")
        raise InvalidArgument(f"{place}: no array can hold its element type {kind}") from None
    except ValueError as error:
        raise InvalidArgument(f"{place}: {error}") from error


def _multi_inference(request: Any, place: str) -> Iterator[WarmupRequest]:
    for task in request.tasks:
        if task.method_name not in _EXAMPLE_METHODS:
            raise Unimplemented(f"Unsupported signature method_name: {task.method_name} ({place})")
        yield _on_examples(task.model_spec, request.input, place)


def _on_examples(model_spec: Any, given: Any, place: str) -> WarmupRequest:
    """Concatenated, the bytes of two messages are one message with the fields of both: so the context joins each example."""
    context = given.example_list_with_context.context
    listed = [*given.example_list.examples, *given.example_list_with_context.examples]
    if not listed:
        raise InvalidArgument(f"Input is empty. ({place})")
    return WarmupRequest(_signature_name(model_spec), {}, examples=[context + example for example in listed])


def _signature_name(model_spec: Any) -> str:
    return model_spec.signature_name or _DEFAULT_SIGNATURE
