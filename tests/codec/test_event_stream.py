"""Event streams, read by botocore."""

from __future__ import annotations

import pytest
from botocore.eventstream import EventStream, EventStreamBuffer
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec.event_stream import MAX_PART_BYTES, encode_parts


class _Raw:
    """What urllib3 hands to botocore: the body in pieces of any size."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data = data
        self._piece = piece

    def stream(self) -> list[bytes]:
        return [self._data[at : at + self._piece] for at in range(0, len(self._data), self._piece)]


_SHAPE = (
    ServiceModel(Loader().load_service_model("sagemaker-runtime", "service-2"))
    .operation_model("InvokeEndpointWithResponseStream")
    .get_event_stream_output()
)


def read(data: bytes, piece: int = 1000) -> list[bytes]:
    """The parts of a stream as a client of boto3 gets them."""
    parser = create_parser("rest-json")._event_stream_parser
    stream = EventStream(_Raw(data, piece), _SHAPE, parser, "InvokeEndpointWithResponseStream")
    return [event["PayloadPart"]["Bytes"] for event in stream]


@given(st.binary(max_size=200), st.integers(1, 300))
def test_a_short_answer_is_one_part_however_it_arrives(body: bytes, piece: int) -> None:
    assert read(encode_parts(body), piece) == ([body] if body else [])


@pytest.mark.parametrize("size", [MAX_PART_BYTES - 1, MAX_PART_BYTES, MAX_PART_BYTES + 1, 3 * MAX_PART_BYTES])
def test_parts_are_bounded_and_make_up_the_answer(size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    parts = read(encode_parts(body), 50_000)
    assert b"".join(parts) == body
    assert [len(part) for part in parts[:-1]] == [MAX_PART_BYTES] * (len(parts) - 1)
    assert 0 < len(parts[-1]) <= MAX_PART_BYTES


def test_a_part_says_that_it_is_bytes() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(encode_parts(b"[1.0]"))
    (event,) = list(buffer)
    assert event.headers == {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
    }
    assert event.payload == b"[1.0]"
