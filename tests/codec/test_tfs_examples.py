"""Classify and Regress against the vectors of TensorFlow Serving (contract §8.4, 30 to 36)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from penstock.codec.example import serialize_example
from penstock.codec.tfs_examples import decode_examples, encode_classification, encode_regression
from penstock.errors import InvalidArgument, NotFound
from penstock.tensors import FLOAT, STRING, Array, Signature, TensorSpec

INPUTS = {"inputs": TensorSpec("inputs", STRING, (None,))}
CLASSIFY = Signature(
    "classify",
    INPUTS,
    {"classes": TensorSpec("classes", STRING, None), "scores": TensorSpec("scores", FLOAT, None)},
)
REGRESS = Signature("regress", INPUTS, {"outputs": TensorSpec("outputs", FLOAT, None)})


def decode(body: str, method: str = "classify") -> list[bytes]:
    request = decode_examples(body.encode(), method, lambda name: CLASSIFY if method == "classify" else REGRESS)
    assert request.examples.dtype == np.object_
    examples: list[bytes] = request.examples.tolist()
    return examples


def test_features_have_the_kind_of_their_json_type() -> None:
    body = '{"examples":[{"names":["foo","bar"],"ratings":[8.0,9.0]},{"names":["baz"],"age":35,"null":[]}]}'
    assert decode(body) == [
        serialize_example({b"names": [b"foo", b"bar"], b"ratings": [8.0, 9.0]}),
        serialize_example({b"names": [b"baz"], b"age": [35], b"null": []}),
    ]


def test_the_context_is_merged_into_each_example() -> None:
    body = (
        '{"signature_name":"s","context":{"query":"pizza","location":["sfo",{"b64":"/w=="}]},'
        '"examples":[{"ratings":[NaN,Infinity,-Infinity]},{"flags":[1,true,false]}]}'
    )
    context = serialize_example({b"query": [b"pizza"], b"location": [b"sfo", b"\xff"]})
    nan, inf = float("nan"), float("inf")
    assert decode(body) == [
        context + serialize_example({b"ratings": [nan, inf, -inf]}),
        context + serialize_example({b"flags": [1, 1, 0]}),
    ]


def test_a_context_that_would_take_gigabytes_in_all_examples_is_refused() -> None:
    examples = ",".join(["{}"] * 10_000)
    with pytest.raises(InvalidArgument, match=r"the context in each would take \d+ bytes, 268435456 are allowed"):
        decode(f'{{"context":{{"a":"{"x" * 30_000}"}},"examples":[{examples}]}}')


FAULTS = [
    ("", "JSON Parse error: The document is empty"),
    ("[]", "Is not object"),
    ('{"signature_name":[1]}', "'signature_name' key must be a string value."),
    ('{"context":[],"examples":[{}]}', "Example must be JSON object but got JSON Array"),
    ("{}", "When method is classify, key 'examples' is expected and was not found"),
    ('{"examples":{}}', "Expecting 'examples' value to be an list/array"),
    ('{"examples":[]}', "'examples' value is an empty array"),
    ('{"examples":[[1]]}', "Example must be JSON object but got JSON Array"),
    ('{"examples":[{"f":[10,null]}]}', "Feature: f has element with unexpected JSON type: Null"),
    ('{"examples":[{"f":[10,10.0]}]}', "Unexpected element type in feature: f expecting type: int64"),
    ('{"examples":[{"f":["a",1]}]}', "Unexpected element type in feature: f expecting type: bytes"),
    ('{"examples":[{"f":{"test":10}}]}', "Feature: f has element with unexpected JSON type: Object"),
    ('{"examples":[{"f":[[10],20]}]}', "Feature: f has element with unexpected JSON type: Array"),
    ('{"examples":[{"f":[10,18446744073709551603]}]}', "Feature: f has uint64_t element. Only int64_t is supported."),
    ('{"examples":[{"f":{"b64":"*"}}]}', "Unable to base64 decode"),
]


@pytest.mark.parametrize(("body", "expected"), FAULTS)
@pytest.mark.parametrize("method", ["classify", "regress"])
def test_faults_have_the_texts_of_the_contract(body: str, expected: str, method: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode(body, method)
    assert expected in caught.value.message


def test_wrong_examples_beat_an_unknown_model() -> None:
    def find(name: str) -> Signature:
        raise NotFound(name)

    with pytest.raises(InvalidArgument):
        decode_examples(b'{"examples":[]}', "classify", find)
    with pytest.raises(NotFound):
        decode_examples(b'{"examples":[{}]}', "classify", find)


@pytest.mark.parametrize(
    ("method", "signature", "expected"),
    [
        ("classify", Signature("s", {}, CLASSIFY.outputs), "Expected one input Tensor."),
        ("classify", Signature("s", INPUTS, {}), "Expected one or two output Tensors, found 0"),
        ("classify", Signature("s", REGRESS.outputs, CLASSIFY.outputs), "No classification inputs found"),
        ("classify", REGRESS, 'to contain at least one of "classes" or "scores". Signature was: regress'),
        ("regress", Signature("s", {}, REGRESS.outputs), "Expected one input Tensor."),
        ("regress", CLASSIFY, "Expected one output Tensor."),
        ("regress", Signature("s", REGRESS.outputs, REGRESS.outputs), "No regression inputs found"),
        ("regress", Signature("s", INPUTS, INPUTS), "No regression outputs found"),
    ],
)
def test_the_signature_must_fit_the_method(method: str, signature: Signature, expected: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode_examples(b'{"examples":[{}]}', method, lambda name: signature)
    assert expected in caught.value.message


CLASSES = np.array([[b"a", b"\xffb"], [b'c"', b"null"]], np.object_)
SCORES = np.array([[0.2, 1], [np.nan, -np.inf]], np.float32)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (
            {"classes": CLASSES, "scores": SCORES},
            '[[["a",0.2],["\ufffdb",1.0]],[["c\\"",NaN],["null",-Infinity]]]',
        ),
        ({"classes": CLASSES[:, :1]}, '[[["a",0.0]],[["c\\"",0.0]]]'),
        ({"scores": SCORES[:, :1]}, '[[["",0.2]],[["",NaN]]]'),
        ({"scores": SCORES[:, :0]}, "[[],[]]"),
    ],
    ids=["both", "classes", "scores", "no class"],
)
def test_classifications_are_pairs_of_label_and_score(outputs: dict[str, Array], expected: str) -> None:
    assert encode_classification(CLASSIFY, outputs, 2).decode() == f'{{"results":{expected}}}'


@pytest.mark.parametrize(
    ("outputs", "count", "expected"),
    [
        ({}, 2, "to contain at least one of"),
        ({"classes": CLASSES[0]}, 2, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ({"scores": SCORES[0]}, 2, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ({"classes": SCORES}, 2, "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        ({"scores": SCORES.astype(np.float64)}, 2, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ({"classes": CLASSES}, 3, "Expected classes output batch size of 3. Got: 2"),
        ({"classes": CLASSES, "scores": SCORES[:, :1]}, 2, "should match in dim_size(1). Got 2 vs. 1"),
        ({"scores": SCORES[:0]}, 0, "Cannot convert empty ClassificationResults to JSON"),
    ],
)
def test_outputs_that_are_no_classification(outputs: dict[str, Array], count: int, expected: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        encode_classification(CLASSIFY, outputs, count)
    assert expected in caught.value.message


def test_regressions_are_a_list_of_numbers() -> None:
    values = np.array([0.2, 0.9, 1.0], np.float32)
    assert encode_regression(REGRESS, {"outputs": values}, 3) == b'{"results":[0.2,0.9,1.0]}'
    assert encode_regression(REGRESS, {"outputs": values.reshape(3, 1)}, 3) == b'{"results":[0.2,0.9,1.0]}'
    wild = np.array([np.nan, np.inf, -np.inf], np.float32)
    assert encode_regression(REGRESS, {"outputs": wild}, 3) == b'{"results":[NaN,Infinity,-Infinity]}'


@pytest.mark.parametrize(
    ("array", "count", "expected"),
    [
        (np.zeros((2, 2), np.float32), 2, "to be either [batch_size] or [batch_size, 1] but got [2,2]"),
        (np.zeros((), np.float32), 1, "to be either [batch_size] or [batch_size, 1] but got []"),
        (np.zeros(2, np.float32), 3, "Input batch size did not match output batch size: 3 vs. 2"),
        (np.zeros(2), 2, "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
        (np.zeros(0, np.float32), 0, "Cannot convert empty RegressionResults to JSON"),
    ],
)
def test_outputs_that_are_no_regression(array: Array, count: int, expected: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        encode_regression(REGRESS, {"outputs": array}, count)
    assert expected in caught.value.message


def test_results_are_valid_json_without_nan() -> None:
    assert json.loads(encode_classification(CLASSIFY, {"classes": CLASSES[:1], "scores": SCORES[:1]}, 1))
