"""Examples over gRPC: cut out of the message as they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec.protobuf_wire import encode_bytes
from penstock.codec.protos import message_class
from penstock.codec.tfs_examples_proto import check_examples, decode_examples, decode_multi_inference
from penstock.codec.tfs_proto import ModelChoice
from penstock.errors import InvalidArgument, PenstockError

Request = message_class("tensorflow.serving.ClassificationRequest")
MultiRequest = message_class("tensorflow.serving.MultiInferenceRequest")
Example = message_class("tensorflow.Example")
_SPEC = encode_bytes(1, b"\x0a\x01m")


def example(value: float) -> Any:
    one = Example()
    one.features.feature["x"].float_list.value.append(value)
    return one


def given_examples(request: Any, *values: float, context: Any = None) -> bytes:
    """A request of these examples, serialized."""
    target = request.input.example_list if context is None else request.input.example_list_with_context
    target.examples.extend([example(value) for value in values])
    if context is not None:
        target.context.CopyFrom(context)
    serialized: bytes = request.SerializeToString()
    return serialized


def test_examples_are_the_bytes_that_the_client_wrote() -> None:
    call = decode_examples(given_examples(Request(model_spec={"name": "m", "signature_name": "s"}), 1, 2, 3))
    assert call.choice == ModelChoice("m", None, None, "s")
    assert call.examples.tolist() == [example(value).SerializeToString() for value in (1, 2, 3)]


def test_a_context_is_put_before_each_example() -> None:
    context = Example()
    context.features.feature["name"].bytes_list.value.append(b"all")
    call = decode_examples(given_examples(Request(model_spec={"name": "m"}), 1, 2, context=context))
    merged = Example.FromString(call.examples[1])
    assert merged.features.feature["name"].bytes_list.value == [b"all"]
    assert merged.features.feature["x"].float_list.value == [2.0]


def test_what_is_in_an_example_is_not_looked_at() -> None:
    listed = encode_bytes(1, encode_bytes(1, b"\xff\xff")) * 2
    assert decode_examples(_SPEC + encode_bytes(2, listed)).examples.tolist() == [b"\xff\xff"] * 2


def test_the_last_of_two_kinds_of_input_counts_and_the_same_kind_is_joined() -> None:
    plain, with_context = encode_bytes(1, encode_bytes(1, b"a")), encode_bytes(2, encode_bytes(1, b"b") + encode_bytes(2, b"c"))

    def examples(*inputs: bytes) -> list[bytes]:
        found: list[bytes] = decode_examples(_SPEC + b"".join(encode_bytes(2, one) for one in inputs)).examples.tolist()
        return found

    assert examples(plain + with_context) == [b"cb"]
    assert examples(with_context, plain) == [b"a"]
    assert examples(plain, plain) == [b"a", b"a"]
    assert examples(with_context, with_context) == [b"ccb", b"ccb"]


def test_tasks_come_in_their_order() -> None:
    request = MultiRequest()
    for name in ("a", "b"):
        request.tasks.add(model_spec={"name": "m", "signature_name": name}, method_name=f"method/{name}")
    tasks, examples = decode_multi_inference(given_examples(request, 1))
    assert [(task.choice.signature_name, task.method_name) for task in tasks] == [("a", "method/a"), ("b", "method/b")]
    assert len(examples) == 1


@pytest.mark.parametrize("message", [b"", encode_bytes(2, b"")])
def test_a_request_without_a_model_is_refused(message: bytes) -> None:
    for decode in (decode_examples, decode_multi_inference):
        with pytest.raises(InvalidArgument, match="Missing ModelSpec"):
            decode(message)


def test_no_examples_are_refused_when_they_are_checked() -> None:
    with pytest.raises(InvalidArgument, match=r"Input is empty\."):
        check_examples(decode_examples(_SPEC).examples)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    for message in (data, _SPEC + data, _SPEC + encode_bytes(2, data)):
        for decode in (decode_examples, decode_multi_inference):
            try:
                decode(message)
            except PenstockError:
                pass
