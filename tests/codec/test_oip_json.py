"""Inference over the Open Inference Protocol's JSON and binary tensors, with requests that Triton's client has made."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from penstock.codec import oip_json
from penstock.codec.oip_json import decode_infer, encode_infer, header_length
from penstock.codec.oip_json_buffer import decode_document
from penstock.codec.oip_request import InferHead, OutputHead, Place, Value
from penstock.codec.oip_tensor import DATATYPES
from penstock.errors import InvalidArgument, PenstockError
from penstock.tensors import Array, Signature, TensorSpec, dtype_of_name


def signature(**dtypes: str) -> Signature:
    inputs = {name: TensorSpec(name, dtype_of_name(dtype), None) for name, dtype in dtypes.items()}
    return Signature("serving_default", inputs, {"y": TensorSpec("y", dtype_of_name("float"), (None, 2))})


def no_memory(place: Place) -> bytes:
    raise AssertionError("nothing is in shared memory")


def no_writing(place: Place, data: bytes) -> None:
    raise AssertionError("nothing goes to shared memory")


def client_request(*inputs: InferInput, **options: Any) -> tuple[bytes, int | None]:
    body, size = InferenceServerClient.generate_request_body(list(inputs), **options)
    return body, size


def tensor(name: str, array: Array, datatype: str, *, is_binary: bool) -> InferInput:
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=is_binary)
    return made


def only(body: bytes, size: int | None, dtype: str = "float") -> Array:
    head, values = decode_infer(body, size)
    (array,) = head.bind(signature(x=dtype), values, no_memory)
    return array


def request(**changes: Any) -> bytes:
    """A small request with some of its input's members changed; None takes one out."""
    item = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0], **changes}
    return json.dumps({"inputs": [{key: value for key, value in item.items() if value is not None}]}).encode()


def message_of(body: bytes, size: int | None = None) -> str:
    with pytest.raises(InvalidArgument) as caught:
        only(body, size)
    return caught.value.message


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("name", sorted(DATATYPES))
def test_requests_of_tritons_client_are_read(name: str, is_binary: bool) -> None:
    dtype = DATATYPES[name]
    array = np.array([[b"a", b"\0bc"]], np.object_) if dtype.is_string else np.array([[1, 0, 3]]).astype(dtype.numpy)
    if name == "BF16" and not is_binary:
        pytest.skip("the client refuses to")
    body, size = client_request(tensor("x", array, name, is_binary=is_binary))
    read = only(body, size, dtype.name)
    assert read.dtype == array.dtype
    assert read.tolist() == array.tolist()


def test_binary_tensors_are_views_of_the_body() -> None:
    body, size = client_request(tensor("x", np.ones((4, 4), np.float32), "FP32", is_binary=True))
    for _ in range(2):
        assert np.shares_memory(only(body, size), np.frombuffer(body, np.uint8))


def test_json_and_binary_inputs_may_be_mixed() -> None:
    parts = [
        tensor("a", np.array([1], np.int64), "INT64", is_binary=True),
        tensor("b", np.array([b"t"], np.object_), "BYTES", is_binary=False),
        tensor("c", np.array([True]), "BOOL", is_binary=True),
    ]
    body, size = client_request(*parts)
    head, values = decode_infer(body, size)
    arrays = head.bind(signature(c="bool", b="string", a="int64"), values, no_memory)
    assert [array.tolist() for array in arrays] == [[True], [b"t"], [1]]


def test_a_head_that_comes_again_is_found_again_for_other_signatures_too() -> None:
    body, size = client_request(tensor("x", np.array([5], np.int32), "INT32", is_binary=True))
    first, _ = decode_infer(body, size)
    other, values = decode_infer(body[:-4] + b"\7\0\0\0", size)
    assert other is first
    assert other.bind(signature(x="int32"), values, no_memory)[0].tolist() == [7]
    with pytest.raises(InvalidArgument, match="Input 'x': expected FP32, got INT32"):
        other.bind(signature(x="float"), values, no_memory)
    assert other.bind(signature(x="int32"), values, no_memory)[0].tolist() == [7]


def test_what_is_remembered_is_bounded() -> None:
    for number in range(3000):
        text = json.dumps(
            {"inputs": [{"name": f"x{number}", "shape": [0], "datatype": "FP32", "parameters": {"binary_data_size": 0}}]}
        )
        decode_infer(text.encode(), len(text))
    assert len(oip_json._heads) <= 1024


def test_ids_parameters_and_outputs_are_read() -> None:
    outputs = [InferRequestedOutput("y", binary_data=False, class_count=3), InferRequestedOutput("z")]
    body, size = client_request(
        tensor("x", np.zeros(1, np.float32), "FP32", is_binary=True),
        outputs=outputs,
        request_id="id-7",
        parameters={"signature_name": "other"},
    )
    head, _ = decode_infer(body, size)
    assert head.id == "id-7"
    assert head.signature_name == "other"
    assert not head.is_binary
    assert head.outputs == (OutputHead("y", False, 3), OutputHead("z", True))


