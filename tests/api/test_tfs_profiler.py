"""The profiler service: what it tells of the requests of some time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from penstock.api.tfs_profiler import ProfilerService, report
from penstock.codec.protos import message_class
from penstock.errors import InvalidArgument, Unimplemented
from penstock.observe.metrics import Collected, Metrics, merge
from penstock.wire.grpc import Buffer, GrpcCall, Reply

_MonitorRequest = message_class("tensorflow.MonitorRequest")


class Carrier:
    def __init__(self) -> None:
        self.answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def send(self, call: GrpcCall, message: tuple[Buffer, ...]) -> None:
        raise AssertionError("no stream")

    def answered(self, call: GrpcCall, reply: Reply) -> None:
        self.answer.set_result(reply)


def call_of(message: bytes, carrier: Any = None) -> GrpcCall:
    return GrpcCall(carrier, "", {}, message, deadline_ns=0, first_byte_ns=0, request_id=b"1")


def observe(metrics: Metrics, code: str, milliseconds: int) -> None:
    """A request to version 3 of the model m, all of whose time is the model's."""
    recorder = metrics.recorder("m", 3, "tfs_grpc:predict")
    recorder.in_flight += 1
    end = milliseconds * 1_000_000
    recorder.finished(code, (0, 0, 0, end, end, end, end, 1))


def test_the_report_has_what_came_between_two_looks() -> None:
    metrics = Metrics()
    observe(metrics, "OK", 1000)
    before = merge([metrics.snapshot()])
    assert report(before, before, 1.5) == "Requests in 1.5 s:\nnone\n"
    observe(metrics, "OK", 2)
    observe(metrics, "UNAVAILABLE", 4)
    assert report(before, merge([metrics.snapshot()]), 1.0) == (
        "Requests in 1 s:\n"
        "model m version 3, tfs_grpc:predict: 2 answered, 1 with an error, 3.000 ms each, 3.000 ms of it in the model\n"
    )


def test_a_client_is_told_after_the_time_that_it_asks_for() -> None:
    async def monitor() -> str:
        metrics, carrier = Metrics(), Carrier()

        def collect(answer: Callable[[Collected], None]) -> None:
            answer(Collected([metrics.snapshot()], []))
            observe(metrics, "OK", 2)

        service = ProfilerService(collect)
        request = _MonitorRequest(duration_ms=1, timestamp=True).SerializeToString()
        service.methods()["/tensorflow.ProfilerService/Monitor"].handler(call_of(request, carrier))
        reply = await asyncio.wait_for(carrier.answer, 10)
        text: str = message_class("tensorflow.MonitorResponse").FromString(b"".join(reply.message)).data
        return text

    text = asyncio.run(monitor())
    assert text.startswith("Timestamp: ")
    assert "1 answered, 0 with an error" in text


def test_profiles_are_not_taken() -> None:
    methods = ProfilerService(lambda answer: None).methods()
    with pytest.raises(Unimplemented, match="takes no profiles"):
        methods["/tensorflow.ProfilerService/Profile"].handler(call_of(b""))
    with pytest.raises(InvalidArgument, match="MonitorRequest"):
        methods["/tensorflow.ProfilerService/Monitor"].handler(call_of(b"\xff"))
