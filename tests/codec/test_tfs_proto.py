"""Predict over gRPC: what protobuf reads and writes, the same from memory as without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec import tfs_proto
from penstock.codec.protobuf_wire import encode_bytes, encode_number
from penstock.codec.protos import message_class
from penstock.codec.tensor_proto import encode_tensor, tensor_of
from penstock.codec.tfs_proto import ModelChoice, PredictCall, PredictHead, PredictRequests, PredictResponses
from penstock.errors import InvalidArgument, PenstockError
from penstock.tensors import Array, dtype_of_name

PredictRequest = message_class("tensorflow.serving.PredictRequest")
PredictResponse = message_class("tensorflow.serving.PredictResponse")
_NAMES = ("x", "y", "größe")
_DTYPES = ("float", "double", "int64", "bool", "string", "half", "complex64")
_SHAPES = [(), (1,), (2, 2), (0, 3)]


def array_of(name: str, shape: tuple[int, ...], first: int = 0) -> Array:
    dtype = dtype_of_name(name)
    values: list[Any] = list(range(first, first + int(np.prod(shape))))
    if dtype.is_string:
        values = [b"s%d" % (value % 10) for value in values]
    array = np.empty(len(values), dtype.numpy)
    array[:] = values
    return array.reshape(shape)


def request_of(inputs: dict[str, Array], as_content: bool = False, model: str = "m", **spec: Any) -> bytes:
    request = PredictRequest(model_spec={"name": model, **spec})
    for name, array in inputs.items():
        request.inputs[name].ParseFromString(b"".join(map(bytes, encode_tensor(array, as_content))))
    serialized: bytes = request.SerializeToString()
    return serialized


def by_protobuf(message: bytes) -> PredictCall:
    """What protobuf's own classes make of a request."""
    request = PredictRequest.FromString(message)
    if not request.HasField("model_spec"):
        raise InvalidArgument("Missing ModelSpec")
    spec = request.model_spec
    chosen = spec.WhichOneof("version_choice")
    choice = ModelChoice(
        spec.name,
        spec.version.value if chosen == "version" else None,
        spec.version_label if chosen == "version_label" else None,
        spec.signature_name,
    )
    inputs = {}
    for name in request.inputs:
        tensor = request.inputs[name].SerializeToString()
        inputs[name] = tensor_of(tensor, 0, len(tensor), name)
    return PredictHead(choice, tuple(request.output_filter)), inputs


def same(left: PredictCall, right: PredictCall) -> bool:
    if left[0] != right[0] or left[1].keys() != right[1].keys():
        return False
    for name, array in left[1].items():
        other = right[1][name]
        if array.dtype != other.dtype or array.shape != other.shape:
            return False
        if array.tolist() != other.tolist() if array.dtype == object else array.tobytes() != other.tobytes():
            return False
    return True


def outcome(requests: PredictRequests, message: bytes) -> PredictCall | str:
    try:
        return requests.decode(message)
    except PenstockError as error:
        return error.message


def agree(left: PredictCall | str, right: PredictCall | str) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return left == right
    return same(left, right)


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """Several requests of one client: they differ in their numbers, and in a byte that is not as it was."""
    names = draw(st.lists(st.sampled_from(_NAMES), min_size=1, unique=True))
    kinds = {name: (draw(st.sampled_from(_DTYPES)), draw(st.sampled_from(_SHAPES))) for name in names}
    as_content = draw(st.booleans())
    spec: dict[str, Any] = draw(st.sampled_from([{}, {"version": {"value": 3}}, {"version_label": "l"}, {"signature_name": "s"}]))
    several = []
    for first in draw(st.lists(st.integers(0, 90), min_size=1, max_size=3)):
        arrays = {name: array_of(dtype, shape, first) for name, (dtype, shape) in kinds.items()}
        several.append(request_of(arrays, as_content, **spec))
    place, byte = draw(st.integers(0, len(several[0]) - 1)), draw(st.integers(0, 255))
    several.append(several[0][:place] + bytes([byte]) + several[0][place + 1 :])
    return [*several, several[0]]


