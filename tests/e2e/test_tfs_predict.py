"""TensorFlow Serving's predict: what goes in as JSON comes out as the model's answer (contract §1.3, §1.4)."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.model_exports import DTYPES
from tests.servers import Server

pytestmark = pytest.mark.xdist_group("shared")

_NUMBERS: dict[str, tuple[Any, list[Any]]] = {
    "float": (np.float32, [0.1, -2.5, 3e38, 7]),
    "double": (np.float64, [0.1, -2.5, 1.7976931348623157e308, 7]),
    "half": (np.float16, [0.1, 65504.0]),
    "bfloat16": (ml_dtypes.bfloat16, [0.1, -3.0]),
    "float8_e5m2": (ml_dtypes.float8_e5m2, [0.5, -3.0]),
    "float8_e4m3fn": (ml_dtypes.float8_e4m3fn, [0.5, -3.5]),
    "int8": (np.int8, [-128, 127]),
    "int16": (np.int16, [-32768, 32767]),
    "int32": (np.int32, [-(2**31), 2**31 - 1]),
    "int64": (np.int64, [-(2**63), 2**63 - 1, 2**53 + 1]),
    "uint8": (np.uint8, [0, 255]),
    "uint16": (np.uint16, [0, 65535]),
    "uint32": (np.uint32, [0, 2**32 - 1]),
    "uint64": (np.uint64, [0, 2**64 - 1]),
    "int4": (ml_dtypes.int4, [-8, 7]),
    "uint4": (ml_dtypes.uint4, [0, 15]),
}


def test_rows_come_back_as_predictions(server: Server) -> None:
    assert server.predict("half_plus_two", {"instances": [1.0, 2, 5.0]}) == {"predictions": [2.5, 3.0, 4.5]}


def test_rows_may_name_the_only_input(server: Server) -> None:
    assert server.predict("half_plus_two", {"instances": [{"x": 1}, {"x": 2}]}) == {"predictions": [2.5, 3.0]}


@pytest.mark.parametrize("inputs", [[1.0, 2.0], {"x": [1.0, 2.0]}], ids=["bare", "named"])
def test_columns_come_back_as_outputs(server: Server, inputs: Any) -> None:
    assert server.predict("half_plus_two", {"inputs": inputs}) == {"outputs": [2.5, 3.0]}


def test_several_inputs_and_outputs_in_rows(server: Server) -> None:
    rows = [{"count": 3, "name": "a", "weights": [1.0, 0.5]}, {"weights": [0, 1], "name": {"b64": "Yg=="}, "count": -1}]
    assert server.predict("mixed", {"instances": rows}) == {
        "predictions": [{"label": "a-3", "total": 4.5}, {"label": "b--1", "total": -1.0}]
    }


def test_several_inputs_and_outputs_in_columns(server: Server) -> None:
    columns = {"count": [3, 2], "name": ["a", "b"], "weights": [[1, 0.5], [1, 1]], "unknown": "ignored"}
    assert server.predict("mixed", {"inputs": columns}) == {"outputs": {"label": ["a-3", "b-2"], "total": [4.5, 4.0]}}


@pytest.mark.parametrize("dtype", _NUMBERS)
def test_numbers_keep_their_value(server: Server, dtype: str) -> None:
    """Also in two dimensions, and none at all."""
    kind, values = _NUMBERS[dtype]
    shapes: list[Any] = [values, [values, values], values[0], [], [[[]]]]
    for value in shapes:
        answer = server.predict("dtypes", {"signature_name": dtype, "inputs": value})["outputs"]
        expected = np.array(value, kind) if np.size(value) else np.array(value)
        assert np.shape(answer) == expected.shape
        assert np.array_equal(np.array(answer, expected.dtype), expected)


def test_bools_and_strings_keep_their_value(server: Server) -> None:
    assert server.predict("dtypes", {"signature_name": "bool", "inputs": [[True], [False]]}) == {"outputs": [[True], [False]]}
    texts = ["", 'grün "quoted"\n', "😀", "a" * 1000]
    assert server.predict("dtypes", {"signature_name": "string", "inputs": texts}) == {"outputs": texts}
    assert server.predict("dtypes", {"signature_name": "string", "inputs": "one"}) == {"outputs": "one"}


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_inputs_have_no_json(server: Server, dtype: str) -> None:
    status, text = server.refuse("dtypes", {"signature_name": dtype, "inputs": [1]})
    assert status == 501
    assert text.startswith("Conversion of JSON Value: 1 to type: " + dtype)


def test_non_finite_numbers_are_bare_tokens_in_both_directions(server: Server) -> None:
    body = b'{"instances":[NaN, Infinity, -Infinity, 1]}'
    text = server.post("/v1/models/half_plus_two:predict", data=body).text
    assert "null" not in text
    first, *others = json.loads(text)["predictions"]
    assert math.isnan(first)
    assert others == [math.inf, -math.inf, 2.5]


@pytest.mark.parametrize(
    "dtype", ["half", "bfloat16", "float", "double", "float8_e5m2", "float8_e4m3fn", "float8_e4m3b11fnuz", "float8_e4m3fnuz"]
)
@pytest.mark.parametrize("count", [1, 20_000])
def test_what_is_not_finite_is_so_in_every_type(server: Server, dtype: str, count: int) -> None:
    if dtype not in DTYPES:
        pytest.skip(f"TensorFlow has no {dtype}")
    for layout in ("inputs", "instances"):
        body = f'{{"signature_name":"{dtype}","{layout}":[{",".join(["1", "NaN", "-Infinity"] * count)}]}}'
        text = server.post("/v1/models/dtypes:predict", data=body.encode()).text
        (values,) = json.loads(text).values()
        assert "null" not in text
        assert values[0] == 1.0
        assert math.isnan(values[1])
        assert not math.isfinite(values[2])


def test_numbers_too_large_for_float_become_infinite(server: Server) -> None:
    assert server.predict("half_plus_two", {"instances": [1e300, -1e300]}) == {"predictions": [math.inf, -math.inf]}


def test_bytes_go_in_and_out_as_base64_where_the_output_is_named_so(server: Server) -> None:
    data = bytes(range(256))
    item = {"b64": base64.b64encode(data).decode()}
    body = {"signature_name": "binary", "instances": [item, "text"]}
    assert server.predict("strings", body) == {"predictions": [item, {"b64": "dGV4dA=="}]}
    assert server.predict("strings", {"instances": ["text", {"b64": "YQ=="}]}) == {"predictions": ["TEXT", "A"]}


def test_scalars_go_in_and_out(server: Server) -> None:
    assert server.predict("scalar", {"inputs": 1.5}) == {"outputs": 3.0}
    assert server.predict("scalar", {"inputs": {"x": 1.5}}) == {"outputs": 3.0}


def test_the_graph_decides_on_shapes_and_not_the_signature(server: Server) -> None:
    assert server.predict("half_plus_two", {"instances": [[[1.0]], [[2.0]]]}) == {"predictions": [[[2.5]], [[3.0]]]}
    assert server.predict("scalar", {"instances": [1.0, 2.0]}) == {"predictions": [2.0, 4.0]}


def test_outputs_without_rows_are_for_columns_only(server: Server) -> None:
    assert server.predict("no_batch", {"inputs": [1.0, 2.0]}) == {"outputs": {"total": 3.0, "y": [2.0, 3.0]}}
    status, text = server.refuse("no_batch", {"instances": [1.0, 2.0]})
    assert status == 400
    assert text.startswith("Tensor name: total has no shape information")


def test_zero_rows_are_an_empty_answer(server: Server) -> None:
    assert server.predict("half_plus_two", {"inputs": []}) == {"outputs": []}


def test_a_lookup_table_finds_its_asset(server: Server) -> None:
    assert server.predict("vocabulary", {"instances": ["dog", "fish", "cat"]}) == {"predictions": [1, -1, 0]}


@pytest.mark.parametrize("name", ["", "serving_default"])
def test_the_default_signature_can_be_named_or_not(server: Server, name: str) -> None:
    assert server.predict("half_plus_two", {"signature_name": name, "instances": [1]}) == {"predictions": [2.5]}


def test_bytes_after_the_document_and_unknown_keys_are_ignored(server: Server) -> None:
    response = server.post("/v1/models/half_plus_two:predict", data=b'{"instances":[1], "more": {"a": [1]}} trailing')
    assert response.json() == {"predictions": [2.5]}


def test_the_content_type_of_a_request_does_not_matter(server: Server) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = server.post("/v1/models/half_plus_two:predict", data=b'{"instances":[1]}', headers={"Content-Type": kind})
        assert response.json() == {"predictions": [2.5]}
        assert response.headers["content-type"] == "application/json"


def test_large_tensors_come_back_whole(server: Server) -> None:
    """3 MB of JSON, which travel to the model's process and back in shared memory."""
    picture = np.random.default_rng(1).random((2, 224, 224, 3), np.float32)
    answer = server.predict("image", {"instances": picture.tolist()})
    assert np.allclose(answer["predictions"], 1.0 - picture, atol=1e-6)


def test_large_strings_come_back_whole(server: Server) -> None:
    text = "0123456789" * 300_000
    assert server.predict("dtypes", {"signature_name": "string", "inputs": [text, "b"]}) == {"outputs": [text, "b"]}


def test_versions_and_labels_choose(server: Server) -> None:
    paths = {
        "": 3.5,
        "/versions/1": 2.5,
        "/versions/2": 3.5,
        "/labels/stable": 2.5,
        "/labels/canary": 3.5,
        "/versions/0001": 2.5,
        f"/versions/{1:030}": 2.5,
    }
    for path, expected in paths.items():
        assert server.predict("two_versions" + path, {"instances": [1]}) == {"predictions": [expected]}


def test_a_stateful_model_keeps_its_state_between_calls(server: Server) -> None:
    first = server.predict("counter", {"inputs": 0})["outputs"]
    assert server.predict("counter", {"inputs": 5})["outputs"] == first + 5
    assert server.predict("counter", {"inputs": 1})["outputs"] == first + 6
