"""ModelInferRequest and ModelInferResponse without message objects, against those that Triton's client has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import InferResult, service_pb2

from penstock.codec import oip_proto
from penstock.codec.oip_proto import decode_infer, encode_infer, encode_stream_error, encode_streamed
from penstock.codec.oip_request import InferHead, OutputHead, Place
from penstock.codec.oip_tensor import DATATYPES, bytes_of_array
from penstock.errors import InvalidArgument, PenstockError
from penstock.tensors import Array, Signature, TensorSpec, dtype_of_name

ModelInferRequest: Any = service_pb2.ModelInferRequest
ModelInferResponse: Any = service_pb2.ModelInferResponse
FIELDS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint"),
    **{name: name.lower() for name in ("BOOL", "INT64", "UINT64", "FP32", "FP64", "BYTES")},
}


def signature(**dtypes: str) -> Signature:
    return Signature("s", {name: TensorSpec(name, dtype_of_name(dtype), None) for name, dtype in dtypes.items()}, {})


def no_memory(place: Place) -> bytes:
    raise AssertionError("nothing is in shared memory")


def no_writing(place: Place, data: bytes) -> None:
    raise AssertionError("nothing goes to shared memory")


def request_of(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (2,), raw: bytes | None = None) -> Any:
    request = ModelInferRequest(model_name="m")
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def only(request: Any, dtype: str = "float") -> Array:
    data = request if isinstance(request, bytes) else request.SerializeToString()
    head, values = decode_infer(data)
    (array,) = head.bind(signature(x=dtype), values, no_memory)
    return array


def message_of(request: Any, dtype: str = "float") -> str:
    with pytest.raises(InvalidArgument) as caught:
        only(request, dtype)
    return caught.value.message


def example(name: str) -> Array:
    dtype = DATATYPES[name]
    return np.array([[b"a", b"\0bc"]], np.object_) if dtype.is_string else np.array([[1, 0, 3]]).astype(dtype.numpy)


@pytest.mark.parametrize("name", sorted(DATATYPES))
def test_raw_contents_are_read_the_first_time_and_again(name: str) -> None:
    array = example(name)
    request = request_of(datatype=name, shape=array.shape, raw=bytes_of_array(array))
    for _ in range(2):
        read = only(request, DATATYPES[name].name)
        assert read.dtype == array.dtype
        assert read.tolist() == array.tolist()


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_typed_contents_are_read(name: str) -> None:
    array = example(name)
    request = request_of(datatype=name, shape=array.shape)
    getattr(request.inputs[0].contents, f"{FIELDS[name]}_contents").extend(array.ravel().tolist())
    read = only(request, DATATYPES[name].name)
    assert read.dtype == array.dtype
    assert read.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("INT8", [-128, 127]),
        ("INT32", [-(1 << 31), (1 << 31) - 1]),
        ("INT64", [-(1 << 63), (1 << 63) - 1]),
        ("UINT8", [0, 255]),
        ("UINT32", [0, (1 << 32) - 1]),
        ("UINT64", [0, (1 << 64) - 1]),
        ("FP64", [-1.5e300, float("inf")]),
    ],
)
def test_the_extremes_of_typed_contents_survive(name: str, values: list[Any]) -> None:
    request = request_of(datatype=name)
    getattr(request.inputs[0].contents, f"{FIELDS[name]}_contents").extend(values)
    assert only(request, DATATYPES[name].name).tolist() == values


def test_numbers_that_are_not_packed_are_read_too() -> None:
    integers = b"\x10\x05" + b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    floats = b"\x35\x00\x00\x80\x3f" * 2
    for name, contents, dtype, found in (("INT32", integers, "int32", [5, -1]), ("FP32", floats, "float", [1.0, 1.0])):
        tensor = request_of(datatype=name).inputs[0].SerializeToString() + b"\x2a" + bytes([len(contents)]) + contents
        assert only(b"\x0a\x01m\x2a" + bytes([len(tensor)]) + tensor, dtype).tolist() == found


def test_numbers_are_views_of_the_message() -> None:
    message = request_of(raw=np.ones(2, np.float32).tobytes()).SerializeToString()
    for _ in range(2):
        assert np.shares_memory(only(message), np.frombuffer(message, np.uint8))
    buffer = bytearray(message)
    head, values = decode_infer(memoryview(buffer))
    assert np.shares_memory(head.bind(signature(x="float"), values, no_memory)[0], np.frombuffer(buffer, np.uint8))


def test_everything_beside_the_tensors_is_read() -> None:
    request = request_of(raw=b"")
    request.inputs[0].shape[:] = [0]
    request.model_version, request.id = "7", "id-é"
    request.parameters["signature_name"].string_param = "other"
    request.parameters["priority"].uint64_param = 5
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    request.outputs.add(name="y").parameters["classification"].int64_param = 3
    request.outputs.add(name="z").parameters["half"].double_param = 0.5
    head, _ = decode_infer(request.SerializeToString())
    assert (head.model, head.version, head.id, head.signature_name, head.is_end_marked) == ("m", "7", "id-é", "other", True)
    assert head.outputs == (OutputHead("y", None, 3), OutputHead("z"))


def test_shared_memory_takes_no_raw_contents() -> None:
    request = request_of()
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 8
    other = request.inputs.add(name="n", datatype="UINT8", shape=[1])
    request.raw_input_contents.append(b"\7")
    asked: list[Place] = []
    for _ in range(2):
        head, values = decode_infer(request.SerializeToString())
        arrays = head.bind(signature(x="float", n="uint8"), values, lambda place: asked.append(place) or bytes(8))  # type: ignore[func-returns-value]
        assert [array.tolist() for array in arrays] == [[0, 0], [7]]
    assert asked == [Place("r", 0, 8)] * 2
    assert other.name == "n"


def test_an_empty_tensor_needs_no_contents() -> None:
    assert only(request_of(shape=(0, 3))).shape == (0, 3)


def test_a_head_is_found_again_whatever_follows_it() -> None:
    first, _ = decode_infer(request_of(raw=bytes(8)).SerializeToString())
    longer = request_of(raw=bytes(8)).SerializeToString()
    assert decode_infer(longer)[0] is first
    with_more = longer + ModelInferRequest(id="late").SerializeToString()
    head, _ = decode_infer(with_more)
    assert head.id == "late"
    assert decode_infer(longer)[0] is first


def test_requests_with_ids_are_not_remembered_and_what_is_is_bounded() -> None:
    request = request_of(raw=bytes(8))
    request.id = "1"
    data = request.SerializeToString()
    assert decode_infer(data)[0] is not decode_infer(data)[0]
    for number in range(3000):
        decode_infer(request_of(name="x" * (number % 300) + str(number), raw=bytes(8)).SerializeToString())
    assert len(oip_proto._heads) <= 1024
    assert len(oip_proto._lengths) <= 8


def _with(change: Any, **options: Any) -> Any:
    request = request_of(**options)
    change(request)
    return request


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"\x0a", "malformed"),
        (b"\x2a\x05\x0a\x09x\x10\x05", "malformed"),
        (request_of(), "Input 'x' has neither contents nor raw_input_contents"),
        (request_of(raw=b"1234"), "expected 8 bytes for FP32 of shape [2], got 4"),
        (request_of(datatype="float"), "datatype 'float' is not one of"),
        (request_of(shape=(-1,)), "shape [-1] is none that a tensor can have"),
        (request_of(shape=(1 << 62, 4)), "is none that a tensor can have"),
        (request_of(name="z", raw=bytes(8)), "Input 'z' is none of the model's: x"),
        (request_of(datatype="INT64", raw=bytes(16)), "Input 'x': expected FP32, got INT64"),
        (ModelInferRequest(), "Input 'x' is missing; the model takes x"),
        (_with(lambda one: one.raw_input_contents.append(b""), raw=bytes(8)), "raw_input_contents has 2 elements for 1 inputs"),
        (_with(lambda one: one.inputs.add(name="x", datatype="FP32", shape=[2])), "Input 'x' is there twice"),
        (_with(lambda one: one.inputs[0].contents.fp32_contents.append(1)), "expected 2 elements for shape [2], got 1"),
        (_with(lambda one: one.inputs[0].contents.fp64_contents.append(1)), "has a field that is not the one of its datatype"),
        (
            _with(lambda one: one.inputs[0].contents.fp32_contents.extend([1, 1]), raw=bytes(8)),
            "and there are raw_input_contents",
        ),
        (_with(lambda one: one.inputs[0].contents.fp32_contents.append(1), datatype="FP16"), "come in raw_input_contents"),
        (
            _with(lambda one: one.inputs[0].contents.int_contents.extend([1, 128]), datatype="INT8"),
            "a number in contents does not fit int8",
        ),
        (_with(lambda one: one.inputs[0].contents.bytes_contents.append(b""), datatype="BYTES"), "expected 2 elements"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_requests_that_are_wrong_are_refused(request_: Any, message: str) -> None:
    assert message in message_of(request_)


@given(st.binary(max_size=30), st.integers(0, 400), st.booleans())
def test_a_spoiled_message_raises_nothing_else(tail: bytes, place: int, is_cut: bool) -> None:
    request = request_of(raw=bytes(8))
    request.parameters["p"].string_param = "q"
    data = request.SerializeToString()
    place %= len(data)
    try:
        only(data[:place] + tail + (b"" if is_cut else data[place:]))
    except PenstockError:
        pass


# Answers


def response_of(head: InferHead, outputs: dict[str, Array], *, is_final: bool = False) -> Any:
    specs = {name: TensorSpec(name, dtype_of_name("float"), None) for name in outputs}
    buffers = encode_infer(head, "m", 3, head.answered(outputs, specs), no_writing, is_final=is_final)
    return ModelInferResponse.FromString(b"".join(buffers))


@pytest.mark.parametrize("name", sorted(DATATYPES))
def test_answers_are_read_by_tritons_client(name: str) -> None:
    array = example(name)
    outputs = {"a": np.zeros((0, 2), np.float32), "y": array, "s": np.array(1.5)}
    response = response_of(InferHead((), None, {}), outputs)
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "")
    result = InferResult(response)
    assert result.as_numpy("y").tolist() == array.tolist()
    assert result.as_numpy("a").shape == (0, 2)
    assert result.as_numpy("s").shape == ()
    assert [one.datatype for one in response.outputs] == ["FP32", name, "FP64"]


def test_the_id_and_the_end_are_marked() -> None:
    head = InferHead((), None, {}, request_id="ü")
    assert response_of(head, {"y": np.zeros(1)}).id == "ü"
    assert response_of(head, {"y": np.zeros(1)}, is_final=True).parameters["triton_final_response"].bool_param is True
    assert not response_of(head, {"y": np.zeros(1)}).parameters
    assert response_of(head, {}).id == "ü"


def test_an_output_in_shared_memory_has_an_empty_raw_content() -> None:
    written: list[tuple[Place, bytes]] = []
    head = InferHead((), (OutputHead("y", None, 0, Place("r", 8, 100)), OutputHead("z")), {})
    specs = {name: TensorSpec(name, dtype_of_name("int32"), None) for name in "yz"}
    outputs = head.answered({"z": np.array([2], np.int32), "y": np.array([1], np.int32)}, specs)
    data = b"".join(encode_infer(head, "m", 1, outputs, lambda place, part: written.append((place, part))))
    response = ModelInferResponse.FromString(data)
    parameters = response.outputs[0].parameters
    assert parameters["shared_memory_region"].string_param == "r"
    assert parameters["shared_memory_offset"].int64_param == 8
    assert parameters["shared_memory_byte_size"].int64_param == 4
    assert written == [(Place("r", 8, 100), b"\1\0\0\0")]
    assert list(response.raw_output_contents) == [b"", b"\2\0\0\0"]


def test_streamed_answers_and_errors_are_messages_of_the_stream() -> None:
    head = InferHead((), None, {}, request_id="1")
    buffers = encode_infer(head, "m", 3, head.answered({"y": np.zeros(3)}, {}), no_writing)
    streamed: Any = service_pb2.ModelStreamInferResponse.FromString(b"".join(encode_streamed(buffers)))
    assert streamed.infer_response == ModelInferResponse.FromString(b"".join(buffers))
    error: Any = service_pb2.ModelStreamInferResponse.FromString(encode_stream_error("wrong \udc80", "1"))
    assert error.error_message == "wrong ?"
    assert error.infer_response.id == "1"
