"""Classify, Regress and MultiInference over gRPC, in both directions (contract §2).

Guarantees: examples are cut out of the message as they are; what is in them is the model's business.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.codec.example import with_context
from penstock.codec.protobuf_wire import FIXED32, LENGTH, Buffer, encode_bytes, encode_varint, fields, tag_of, text
from penstock.codec.tfs_proto import ModelChoice, decode_model_spec, missing_model_spec
from penstock.codec.tfs_results import classes_of, values_of
from penstock.errors import InvalidArgument
from penstock.tensors import Array, Signature

_FIRST_TAG, _SECOND_TAG = tag_of(1, LENGTH), tag_of(2, LENGTH)
_SCORE_TAG = encode_varint(tag_of(2, FIXED32))
_KINDS = frozenset((_FIRST_TAG, _SECOND_TAG))


@dataclass(frozen=True, slots=True)
class ExamplesCall:
    """A request of Classify or Regress: `examples` is an object array [N] of serialized tf.Examples."""

    choice: ModelChoice
    examples: Array


@dataclass(frozen=True, slots=True)
class Task:
    """One signature of a MultiInference request."""

    choice: ModelChoice
    method_name: str


def decode_examples(message: Buffer) -> ExamplesCall:
    """A ClassificationRequest or RegressionRequest. `examples` may be empty. Raises InvalidArgument."""
    spans = _spans(message, 0, len(message))
    if not spans[_FIRST_TAG]:
        raise missing_model_spec()
    return ExamplesCall(decode_model_spec(_joined(message, spans[_FIRST_TAG])), _examples(_joined(message, spans[_SECOND_TAG])))


def decode_multi_inference(message: Buffer) -> tuple[list[Task], Array]:
    """The tasks and the examples of a MultiInferenceRequest. Raises InvalidArgument."""
    spans = _spans(message, 0, len(message))
    tasks = [_task(message, *span) for span in spans[_FIRST_TAG]]
    if not tasks:
        raise missing_model_spec()
    return tasks, _examples(_joined(message, spans[_SECOND_TAG]))


def check_examples(examples: Array) -> None:
    """Raises InvalidArgument where there are none."""
    if not examples.size:
        raise InvalidArgument("Input is empty.")


def encode_result(method: str, signature: Signature, outputs: Mapping[str, Array], example_count: int) -> bytes:
    """A ClassificationResult or a RegressionResult, by the method ("classify" or "regress"). Raises InvalidArgument."""
    if method == "classify":
        return _classification(signature, outputs, example_count)
    values = values_of(signature, outputs, example_count).tolist()
    return b"".join([encode_bytes(1, b"\x0d" + packed if (packed := _float(value)) else b"") for value in values])


def encode_response(result: bytes, model_spec: bytes) -> tuple[Buffer, ...]:
    """A ClassificationResponse or RegressionResponse."""
    return (encode_bytes(1, result) + encode_bytes(2, model_spec),)


def encode_task_result(method: str, result: bytes, model_spec: bytes) -> bytes:
    """One result of a MultiInferenceResponse, which is nothing but all of them behind one another."""
    return encode_bytes(1, encode_bytes(1, model_spec) + encode_bytes(2 if method == "classify" else 3, result))


def _classification(signature: Signature, outputs: Mapping[str, Array], example_count: int) -> bytes:
    found = classes_of(signature, outputs, example_count)
    rows, width = found.shape
    labels = [b""] * (rows * width) if found.labels is None else found.labels.reshape(-1).tolist()
    scores = [0.0] * (rows * width) if found.scores is None else found.scores.reshape(-1).tolist()
    classes = [encode_bytes(1, _class(label, score)) for label, score in zip(labels, scores, strict=True)]
    return b"".join([encode_bytes(1, b"".join(classes[row * width : (row + 1) * width])) for row in range(rows)])


def _class(label: bytes, score: float) -> bytes:
    packed = _float(score)
    return (encode_bytes(1, label) if label else b"") + (_SCORE_TAG + packed if packed else b"")


def _float(value: float) -> bytes:
    """Nothing for zero, as protobuf has it."""
    packed = struct.pack("<f", value)
    return b"" if packed == b"\0\0\0\0" else packed


def _spans(data: Buffer, start: int, end: int) -> dict[int, list[tuple[int, int]]]:
    """The places of the first two fields, where they are messages."""
    found: dict[int, list[tuple[int, int]]] = {tag: [] for tag in _KINDS}
    for tag, first, last in fields(data, start, end):
        if tag in found:
            found[tag].append((first, last))
    return found


def _joined(data: Buffer, spans: list[tuple[int, int]]) -> bytes:
    """A message whose parts are in several places."""
    return b"".join([bytes(data[first:last]) for first, last in spans])


def _examples(given: bytes) -> Array:
    """The examples of an Input, a context put before each."""
    parts: list[tuple[int, int]] = []
    kind = 0
    for tag, first, last in fields(given):
        if tag in _KINDS:
            if tag != kind:  # the last of two kinds counts
                kind, parts = tag, []
            parts.append((first, last))
    listed = _joined(given, parts)
    spans = _spans(listed, 0, len(listed))
    context = _joined(listed, spans[_SECOND_TAG]) if kind == _SECOND_TAG else b""
    return with_context(context, [listed[first:last] for first, last in spans[_FIRST_TAG]])


def _task(message: Buffer, start: int, end: int) -> Task:
    spans = _spans(message, start, end)
    method_name = text(message, *spans[_SECOND_TAG][-1]) if spans[_SECOND_TAG] else ""
    return Task(decode_model_spec(_joined(message, spans[_FIRST_TAG])), method_name)
