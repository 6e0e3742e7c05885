"""TensorFlow Serving's errors: codes and texts that clients compare with (contract §1.1 to §1.3)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.servers import Server, error_of

pytestmark = pytest.mark.xdist_group("shared")

_PREDICT: dict[str, tuple[str, Any, str]] = {
    "empty": ("half_plus_two", b"", "JSON Parse error: The document is empty"),
    "white space": ("half_plus_two", b"  \n", "JSON Parse error: The document is empty"),
    "not json": ("half_plus_two", b"instances=[1]", "JSON Parse error: Invalid value. at offset: 0"),
    "half a document": ("half_plus_two", b'{"instances": [1, 2', "at offset: 19"),
    "not an object": ("half_plus_two", [1.0], "Is not object"),
    "signature name": ("half_plus_two", {"signature_name": 5, "instances": [1]}, "'signature_name' key must be a string value."),
    "signature": (
        "half_plus_two",
        {"signature_name": "nope", "instances": [1]},
        'Serving signature name: "nope" not found in signature def',
    ),
    "no inputs": ("counter", {"signature_name": "read", "inputs": {}}, "Failed to get input map for signature: read"),
    "no key": ("half_plus_two", {"x": [1]}, "Missing 'inputs' or 'instances' key"),
    "both keys": (
        "half_plus_two",
        {"inputs": [1], "instances": [1]},
        "expecting only one of 'inputs' or 'instances' keys to exist",
    ),
    "instances no list": ("half_plus_two", {"instances": 5}, "Expecting 'instances' to be an list/array"),
    "no instances": ("half_plus_two", {"instances": []}, "No values in 'instances' array"),
    "ragged": ("half_plus_two", {"instances": [[1, 2], [3]]}, "Expecting tensor size: 2 but got: 1"),
    "ranks": ("half_plus_two", {"instances": [[1, 2], [[3, 4]]]}, "Expecting shape [2] but got: [1,2]"),
    "ragged column": (
        "half_plus_two",
        {"inputs": [[1, 2], [3]]},
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    "scalar among lists": ("half_plus_two", {"inputs": [[1], 2]}, "found at incorrect level: 2"),
    "text for numbers": ("half_plus_two", {"instances": [1, "a"]}, "Type: String is not of expected type: float"),
    "null": ("half_plus_two", {"instances": [None]}, "JSON Value: null Type: Null is not of expected type: float"),
    "bool for numbers": ("half_plus_two", {"inputs": True}, "Type: True is not of expected type: float"),
    "place": (
        "half_plus_two",
        {"instances": [1, "a"]},
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: ",
    ),
    "place in an object": (
        "half_plus_two",
        {"instances": [{"x": "a"}]},
        "Failed to process element: 0 key: x of 'instances' list.",
    ),
    "fraction for int": ("checked", {"instances": [1.5]}, "Type: Number is not of expected type: int32"),
    "whole float for int": ("checked", {"instances": [1.0]}, "is not of expected type: int32"),
    "int too large": ("checked", {"instances": [2**31]}, "is not of expected type: int32"),
    "byte too large": ("dtypes", {"signature_name": "uint8", "inputs": [256]}, "is not of expected type: uint8"),
    "number for text": ("vocabulary", {"instances": [5]}, "Type: Number is not of expected type: string"),
    "base64": ("vocabulary", {"instances": [{"b64": "!!"}]}, "Unable to base64 decode"),
    "base64 no text": ("vocabulary", {"inputs": {"words": {"b64": 5}}}, "not formatted correctly for base64 data"),
    "object and list": (
        "mixed",
        {"instances": [{"count": 1, "name": "a", "weights": [1, 1]}, [1]]},
        "Expecting object but got list at item 1",
    ),
    "list and object": (
        "half_plus_two",
        {"instances": [1, {"x": 1}]},
        "Expecting value/list but got object at item 1 of input list",
    ),
    "plain instances": (
        "mixed",
        {"instances": [1]},
        "instances is a plain list, but expecting list of objects as multiple input tensors",
    ),
    "plain inputs": ("mixed", {"inputs": [1]}, "inputs is a plain value/list, but expecting an object as multiple input tensors"),
    "missing column": ("mixed", {"inputs": {"count": [1], "name": ["a"]}}, "Missing named input: weights in 'inputs' object."),
    "missing key": ("mixed", {"instances": [{"count": 1, "name": "a"}]}, "keys must be equal to: count,name,weights"),
    "extra key": ("half_plus_two", {"instances": [{"x": 1, "z": 1}]}, "z"),
    "columns of different length": ("mixed", {"inputs": {"count": [1, 2, 3], "name": ["a", "b"], "weights": [[1, 1]]}}, "shape"),
    "shape": ("mixed", {"inputs": {"count": [1], "name": ["a"], "weights": 5.0}}, "dimension"),
    "gather": ("checked", {"instances": [0, 7]}, "indices[1] = 7 is not in [0, 3)"),
    "assertion": ("checked", {"instances": [-1]}, "index must not be negative"),
}


@pytest.mark.parametrize("case", _PREDICT)
def test_what_is_wrong_is_said_in_the_contracts_words(server: Server, case: str) -> None:
    model, body, fragment = _PREDICT[case]
    status, text = server.refuse(model, body)
    assert status == 400
    assert fragment in text


def test_the_next_request_on_the_same_connection_works(server: Server) -> None:
    for body in (b"", b"{", b'{"instances":["a"]}'):
        assert server.refuse("half_plus_two", body)[0] == 400
        assert server.predict("half_plus_two", {"instances": [1]}) == {"predictions": [2.5]}


def test_an_unknown_model_is_not_found(server: Server) -> None:
    for verb in ("predict", "classify", "regress"):
        body = {"instances": [1]} if verb == "predict" else {"examples": [{"x": 1.0}]}
        assert server.refuse("nope", body, verb) == (404, "Servable not found for request: Latest(nope)")


def test_a_body_that_is_not_json_is_refused_before_an_unknown_model(server: Server) -> None:
    status, text = server.refuse("nope", b"{")
    assert status == 400
    assert text.startswith("JSON Parse error")


def test_an_unknown_version_or_label_is_refused(server: Server) -> None:
    body = {"instances": [1]}
    assert server.refuse("two_versions/versions/77", body) == (404, "Servable not found for request: Specific(two_versions, 77)")
    status, text = server.refuse("two_versions/labels/nope", body)
    assert status == 400
    assert text.startswith("Unrecognized servable version label: nope")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/half_plus_two:explain"),
        ("POST", "/V1/Models/half_plus_two:PREDICT"),
        ("POST", "/v1/models/half_plus_two"),
        ("POST", "/v1/models/half_plus_two/versions/abc:predict"),
        ("POST", "/v1/models/half_plus_two/versions/-1:predict"),
        ("POST", "/v1/models/half_plus_two/versions/1/labels/a:predict"),
        ("POST", "/v1/models/:predict"),
        ("GET", "/v1/models/half_plus_two:predict"),
        ("GET", "/v1/models/half_plus_two/versions/abc"),
        ("GET", "/v1/models/half_plus_two/nope"),
        ("PUT", "/v1/models/half_plus_two:predict"),
        ("DELETE", "/v1/models/half_plus_two"),
        ("GET", "/v1/nope"),
    ],
)
def test_what_is_no_route_below_v1_is_malformed(server: Server, method: str, path: str) -> None:
    response = server.session.request(
        method, server.url + path, data=b'{"instances":[1]}' if method != "GET" else None, timeout=60
    )
    assert (response.status_code, error_of(response)) == (400, f"Malformed request: {method} {path}")


def test_a_version_beyond_64_bits_is_refused_with_a_body(server: Server) -> None:
    """TensorFlow Serving sends an empty body here, which is a defect."""
    for path in ("/versions/9223372036854775808", "/versions/" + "9" * 500):
        status, text = server.refuse("half_plus_two" + path, {"instances": [1]})
        assert status == 400
        assert text.startswith("Failed to convert version: 9")


def test_a_request_for_all_models_is_refused(server: Server) -> None:
    response = server.get("/v1/models")
    assert (response.status_code, error_of(response)) == (400, "Missing model name in request.")


def test_other_paths_are_not_found(server: Server) -> None:
    for path in ("/nope", "/v2/nope", "/v1", "/pingpong", "/models"):
        response = server.get(path)
        assert (response.status_code, error_of(response)) == (404, "Not Found")


def test_an_error_holds_no_trace(server: Server) -> None:
    for body in (b"{", b'{"instances":[-1]}', json.dumps({"instances": [7]}).encode()):
        assert "Traceback" not in server.refuse("checked", body)[1]
        assert "site-packages" not in server.refuse("checked", body)[1]