@given(messages())
def test_from_memory_a_request_is_what_it_is_without(several: list[bytes]) -> None:
    remembering = PredictRequests()
    for message in several:
        fresh = outcome(PredictRequests(), message)
        assert agree(outcome(remembering, message), fresh)
        assert agree(outcome(remembering, message), fresh)
        expected = proper_outcome(message)
        if expected is None or (isinstance(expected, str) and isinstance(fresh, str)):
            continue
        assert agree(fresh, expected)


def proper_outcome(message: bytes) -> PredictCall | str | None:
    """What protobuf makes of a request; None where it refuses it, perhaps for text in a field that nobody reads.

    And where an entry of the map has a field that is not known: Python's protobuf drops such an entry, C++'s takes it.
    """
    try:
        unknown = UnknownFieldSet(PredictRequest.FromString(message))
        dropped = any(unknown[index].field_number == 2 for index in range(len(unknown)))
        return None if dropped else by_protobuf(message)
    except PenstockError as error:
        return error.message
    except DecodeError:
        return None


def test_all_that_a_request_can_say_is_read() -> None:
    x = array_of("float", (2, 2))
    request = PredictRequest.FromString(request_of({"x": x}, version={"value": -1}, signature_name="s"))
    request.output_filter.extend(["b", "a"])
    request.client_id = b"someone"
    request.predict_streamed_options.split_dimensions["x"] = 1
    head, inputs = PredictRequests().decode(request.SerializeToString())
    assert head == PredictHead(ModelChoice("m", -1, None, "s"), ("b", "a"))
    assert inputs.keys() == {"x"}
    assert np.array_equal(inputs["x"], x)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_read(kind: Any) -> None:
    requests = PredictRequests()
    for number in range(3):
        message = request_of({"x": np.full(3, number, np.float32)})
        assert requests.decode(kind(message))[1]["x"].tolist() == [number] * 3


def test_alike_requests_have_the_same_head() -> None:
    requests = PredictRequests()
    first, _ = requests.decode(request_of({"x": np.zeros(4, np.float32)}))
    second, inputs = requests.decode(request_of({"x": np.ones(4, np.float32)}))
    assert first is second
    assert inputs["x"].tolist() == [1.0] * 4


def test_requests_of_the_same_length_are_told_apart() -> None:
    requests = PredictRequests()
    for model in ("a", "b", "c", "d", "e", "f") * 2:
        assert requests.decode(request_of({"x": np.zeros(4, np.float32)}, model=model))[0].choice.name == model


def test_what_is_remembered_is_bounded() -> None:
    requests = PredictRequests()
    for number in range(2000):
        requests.decode(request_of({"x": np.zeros(number % 1000, np.float32)}, model=f"m{number}"))
        requests.decode(request_of({"x": np.zeros(1, np.float32)}, model="m" * 10_000 + str(number)))
    kinds = [kind for kinds in requests._kinds.values() for kind in kinds]
    assert len(kinds) <= 2048
    assert max(len(literal) for kind in kinds for _, _, literal in kind.literals) <= 4096


