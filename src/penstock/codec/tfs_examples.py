"""Classify and Regress over REST, TensorFlow Serving's JSON in both directions (contract §1.5).

A request is a list of tf.Examples written as JSON; the model gets them serialized, in a tensor of strings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.codec.example import Feature, serialize_example, with_context
from penstock.codec.json_bytes import bytes_of_text, decode_base64, is_base64_object
from penstock.codec.json_encode import encode_array, encode_each
from penstock.codec.json_parse import parse_tree
from penstock.codec.json_text import printable, quote, type_name
from penstock.codec.tfs_predict import signature_name_of
from penstock.codec.tfs_results import Classes, check_signature, classes_of, values_of
from penstock.errors import InvalidArgument
from penstock.tensors import Array, Signature

_KIND_NAMES: dict[type, str] = {bytes: "bytes", float: "float", int: "int64"}


@dataclass(slots=True)
class ExamplesRequest:
    """A decoded request: `examples` is an object array [N] of serialized tf.Examples, the context merged into each."""

    signature: Signature
    examples: Array


def decode_examples(body: bytes, method: str, find_signature: Callable[[str], Signature]) -> ExamplesRequest:
    """The request that `body` holds for `method` ("classify" or "regress").

    `find_signature` gets the name ("" where there is none) and raises for what is unknown; it is asked last, as in
    TensorFlow Serving. Raises InvalidArgument, also for a signature that the method cannot use.
    """
    root = parse_tree(body)
    name = signature_name_of(root)
    context = _example(root["context"]) if "context" in root else b""
    if "examples" not in root:
        # TensorFlow Serving says classify for regress too
        raise InvalidArgument(f"JSON Value: {quote(root)} When method is classify, key 'examples' is expected and was not found")
    values = root["examples"]
    if type(values) is not list:
        raise InvalidArgument(f"JSON Value: {quote(root)} Expecting 'examples' value to be an list/array")
    if not values:
        raise InvalidArgument(f"JSON Value: {quote(root)} 'examples' value is an empty array")
    examples = with_context(context, [_example(value) for value in values])
    signature = find_signature(name)
    check_signature(method, signature)
    return ExamplesRequest(signature, examples)


def encode_classification(signature: Signature, outputs: Mapping[str, Array], example_count: int) -> bytes:
    """`{"results": [[["label", score], ...], ...]}` from `classes` (string [N, k]) and `scores` (float [N, k]).

    Either may be missing: then the labels are empty, or the scores zero. Raises InvalidArgument for other shapes and
    types.
    """
    found = classes_of(signature, outputs, example_count)
    if example_count == 0:
        raise InvalidArgument("Cannot convert empty ClassificationResults to JSON")
    pairs = list(map(b"[%b,%b]".__mod__, zip(_labels(found), _scores(found), strict=True)))
    width = found.shape[1]
    rows = [b",".join(pairs[index * width : (index + 1) * width]) for index in range(example_count)]
    return b'{"results":[[' + b"],[".join(rows) + b"]]}"


def encode_regression(signature: Signature, outputs: Mapping[str, Array], example_count: int) -> bytes:
    """`{"results": [v, ...]}` from `outputs`, float [N] or [N, 1]. Raises InvalidArgument for others."""
    values = values_of(signature, outputs, example_count)
    if example_count == 0:
        raise InvalidArgument("Cannot convert empty RegressionResults to JSON")
    return b'{"results":' + encode_array(values) + b"}"


def _example(value: Any) -> bytes:
    if type(value) is not dict:
        raise InvalidArgument(f"Example must be JSON object but got JSON {type_name(value)}")
    return serialize_example({bytes_of_text(name): _feature(name, content) for name, content in value.items()})


def _feature(name: str, content: Any) -> Feature:
    values: list[Any] = []
    for element in content if type(content) is list else [content]:
        value = _element(name, element)
        if values and type(value) is not type(values[0]):
            kind = _KIND_NAMES[type(values[0])]
            raise InvalidArgument(f"Unexpected element type in feature: {printable(name)} expecting type: {kind}")
        if type(value) is int and value >= 2**63:
            raise InvalidArgument(f"Feature: {printable(name)} has uint64_t element. Only int64_t is supported.")
        values.append(value)
    return values


def _element(name: str, element: Any) -> bytes | float | int:
    if type(element) is str:
        return bytes_of_text(element)
    if type(element) is float:
        return element
    if type(element) is bool or type(element) is int:
        return int(element)
    if not is_base64_object(element):
        raise InvalidArgument(f"Feature: {printable(name)} has element with unexpected JSON type: {type_name(element)}")
    decoded = decode_base64(element["b64"])
    if decoded is None:
        raise InvalidArgument("Unable to base64 decode")
    return decoded


def _labels(found: Classes) -> list[bytes]:
    if found.labels is None:
        return [b'""'] * (found.shape[0] * found.shape[1])
    return encode_each(found.labels.reshape(-1))


def _scores(found: Classes) -> list[bytes]:
    count = found.shape[0] * found.shape[1]
    if found.scores is None or not count:
        return [b"0.0"] * count
    return encode_array(found.scores.reshape(-1))[1:-1].split(b",")