def test_without_outputs_the_client_wants_all_as_bytes() -> None:
    body, size = client_request(tensor("x", np.zeros(1, np.float32), "FP32", is_binary=True))
    head, _ = decode_infer(body, size)
    assert head.is_binary
    assert head.outputs is None


def test_inputs_in_shared_memory_are_read_from_there() -> None:
    made = InferInput("x", [2], "FP32")
    made.set_shared_memory("region", 8, 16)
    body, size = client_request(made)
    head, values = decode_infer(body, size)
    asked: list[Place] = []

    def read(place: Place) -> bytes:
        asked.append(place)
        return np.array([1, 2], np.float32).tobytes()

    assert head.bind(signature(x="float"), values, read)[0].tolist() == [1, 2]
    assert asked == [Place("region", 16, 8)]


@pytest.mark.parametrize("data", ["[1,2,3,4,5,6]", "[[1,2],[3,4],[5,6]]", "[[1.0,2],[3,4.0],[5,6e0]]"])
def test_data_may_be_flat_or_nested(data: str) -> None:
    body = f'{{"inputs":[{{"name":"x","shape":[3,2],"datatype":"FP32","data":{data}}}]}}'.encode()
    assert only(body, None).tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("make", [lambda array: array.tolist(), lambda array: array.ravel().tolist()])
def test_large_json_bodies_give_the_same_without_python_numbers(make: Callable[[Array], Any]) -> None:
    array = np.random.default_rng(1).random((40, 7, 5)).astype(np.float32)
    item = {"name": "x", "shape": list(array.shape), "datatype": "FP32", "data": make(array)}
    other = {"name": "n", "shape": [2], "data": [3, 4], "datatype": "UINT8", "parameters": {"content_type": "np"}}
    root = {"id": "1", "parameters": {"a": 1, "b": "c"}, "inputs": [other, item], "outputs": [{"name": "y", "parameters": {}}]}
    body = json.dumps(root).encode()
    found = decode_document(body)
    assert found is not None
    assert {index: value.shape for index, value in found[1].items()} in ({0: (2,), 1: (40, 7, 5)}, {0: (2,), 1: (1400,)})
    head, values = decode_infer(body, None)
    arrays = head.bind(signature(x="float", n="uint8"), values, no_memory)
    np.testing.assert_array_equal(arrays[0], array)
    assert arrays[1].tolist() == [3, 4]
    assert head.id == "1"
    assert head.outputs == (OutputHead("y"),)


@pytest.mark.parametrize(
    "data",
    [
        [[1.0, 2.0], [3.0]] + [[0.0]] * 1500,
        [1.0, [2.0]] + [0.0] * 1500,
        [1.0, []] + [0.0] * 1500,
        ["1"] * 1500,
        [True] * 1500,
        [None] * 1500,
    ],
    ids=lambda data: str(data)[:20],
)
def test_large_data_that_is_irregular_is_refused_with_its_place(data: list[Any]) -> None:
    count = len(data)
    assert decode_document(request(data=data, shape=[count])) is None
    assert message_of(request(data=data, shape=[count])).startswith("Input 'x': ")


def test_brackets_in_texts_do_not_confuse_the_quick_way() -> None:
    body = request(data=[0.5] * 2000, shape=[2000], parameters={"note": "[[,,]]"})
    assert decode_document(body) is None
    assert only(body, None).shape == (2000,)


def test_nan_and_infinities_are_read_although_json_lacks_them() -> None:
    assert repr(only(request(data=[float("nan"), float("-inf")]), None).tolist()) == "[nan, -inf]"


def test_bools_strings_and_half_floats_are_read_from_json() -> None:
    assert only(request(datatype="BOOL", data=[True, False]), None, "bool").tolist() == [True, False]
    assert only(request(datatype="BYTES", data=["é", ""]), None, "string").tolist() == ["é".encode(), b""]
    assert only(request(datatype="BF16", data=[1, 2.5]), None, "bfloat16").tolist() == [1.0, 2.5]


