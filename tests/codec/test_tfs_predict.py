"""The Predict codec against the vectors of TensorFlow Serving (contract §8.4), and against NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from penstock.codec.tfs_predict import PredictRequest, decode_predict, encode_predict
from penstock.errors import InvalidArgument, NotFound, PenstockError, Unimplemented
from penstock.tensors import DTYPES, Array, DType, Signature, TensorSpec, dtype_of_name

DEEP = 1_000_000


def signature(**dtypes: str) -> Signature:
    inputs = {name: TensorSpec(name, dtype_of_name(dtype), None) for name, dtype in sorted(dtypes.items())}
    return Signature("serving_default", inputs, {})


def decode(body: str | bytes, **dtypes: str) -> PredictRequest:
    found = signature(**dtypes)
    return decode_predict(body.encode() if isinstance(body, str) else body, lambda name: found)


def only(body: str | bytes, dtype: str) -> Array:
    (array,) = decode(body, x=dtype).inputs
    assert array.dtype == dtype_of_name(dtype).numpy
    return array


def message_of(body: str | bytes, **dtypes: str) -> str:
    with pytest.raises(InvalidArgument) as caught:
        decode(body, **dtypes)
    return caught.value.message


def test_a_single_unnamed_tensor_is_stacked_from_its_rows() -> None:
    array = only('{"instances": [[1,2],[3,4],[5,6]]}', "int32")
    assert array.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_a_deeply_nested_key_that_nobody_asked_for_is_ignored() -> None:
    body = b'{"instances":[1],"nested":' + b"[" * DEEP + b"1" + b"]" * DEEP + b"}"
    assert only(body, "int32").tolist() == [1]


def test_a_deeply_nested_signature_name_is_no_string() -> None:
    message = message_of(b'{"signature_name":' + b"[" * DEEP + b"1" + b"]" * DEEP + b"}", x="int32")
    assert message.endswith("not formatted correctly. 'signature_name' key must be a string value.")
    assert len(message) < 400


@pytest.mark.parametrize("depth", [100, 1000, DEEP])
@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_a_deeply_nested_value_is_an_error_with_a_clear_text(key: str, depth: int) -> None:
    message = message_of(f'{{"{key}":[' + "[" * depth + "1" + "]" * depth + "]}", x="int32")
    assert "has lists nested deeper than 32 levels" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("float", "[1,2.0,3,4,5.003,0.007,0.0]"), ("double", "[1.0,2,3,4,0.662,0,0.0]"), ("half", "[1,0.5]")],
)
def test_floats_take_integers_and_decimals(dtype: str, values: str) -> None:
    expected = np.array(json.loads(values), dtype_of_name(dtype).numpy)
    np.testing.assert_array_equal(only(f'{{"instances":{values}}}', dtype), expected)


def test_floats_lose_precision_silently() -> None:
    array = only('{"instances":[1435774380,1435774380.0]}', "float")
    assert array[0] == array[1] == np.float32(1435774380)


@pytest.mark.parametrize("suffix", ["", " trailing"])
def test_what_does_not_fit_a_float_is_infinite_or_zero(suffix: str) -> None:
    numbers = "[1.7976931348623157e308,-1.7976931348623157e308,2.2250738585072014e-308,-2.2250738585072014e-308]"
    array = only(f'{{"instances":{numbers}}}{suffix}', "float")
    assert array.tolist() == [np.inf, -np.inf, 0.0, 0.0]
    assert np.signbit(array).tolist() == [False, True, False, True]


def test_numbers_beyond_a_double_are_infinite() -> None:
    assert only('{"instances":[1e400,-1e400]}', "double").tolist() == [np.inf, -np.inf]
    assert only(b'{"instances":[' + b"9" * 1_000_000 + b"]}", "double").tolist() == [np.inf]


def test_the_signature_name_is_passed_on() -> None:
    asked: list[str] = []

    def find(name: str) -> Signature:
        asked.append(name)
        return signature(x="int32")

    for body in (b'{"signature_name":"predict_images","instances":[[1,2]]}', b'{"instances":[1]}', b'{"inputs":1} NaN'):
        decode_predict(body, find)
    assert asked == ["predict_images", "", ""]


def test_bytes_after_the_first_value_are_ignored() -> None:
    assert only('{"instances":[1,2]}} garbage \x00', "int32").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ('[{"b64":"aGVsbG8="},{"b64":"d29ybGQ="}]', [b"hello", b"world"]),
        ('[[{"b64":"aGVsbG8="}],[{"b64":"d29ybGQ="}]]', [[b"hello"], [b"world"]]),
        ('[{"x":[[{"b64":"aGVsbG8="}],[{"b64":"d29ybGQ="}]]}]', [[[b"hello"], [b"world"]]]),
        ('["plain",{"b64":"aGVsbG8"}]', [b"plain", b"hello"]),
        ('["é\\u00e9\\ud83d\\ude00"]', ["éé😀".encode()]),
    ],
)
def test_strings_are_text_or_base64(instances: str, expected: list[Any]) -> None:
    array = only(f'{{"instances":{instances}}}', "string")
    assert array.tolist() == expected


def test_strings_keep_bytes_that_are_not_utf8() -> None:
    assert only(b'{"instances":["\xff\x80a"]}', "string").tolist() == [b"\xff\x80a"]


def test_rows_with_several_tensors_are_stacked_by_name() -> None:
    row_1 = '{"i":[[1,2],[3,4],[5,6]],"s":["foo","bar"],"f":[1.0,2.0],"d":[NaN]}'
    row_2 = '{"i":[[7,8],[9,0],[1,2]],"s":["foz","baz"],"d":[Infinity],"f":[3.0,4]}'
    request = decode(f'{{"instances":[{row_1},{row_2}]}}', i="int32", s="string", f="float", d="double")
    assert request.is_row_format
    assert list(request.signature.inputs) == ["d", "f", "i", "s"]
    assert [array.shape for array in request.inputs] == [(2, 1), (2, 2), (2, 3, 2), (2, 2)]
    assert np.isnan(request.inputs[0][0, 0])
    assert request.inputs[3].tolist() == [[b"foo", b"bar"], [b"foz", b"baz"]]


@pytest.mark.parametrize("inputs", ['{"x":[[[1,2],[3,4],[5,6]]]}', "[[[1,2],[3,4],[5,6]]]"])
def test_a_single_column_needs_no_name(inputs: str) -> None:
    request = decode(f'{{"inputs":{inputs}}}', x="int32")
    assert request.inputs[0].shape == (1, 3, 2)
    assert not request.is_row_format


def test_columns_may_be_scalars_and_extra_keys_are_ignored() -> None:
    request = decode('{"inputs":{"s":{"b64":"aGVsbG8="},"x":[1.5],"y":2,"other":[]}}', s="string", x="float", y="int8")
    assert [array.shape for array in request.inputs] == [(), (1,), ()]
    assert request.inputs[0].item() == b"hello"


@pytest.mark.parametrize(
    ("body", "shape"),
    [('{"instances":[[]]}', (1, 0)), ('{"instances":[[[]],[[]]]}', (2, 1, 0)), ('{"inputs":[]}', (0,))],
)
def test_empty_lists_make_empty_tensors(body: str, shape: tuple[int, ...]) -> None:
    assert only(body, "float").shape == shape


@pytest.mark.parametrize("value", ["true", "[true,false]"])
def test_booleans_are_no_numbers_and_numbers_no_booleans(value: str) -> None:
    assert only(f'{{"inputs":{value}}}', "bool").tolist() == json.loads(value)
    assert "Type: True is not of expected type: float" in message_of(f'{{"inputs":{value}}}', x="float")
    assert "JSON Value: 1 Type: Number is not of expected type: bool" in message_of('{"inputs":1}', x="bool")


ELEMENT_1 = "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
SINGLE_FAULTS = [
    ("", "JSON Parse error: The document is empty"),
    ("  ", "JSON Parse error: The document is empty. at offset: 2"),
    ('{"instances":[1,2', "JSON Parse error: Missing a comma or ] after an array element. at offset: 17"),
    ('{"instances":[1,]}', "JSON Parse error: Invalid value. at offset: 16"),
    ("5", "JSON Value: 5 Is not object"),
    ('{"signature_name":5,"instances":[1]}', "'signature_name' key must be a string value."),
    ('{"instances":[1],"inputs":[1]}', "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to"),
    ('{"x":[1]}', "Missing 'inputs' or 'instances' key"),
    ('{"instances":5}', "Expecting 'instances' to be an list/array"),
    ('{"instances":[]}', "No values in 'instances' array"),
    ('{"instances":[[1,2],[3,4,5]]}', ELEMENT_1 + "Expecting tensor size: 2 but got: 3"),
    ('{"instances":[[1,2],[[3,4]]]}', ELEMENT_1 + "Expecting shape [2] but got: [1,2]"),
    ('{"instances":[1,[1]]}', ELEMENT_1 + "Expecting shape [] but got: [1]"),
    ('{"instances":[[1],[]]}', ELEMENT_1 + "Expecting tensor size: 1 but got: 0"),
    ('{"instances":["a"]}', 'JSON Value: "a" Type: String is not of expected type: int32'),
    ('{"instances":[null]}', "JSON Value: null Type: Null is not of expected type: int32"),
    ('{"instances":[1.0]}', "JSON Value: 1.0 Type: Number is not of expected type: int32"),
    ('{"instances":[3000000000]}', "JSON Value: 3000000000 Type: Number is not of expected type: int32"),
    ('{"instances":[1,{"x":1}]}', "Expecting value/list but got object at item 1 of input list"),
    ('{"instances":[{"x":1},[1]]}', "Expecting object but got list at item 1 of input list"),
    (
        '{"instances":[{"x":1,"z":1}]}',
        "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON object: does not have named input: z",
    ),
    ('{"inputs":[[1],[2,3]]}', "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
    ('{"inputs":[1,[2]]}', "Encountered list at unexpected level: 1 expected < 1"),
    ('{"inputs":[[1],2]}', "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    ('{"inputs":{"y":1}}', "Missing named input: x in 'inputs' object."),
]


@pytest.mark.parametrize(("body", "expected"), SINGLE_FAULTS)
def test_faults_of_a_single_input_have_the_texts_of_the_contract(body: str, expected: str) -> None:
    assert expected in message_of(body, x="int32")


MULTI_FAULTS = [
    ('[{"a":[1],"b":[1]},{"a":[1],"b":[[2]]}]', "1 key: b of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape"),
    ('[{"a":[1],"b":[1]},{"a":[1],"b":[1,2]}]', "Expecting tensor size: 1 but got: 2"),
    ('[{"a":[1],"b":[1]},[1]]', "Expecting object but got list at item 1 of input list"),
    ("[[1],[2]]", "instances is a plain list, but expecting list of objects as multiple input tensors required"),
    ('[{"a":1}]', 'JSON object: {\n    "a": 1\n} keys must be equal to: a,b'),
    ('[{"a":1,"b":2,"c":3}]', "does not have named input: c"),
]


@pytest.mark.parametrize(("instances", "expected"), MULTI_FAULTS)
def test_faults_of_rows_with_several_inputs(instances: str, expected: str) -> None:
    assert expected in message_of(f'{{"instances":{instances}}}', a="int32", b="int32")


def test_faults_of_columns_with_several_inputs() -> None:
    assert "inputs is a plain value/list" in message_of('{"inputs":[1]}', a="int32", b="int32")
    assert "Missing named input: b in" in message_of('{"inputs":{"a":1}}', a="int32", b="int32")


@pytest.mark.parametrize("value", ['{"b64":5}', '{"b64":"a","c":1}', '{"c":"a"}'])
def test_other_objects_are_no_strings(value: str) -> None:
    assert "not formatted correctly for base64 data" in message_of(f'{{"inputs":[{value}]}}', x="string")


def test_wrong_base64_is_an_error() -> None:
    assert message_of('{"inputs":{"b64":"a*=="}}', x="string") == "Unable to base64 decode"


def test_complex_inputs_are_unimplemented() -> None:
    with pytest.raises(Unimplemented, match="Conversion of JSON Value: 1 to type: complex64"):
        decode('{"inputs":1}', x="complex64")
    with pytest.raises(Unimplemented, match="Conversion of JSON Value: 1 to type: complex64"):
        decode('{"instances":[1]}', x="complex64")


@pytest.mark.parametrize(("body", "error"), [("[1,", InvalidArgument), ('{"signature_name":1}', InvalidArgument)])
def test_a_body_that_cannot_be_read_beats_an_unknown_model(body: str, error: type[PenstockError]) -> None:
    with pytest.raises(error):
        decode_predict(body.encode(), not_found)


@pytest.mark.parametrize("body", ["{}", '{"instances":[[1],2]}', '{"instances":1} x'])
def test_an_unknown_model_beats_wrong_values(body: str) -> None:
    with pytest.raises(NotFound):
        decode_predict(body.encode(), not_found)


def test_an_error_that_is_still_held_does_not_keep_the_parser() -> None:
    held: list[PenstockError] = []
    for _ in range(3):
        with pytest.raises(NotFound) as caught:
            decode_predict(b'{"instances":[1]}', not_found)
        held.append(caught.value)
    assert only('{"instances":[1]}', "int32").tolist() == [1]


def test_a_signature_without_inputs_is_an_error() -> None:
    assert message_of('{"instances":[1]}') == "Failed to get input map for signature: DEFAULT"


def test_of_two_members_with_one_name_the_first_counts() -> None:
    assert only('{"inputs":[1],"inputs":[2]}', "int32").tolist() == [1]
    assert only('{"inputs":{"x":[1],"x":[2]}}', "int32").tolist() == [1]


@pytest.mark.parametrize(
    "body",
    [
        '{"instances":[[1,2],[3]],"signature_name":",4]]"}',
        '{"instances":[[1,2],[3],[4,5,6]]}',
        '{"instances":[[[1],[2]],[[3,4]]]}',
        '{"instances":[[1],[],[2,3]]}',
        '{"inputs":{"x":[[1],[2,3],[]]}}',
    ],
)
def test_ragged_lists_are_refused_however_the_brackets_add_up(body: str) -> None:
    message_of(body, x="float")


def test_a_signature_name_may_hold_brackets() -> None:
    assert only('{"signature_name":"],[","instances":[[1],[2]]}', "float").tolist() == [[1], [2]]


def test_large_rows_of_objects_are_stacked_whatever_the_order_of_their_keys() -> None:
    first, second = list(range(40)), list(range(40, 80))
    body = json.dumps({"instances": [{"a": first, "b": 1}, {"b": 2, "a": second}]})
    request = decode(body, a="float", b="int64")
    assert [array.tolist() for array in request.inputs] == [[first, second], [1, 2]]
    ragged = body.replace("40, ", "", 1)
    assert "Expecting tensor size: 40 but got: 39" in message_of(ragged, a="float", b="int64")
    # the count of all numbers is right here, so only the skeleton can tell
    shifted = ragged.replace("0, 1,", "40, 0, 1,", 1)
    assert "Expecting tensor size: 41 but got: 39" in message_of(shifted, a="float", b="int64")


NUMERIC = [dtype for dtype in DTYPES if not dtype.is_string and "complex" not in dtype.name]
SHAPES = npst.array_shapes(min_dims=1, max_dims=4, max_side=5)


def arrays_of(dtype: DType) -> st.SearchStrategy[Array]:
    """Arrays of values that `dtype` holds exactly."""
    if dtype.numpy.kind in "biuf" and dtype.numpy.isbuiltin == 1:
        elements = {"allow_nan": False, "allow_infinity": False} if dtype.numpy.kind == "f" else None
        return npst.arrays(dtype.numpy, SHAPES, elements=elements)
    low = -8 if dtype.name == "int4" else 0
    return npst.arrays(np.int8, SHAPES, elements=st.integers(low, 7)).map(lambda array: array.astype(dtype.numpy))


@pytest.mark.parametrize("dtype", NUMERIC, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("suffix", [b"", b" ."], ids=["strict", "lenient"])
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_array_comes_back_as_numpy_has_it(dtype: DType, suffix: bytes, data: st.DataObject) -> None:
    array = data.draw(arrays_of(dtype))
    text = json.dumps(array.tolist()).encode()
    for body in (b'{"inputs":%b}', b'{"instances":%b}', b'{"inputs":{"x":%b}}', b'{"z":"a","instances":%b}'):
        decoded = only(body % text + suffix, dtype.name)
        assert decoded.dtype == array.dtype
        np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize("dtype", [dtype for dtype in NUMERIC if "int" in dtype.name], ids=lambda dtype: dtype.name)
def test_integers_out_of_range_are_refused_by_value(dtype: DType) -> None:
    bits = int(dtype.name.split("int")[1])
    low, high = (0, 2**bits - 1) if dtype.name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert only(f'{{"inputs":[{low},{high}]}}', dtype.name).tolist() == [low, high]
    for value in (low - 1, high + 1):
        message = message_of(f'{{"inputs":[0,{value}]}}', x=dtype.name)
        assert message.endswith(f"Type: Number is not of expected type: {dtype.name}")
        assert bits == 64 or f"JSON Value: {value} " in message


def not_found(name: str) -> Signature:
    raise NotFound(name)


def outcome(body: bytes, find: Callable[[str], Signature]) -> tuple[Any, ...]:
    try:
        request = decode_predict(body, find)
    except PenstockError as error:
        return type(error), error.message
    return request.is_row_format, [(array.shape, repr(array.tolist()), str(array.dtype)) for array in request.inputs]


LEAVES = st.none() | st.booleans() | st.integers(-3, 300) | st.just(1.5) | st.sampled_from(["a", "],[", "YQ=="])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y", "b64"]), inner, max_size=2),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name", "z"]), VALUES, min_size=1, max_size=3)


@settings(max_examples=200, deadline=None)
@given(BODIES, st.sampled_from([{"x": "float"}, {"x": "uint8"}, {"x": "string"}, {"x": "int64", "y": "float"}]))
def test_the_quick_and_the_patient_way_agree(body: dict[str, Any], dtypes: dict[str, str]) -> None:
    """Bytes after the value are ignored, and send a body the patient way."""
    found = signature(**dtypes)
    text = json.dumps(body).encode()
    assert outcome(text, lambda name: found) == outcome(text + b" x", lambda name: found)


@settings(max_examples=200, deadline=None)
@given(BODIES, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3)), max_size=3))
def test_no_body_raises_anything_but_our_errors(body: dict[str, Any], edits: list[tuple[int, int, bytes]]) -> None:
    text = json.dumps(body).encode()
    for start, length, replacement in edits:
        text = text[:start] + replacement + text[start + length :]
    found = signature(x="float")
    outcome(text, lambda name: found)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_random_bytes_raise_nothing_but_our_errors(body: bytes) -> None:
    found = signature(x="float")
    outcome(body, lambda name: found)


FIVE = {
    "bool_tensor": np.array([[True], [False]]),
    "double_tensor": np.array([[1.5], [2.5]]),
    "float_tensor": np.array([[0.2], [3.0]], np.float32),
    "int_tensor": np.array([[1, 2], [3, 4]], np.int32),
    "str_bytes": np.array([b"\xff", b"b"], np.object_),
}


def test_rows_of_several_outputs_are_objects() -> None:
    rows = json.loads(encode_predict(FIVE, True))["predictions"]
    assert [list(row.values()) for row in rows] == [
        [[True], [1.5], [0.2], [1, 2], {"b64": "/w=="}],
        [[False], [2.5], [3.0], [3, 4], {"b64": "Yg=="}],
    ]
    assert all(list(row) == list(FIVE) for row in rows)


def test_columns_of_several_outputs_are_an_object_of_tensors() -> None:
    outputs = json.loads(encode_predict(FIVE, False))["outputs"]
    assert list(outputs) == list(FIVE)
    assert outputs["int_tensor"] == [[1, 2], [3, 4]]
    assert outputs["str_bytes"] == [{"b64": "/w=="}, {"b64": "Yg=="}]


def test_a_single_output_goes_without_its_name() -> None:
    array = np.arange(12, dtype=np.int32).reshape(2, 3, 2)
    assert json.loads(encode_predict({"y": array}, True)) == {"predictions": array.tolist()}
    assert json.loads(encode_predict({"y": array}, False)) == {"outputs": array.tolist()}
    assert encode_predict({"y": np.array(5)}, False) == b'{"outputs":5}'


def test_rows_keep_nan_infinity_and_the_text_null_apart() -> None:
    outputs = {"null": np.array([np.nan, 3.0, -np.inf]), "text": np.array([b"null", b"NaN", b""], np.object_)}
    assert encode_predict(outputs, True) == (
        b'{"predictions":[{"null":NaN,"text":"null"},{"null":3.0,"text":"NaN"},{"null":-Infinity,"text":""}]}'
    )


def test_rows_and_columns_say_the_same_in_every_type() -> None:
    outputs = {dtype.name: np.ones((2, 3)).astype(dtype.numpy) for dtype in NUMERIC}
    rows = json.loads(encode_predict(outputs, True))["predictions"]
    columns = json.loads(encode_predict(outputs, False))["outputs"]
    assert {name: [row[name] for row in rows] for name in outputs} == columns


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"y": np.array([1j], np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
        ({"y": np.array(1)}, "Tensor name: y has no shape information "),
        (
            {"a": np.zeros((2, 1)), "b": np.zeros((1, 1))},
            "Tensor name: b has inconsistent batch size: 1 expecting: 2",
        ),
        ({"a": np.zeros((0, 1)), "b": np.zeros((1, 1))}, "Tensor name: b has inconsistent batch size: 1 expecting: 0"),
    ],
)
def test_outputs_that_rows_cannot_be_made_of(outputs: dict[str, Array], expected: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        encode_predict(outputs, True)
    assert caught.value.message == expected


def test_an_empty_batch_has_no_predictions() -> None:
    assert json.loads(encode_predict({"y": np.zeros((0, 3))}, True)) == {"predictions": []}
    assert json.loads(encode_predict({"a": np.zeros((0, 3)), "b": np.zeros(0, np.int8)}, True)) == {"predictions": []}


@pytest.mark.parametrize(
    "instances",
    ["[[1,[2]]]", "[[[1],2]]", "[1,[2]]", "[[1],2]", "[[1,2],[3]]", "[[1,[2,3]]]", "[[],[1]]", "[[[1,2],[3]]]", "[[1],[]]"],
)
def test_an_irregular_row_is_refused_however_its_elements_count(instances: str) -> None:
    """Also where the number of elements, or of lists, is the one of a regular tensor."""
    spec = TensorSpec("x", dtype_of_name("float"), None)
    lone = Signature("serving_default", {"x": spec}, {})
    with pytest.raises(PenstockError):
        decode_predict(f'{{"instances":{instances}}}'.encode(), lambda _: lone)