def test_a_field_that_comes_again_is_merged_as_protobuf_merges_it() -> None:
    x, y = array_of("float", (2,)), array_of("float", (2,), 7)
    first, second = request_of({"x": x}, version={"value": 3}), request_of({"x": y}, model="n", signature_name="s")
    halves = PredictRequest(model_spec={"version_label": "l"}).SerializeToString()
    for message in (first + second, second + first, first + halves, halves + first):
        assert same(PredictRequests().decode(message), by_protobuf(message))
    tensor = b"".join(map(bytes, encode_tensor(x)))
    entry = encode_bytes(1, b"x") + encode_bytes(2, tensor[:2]) + encode_bytes(2, tensor[2:])
    message = PredictRequest(model_spec={"name": "m"}).SerializeToString() + encode_bytes(2, entry)
    assert same(PredictRequests().decode(message), by_protobuf(message))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"", "Missing ModelSpec"),
        (encode_bytes(2, encode_bytes(1, b"x")), "Missing ModelSpec"),
        (encode_bytes(1, b"\x0a\x05m"), "its model_spec is no ModelSpec"),
        (encode_bytes(1, b"\x0a\x01\xff"), "its model_spec is no ModelSpec"),
        (encode_bytes(1, b"\x0a\x01m") + encode_bytes(2, encode_bytes(1, b"\xff")), "a string is not UTF-8"),
        (encode_bytes(1, b"\x0a\x01m") + encode_bytes(3, b"\xff"), "a string is not UTF-8"),
        (encode_bytes(1, b"\x0a\x01m") + encode_bytes(2, encode_bytes(1, b"x") + encode_bytes(2, b"")), "parsing error: x"),
        (encode_bytes(1, b"\x0a\x01m") + b"\x12\x10", "The message is malformed"),
    ],
)
def test_what_is_no_request_is_refused(message: bytes, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        PredictRequests().decode(message)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    outcome(PredictRequests(), data)
    outcome(PredictRequests(), encode_bytes(1, b"\x0a\x01m") + data)


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("shape", _SHAPES, ids=str)
def test_answers_are_those_that_protobuf_would_write(dtype: str, shape: tuple[int, ...], as_content: bool) -> None:
    responses = PredictResponses(as_content)
    for first in (0, 0, 5):
        outputs = {"a": array_of(dtype, shape, first), "b": array_of("float", (3,), first)}
        message = b"".join(responses.encode("m", 7, "s", outputs))
        expected = PredictResponse(model_spec={"name": "m", "version": {"value": 7}, "signature_name": "s"})
        for name, array in outputs.items():
            expected.outputs[name].ParseFromString(b"".join(map(bytes, encode_tensor(array, as_content))))
        assert PredictResponse.FromString(message) == expected
        assert message == expected.SerializeToString(deterministic=True)


def test_large_outputs_are_sent_as_they_are_and_slices_as_they_look() -> None:
    responses = PredictResponses()
    large = np.arange(1 << 16, dtype=np.float32)
    parts = responses.encode("m", 1, "s", {"y": large})
    assert any(isinstance(part, memoryview) and np.shares_memory(np.frombuffer(part, np.uint8), large) for part in parts)
    for array in (np.arange(12.0).reshape(3, 4)[:, ::2], np.asfortranarray(np.arange(6.0).reshape(2, 3)), large[::2]):
        response = PredictResponse.FromString(b"".join(responses.encode("m", 1, "s", {"y": array})))
        tensor = response.outputs["y"].SerializeToString()
        assert np.array_equal(tensor_of(tensor, 0, len(tensor), "y"), array)


def test_the_answers_that_are_remembered_are_bounded() -> None:
    responses = PredictResponses()
    for size in range(3000):
        responses.encode("m", 1, "s", {"y": np.zeros(size, np.float32)})
    assert len(responses._known) <= 512


def test_version_zero_is_said() -> None:
    response = PredictResponse.FromString(b"".join(PredictResponses().encode("m", 0, "s", {})))
    assert response.model_spec.HasField("version")
    assert encode_number(1, 0) == b"\x08\x00"


def test_elements_that_are_left_out_are_bounded_for_all_tensors_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first two would be allowed alone."""
    monkeypatch.setattr(tfs_proto, "MAX_REPEATED_BYTES", 1000)

    def message(*sizes: int) -> bytes:
        request = PredictRequest(model_spec={"name": "m"})
        for index, size in enumerate(sizes):
            tensor = request.inputs[f"x{index}"]
            tensor.dtype = 1
            tensor.tensor_shape.dim.add(size=size)
        serialized: bytes = request.SerializeToString(deterministic=True)
        return serialized

    _, inputs = PredictRequests().decode(message(100, 150))
    assert [array.shape for array in inputs.values()] == [(100,), (150,)]
    with pytest.raises(InvalidArgument, match=r"x1: its shape .* needs 200 elements, and 0 are there"):
        PredictRequests().decode(message(100, 200))