def test_a_scalar_has_one_element_and_no_sizes() -> None:
    assert only(request(shape=[], data=[4]), None).shape == ()
    assert only(request(shape=[0, 3], data=[]), None).shape == (0, 3)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The document is empty"),
        (b"[]", "The body is no JSON object"),
        (b"{}", "inputs is missing"),
        (b'{"inputs":{}}', "inputs is no list"),
        (b'{"inputs":[5]}', "inputs[0] is no JSON object"),
        (b'{"inputs":[{}]}', "inputs[0] has no name"),
        (b'{"inputs":[],"id":5}', "id is no text"),
        (b'{"inputs":[],"parameters":[]}', "parameters is no JSON object"),
        (b'{"inputs":[],"parameters":{"signature_name":5}}', "The parameter signature_name is no text"),
        (b'{"inputs":[],"outputs":{}}', "outputs is no list"),
        (b'{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":-1}}]}', "classification is no number of 0"),
        (b'{"inputs":[],"outputs":[{"name":"y","parameters":{"binary_data":1}}]}', "binary_data is neither true nor false"),
        (b'{"inputs":[]}', "Input 'x' is missing; the model takes x"),
        (b'{"inputs":' + b"[" * 100_000, "JSON Parse error"),
        (request(datatype=None), "datatype 'None' is not one of"),
        (request(shape=None), "Input 'x': shape is missing"),
        (request(shape=5), "Input 'x': shape is no list"),
        (request(shape=[-1]), "shape [-1] is none that a tensor can have"),
        (request(data=None), "Input 'x' has no data"),
        (request(data=5), "Input 'x': data is no list"),
        (request(data=[1]), "expected 2 elements for shape [2], got 1"),
        (request(data=[[1], [2]], shape=[1, 2]), "data is nested as [2, 1], and the shape is [1, 2]"),
        (request(data=["a", "b"]), "is not of expected type: float"),
        (request(datatype="INT8", data=[1, 300]), "is not of expected type: int8"),
        (request(parameters=[1]), "Input 'x': parameters is no JSON object"),
        (request(parameters={"binary_data_size": 4}), "elements are in more than one place"),
        (request(data=None, parameters={"binary_data_size": 4}), "no Inference-Header-Content-Length"),
        (request(data=None, parameters={"binary_data_size": True}), "binary_data_size is no number of 0 or more"),
        (request(data=None, parameters={"shared_memory_region": ""}), "shared_memory_region is no name"),
        (request(data=None, parameters={"shared_memory_region": "r"}), "shared_memory_byte_size is missing"),
        (request(name="z"), "Input 'z' is none of the model's: x"),
        (request(datatype="INT32", data=[1, 2]), "Input 'x': expected FP32, got INT32"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_requests_that_are_wrong_are_refused(body: bytes, message: str) -> None:
    assert message in message_of(body)


def test_an_input_that_comes_twice_is_refused() -> None:
    item = json.loads(request())["inputs"][0]
    assert message_of(json.dumps({"inputs": [item, item]}).encode()) == "Input 'x' is there twice."


def binary(size: int, tail: bytes, **changes: Any) -> tuple[bytes, int]:
    text = request(data=None, parameters={"binary_data_size": size}, **changes)
    return text + tail, len(text)


@pytest.mark.parametrize(
    ("body", "size", "message"),
    [
        (*binary(8, b"1234567"), "binary_data_size is 8, and only 7 bytes follow"),
        (*binary(8, b"123456789"), "bytes with the JSON, and the body has"),
        (*binary(4, b"1234"), "expected 8 bytes for FP32 of shape [2], got 4"),
        (*binary(1 << 62, b""), "and only 0 bytes follow"),
        (request(), 10_000, "Inference-Header-Content-Length is 10000, and the body has"),
        (request(), 5, "JSON"),
    ],
)
def test_binary_tensors_that_do_not_fit_are_refused(body: bytes, size: int, message: str) -> None:
    assert message in message_of(body, size)


@pytest.mark.parametrize("field", ["", "-1", "1.5", "x", "١", "9" * 30])
def test_a_length_that_is_no_number_is_refused(field: str) -> None:
    with pytest.raises(InvalidArgument, match="Inference-Header-Content-Length is no number"):
        header_length(field)
    assert header_length(" 12 ") == 12
    assert header_length(None) is None


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 500) | st.none())
def test_a_spoiled_request_raises_nothing_else(tail: bytes, place: int, size: int | None) -> None:
    body, _ = binary(8, b"12345678")
    spoiled = body[: place % len(body)] + tail + body[place % len(body) :]
    try:
        only(spoiled, size)
    except PenstockError:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "id", "FP32"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=30,
    )
)
def test_any_json_at_all_is_read_or_refused(tree: Any) -> None:
    body = json.dumps(tree).encode()
    found = decode_document(body)
    assert found is None or isinstance(found[0], dict)
    for text in (body, json.dumps({"inputs": [tree], "outputs": [tree]}).encode()):
        decode_document(text)
        try:
            decode_infer(text, None)
        except PenstockError:
            pass


# Answers


def head_of(**options: Any) -> InferHead:
    return InferHead((), options.pop("outputs", None), options.pop("parameters", {}), **options)


def result(head: InferHead, outputs: dict[str, Array]) -> InferResult:
    specs = {name: TensorSpec(name, dtype_of_name("float"), None) for name in outputs}
    body, size = encode_infer(head, "m", 3, head.answered(outputs, specs), no_writing)
    return InferResult.from_response_body(body, header_length=size)


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("name", sorted(DATATYPES))
def test_answers_are_read_by_tritons_client(name: str, is_binary: bool) -> None:
    dtype = DATATYPES[name]
    array = np.array([[b"a", b"bc"]], np.object_) if dtype.is_string else np.array([[1, 0, 3]]).astype(dtype.numpy)
    found = result(head_of(parameters={"binary_data_output": is_binary}), {"y": array, "z": np.zeros((0, 2), np.float32)})
    read = found.as_numpy("y")
    expected = array if is_binary or not dtype.is_string else np.array([["a", "bc"]], np.object_)
    assert read.tolist() == expected.tolist()
    assert found.as_numpy("z").shape == (0, 2)
    assert found.get_output("y")["datatype"] == name


@pytest.mark.parametrize("name", ["BF16", "BOOL", "FP64", "UINT8"])
def test_large_outputs_are_written_whole_whatever_their_layout(name: str) -> None:
    array = np.arange(60_000).reshape(200, 300).astype(DATATYPES[name].numpy)
    for one in (array, array.T, array[::2, 1:]):
        found = result(head_of(parameters={"binary_data_output": True}), {"y": one, "z": np.array([7])})
        np.testing.assert_array_equal(found.as_numpy("y"), one)
        assert found.as_numpy("z").tolist() == [7]


def test_the_answer_says_what_it_is_of_and_echoes_the_id() -> None:
    found = result(head_of(request_id='a"é'), {"y": np.array([1.5])}).get_response()
    assert found == {
        "model_name": "m",
        "model_version": "3",
        "id": 'a"é',
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [1], "data": [1.5]}],
    }


def test_outputs_come_in_the_order_in_which_they_are_asked_for_each_in_its_way() -> None:
    head = head_of(outputs=(OutputHead("b", True), OutputHead("a"), OutputHead("b", False, 1)))
    found = result(head, {"a": np.array([1.0]), "b": np.array([3.0, 4.0])})
    names = [(one["name"], "data" in one, one["shape"]) for one in found.get_response()["outputs"]]
    assert names == [("b", False, [2]), ("a", True, [1]), ("b", True, [2, 1])]
    assert found.as_numpy("b").tolist() == [3.0, 4.0]


def test_an_output_in_shared_memory_is_written_there() -> None:
    written: list[tuple[Place, bytes]] = []
    head = head_of(outputs=(OutputHead("y", None, 0, Place("r", 8, 100)),))
    outputs = head.answered({"y": np.array([1], np.int32)}, {"y": TensorSpec("y", dtype_of_name("int32"), None)})
    body, size = encode_infer(head, "m", 1, outputs, lambda place, data: written.append((place, data)))
    assert size is None
    assert json.loads(body)["outputs"][0]["parameters"] == {
        "shared_memory_region": "r",
        "shared_memory_offset": 8,
        "shared_memory_byte_size": 4,
    }
    assert written == [(Place("r", 8, 100), b"\1\0\0\0")]


def test_an_output_that_is_too_long_for_its_shared_memory_is_refused() -> None:
    head = head_of(outputs=(OutputHead("y", None, 0, Place("r", 0, 3)),))
    outputs = head.answered({"y": np.array([1], np.int32)}, {"y": TensorSpec("y", dtype_of_name("int32"), None)})
    with pytest.raises(InvalidArgument, match="Output 'y' has 4 bytes; the shared memory for it has 3"):
        encode_infer(head, "m", 1, outputs, no_writing)


def test_outputs_that_the_model_lacks_are_refused_and_all_by_name_are_all() -> None:
    known = Signature("s", {}, {name: TensorSpec(name, dtype_of_name("float"), None) for name in ("a", "b")})
    assert head_of(outputs=(OutputHead("b"), OutputHead("a"), OutputHead("b"))).wanted(known) is None
    assert head_of(outputs=(OutputHead("b"), OutputHead("b"))).wanted(known) == ("b",)
    assert head_of().wanted(known) is None
    with pytest.raises(InvalidArgument, match="Output 'c' is none of the model's: a, b"):
        head_of(outputs=(OutputHead("c"),)).wanted(known)


def test_a_default_stands_in_for_an_input_that_is_missing() -> None:
    known = signature(a="float", x="float")
    known.defaults["a"] = np.array([9.0], np.float32)
    head, values = decode_infer(request(), None)
    assert [array.tolist() for array in head.bind(known, values, no_memory)] == [[9.0], [1.0, 2.0]]


def test_values_without_a_place_are_never_left() -> None:
    values: list[Value] = decode_infer(*binary(8, b"12345678"))[1]
    assert all(value is not None for value in values)
