"""What gRPC's clients get, whichever transport serves them: the same tests over libnghttp2 and over grpcio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from penstock.errors import Code, Unavailable
from penstock.wire.grpc import Reply
from penstock.wire.server import Limits
from tests.e2e.grpc_transports import GRPCIO, MAX_MESSAGE_BYTES, NGHTTP2, TRANSPORTS, TransportServer
from tests.servers import wait_until

pytestmark = pytest.mark.xdist_group("grpc")
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
_TIMEOUT_S = 20.0
_SIZES = [0, 1, 5, 1023, (16 << 10) - 1, 16 << 10, (16 << 10) + 1, 64 << 10, (64 << 10) + 1, 5 << 20, 50 << 20]


@pytest.fixture(scope="module", params=TRANSPORTS)
def shared_server(request: pytest.FixtureRequest) -> Iterator[TransportServer]:
    with TransportServer(request.param) as running:
        yield running


@pytest.fixture
def server(shared_server: TransportServer) -> TransportServer:
    """The shared one, whose handlers have seen nothing yet."""
    shared_server.handlers.forget()
    return shared_server


@pytest.fixture(params=TRANSPORTS)
def own_server(request: pytest.FixtureRequest) -> Iterator[TransportServer]:
    """One that a test may stop."""
    with TransportServer(request.param) as running:
        yield running


@pytest.fixture
def channel(server: TransportServer) -> Iterator[grpc.Channel]:
    with connect(server) as connected:
        yield connected


def connect(server: TransportServer, *options: tuple[str, int]) -> grpc.Channel:
    return grpc.insecure_channel(server.address, options=(*_OPTIONS, *options))


def unary(channel: grpc.Channel, method: str) -> Any:
    """A callable of a unary method, bytes to bytes."""
    return channel.unary_unary(f"/test.Test/{method}")


def error_of(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


# Messages


@pytest.mark.parametrize(
    "size", [0, 1, 5, 1023, (16 << 10) - 1, 16 << 10, (16 << 10) + 1, 64 << 10, (64 << 10) + 1, 5 << 20, 50 << 20]
)
def test_messages_of_all_sizes_come_back_as_they_went(channel: grpc.Channel, size: int) -> None:
    message = (bytes(range(251)) * (size // 251 + 1))[:size]
    assert unary(channel, "Echo")(message, timeout=60) == message


def test_a_message_up_to_the_limit_is_taken_and_a_larger_one_refused(channel: grpc.Channel) -> None:
    assert len(unary(channel, "Echo")(bytes(MAX_MESSAGE_BYTES), timeout=60)) == MAX_MESSAGE_BYTES
    error = error_of(lambda: unary(channel, "Echo")(bytes(MAX_MESSAGE_BYTES + 1), timeout=60))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE_BYTES) in error.details()
    assert unary(channel, "Echo")(b"still there", timeout=_TIMEOUT_S) == b"still there"


def test_what_has_come_of_all_messages_of_a_connection_is_bounded() -> None:
    limits = Limits(max_message_bytes=MAX_MESSAGE_BYTES, max_unfinished_bytes=1 << 20)
    with TransportServer(NGHTTP2, limits) as server, grpc.insecure_channel(server.address) as channel:
        for _ in range(3):
            error = error_of(lambda: unary(channel, "Echo")(bytes(3 << 20), timeout=_TIMEOUT_S))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.details() == "Too many large bodies are under way on this connection."
            assert len(unary(channel, "Echo")(bytes(900_000), timeout=_TIMEOUT_S)) == 900_000


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
def test_compressed_requests_are_read(channel: grpc.Channel, compression: grpc.Compression) -> None:
    message = b"many times the same " * 10_000
    assert unary(channel, "Echo")(message, timeout=_TIMEOUT_S, compression=compression) == message


def test_a_message_that_is_too_large_once_decompressed_is_refused(channel: grpc.Channel) -> None:
    message = bytes(MAX_MESSAGE_BYTES + 1)
    error = error_of(lambda: unary(channel, "Echo")(message, timeout=60, compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# Errors


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
def test_errors_have_their_code_text_and_metadata(channel: grpc.Channel, code: Code) -> None:
    error = error_of(lambda: unary(channel, "Fail")(bytes([code]) + b"this is why", timeout=_TIMEOUT_S))
    assert (error.code().name, error.details()) == (code.name, "this is why")
    trailing = dict(error.trailing_metadata())
    assert (trailing["x-why"], trailing["x-why-bin"]) == ("because", b"\x00\xff")


@pytest.mark.parametrize(
    "text",
    ["", " ", "Wörter, 字 and 🙂", "two\nlines\r\nand\ttab", "100 % of %41 %", '"quoted" \\ \x00\x7f', "x" * 1024, "é" * 1024],
    ids=["empty", "blank", "UTF-8", "lines", "percent", "control", "long", "long UTF-8"],
)
def test_texts_of_errors_arrive_as_they_are(channel: grpc.Channel, text: str) -> None:
    error = error_of(lambda: unary(channel, "Fail")(b"\x03" + text.encode(), timeout=_TIMEOUT_S))
    assert error.details() == text


def test_long_texts_of_errors_are_cut(channel: grpc.Channel) -> None:
    error = error_of(lambda: unary(channel, "Fail")(b"\x03" + b"x" * 5000, timeout=_TIMEOUT_S))
    assert error.details() == "x" * 1024 + "...TRUNCATED"


def test_what_a_text_cannot_have_is_replaced(channel: grpc.Channel) -> None:
    error = error_of(lambda: unary(channel, "Fail")(b"\x03" + "a\ud800b".encode("utf-8", "surrogatepass"), timeout=_TIMEOUT_S))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "a?b")


def test_an_error_that_a_handler_raises_is_its_answer(channel: grpc.Channel) -> None:
    error = error_of(lambda: unary(channel, "Raise")(b"not so", timeout=_TIMEOUT_S))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "not so")


def test_what_is_inside_stays_inside(channel: grpc.Channel) -> None:
    error = error_of(lambda: unary(channel, "Raise")(b"", timeout=_TIMEOUT_S))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "Internal error; the server's log has the rest.")


@pytest.mark.parametrize("path", ["/test.Test/Nothing", "/test.Nothing/Echo", "/nothing"])
def test_an_unknown_method_is_unimplemented(channel: grpc.Channel, path: str) -> None:
    error = error_of(lambda: channel.unary_unary(path)(b"x", timeout=_TIMEOUT_S))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, f"There is no method {path} here.")
    stream = channel.stream_stream(path)(iter([b"x"]), timeout=_TIMEOUT_S)
    assert error_of(lambda: list(stream)).code() is grpc.StatusCode.UNIMPLEMENTED


# Metadata


def test_metadata_goes_both_ways_binary_too(channel: grpc.Channel) -> None:
    binary = bytes(range(256))
    sent = (("x-text", "a, b; c"), ("x-data-bin", binary), ("x-empty", ""), ("x-empty-bin", b""), ("ignored", "x"))
    _, call = unary(channel, "Metadata").with_call(b"", metadata=sent, timeout=_TIMEOUT_S)
    got = {name: value for name, value in call.trailing_metadata() if name.startswith("x-")}
    assert got == {"x-text": "c ;b ,a", "x-data-bin": binary[::-1], "x-empty": "", "x-empty-bin": b""}


def test_fields_that_come_more_than_once_are_joined(channel: grpc.Channel) -> None:
    sent = (("x-text", "ab"), ("x-text", "cd"), ("x-data-bin", b"1"), ("x-data-bin", b"2"))
    _, call = unary(channel, "Metadata").with_call(b"", metadata=sent, timeout=_TIMEOUT_S)
    got = {name: value for name, value in call.trailing_metadata() if name.startswith("x-")}
    assert got == {"x-text": "dc ,ba", "x-data-bin": b"2,1"}


def test_a_call_has_the_request_id_that_its_client_gave_or_one_of_its_own(server: TransportServer, channel: grpc.Channel) -> None:
    futures = [
        unary(channel, "Wait").future(b"", metadata=metadata, timeout=_TIMEOUT_S)
        for metadata in ((("x-request-id", "mine"),), ())
    ]
    calls = wait_until(lambda: server.handlers.waiting if len(server.handlers.waiting) >= 2 else [], "both calls")
    ids = sorted((call.id for call in calls), key=lambda one: one != b"mine")
    assert ids[0] == b"mine"
    assert len(ids[1]) > 8
    _release(server, futures)


def _release(server: TransportServer, futures: list[Any]) -> None:
    """Answers the calls that wait."""
    for call in server.handlers.waiting:
        server.call(call.answer, Reply((b"done",)))
    assert [future.result(_TIMEOUT_S) for future in futures] == [b"done"] * len(futures)


# Time, and giving up


@pytest.mark.parametrize("timeout_s", [0.9, 7, 70, 7_000, 700_000])
def test_the_clients_deadline_reaches_the_handler(channel: grpc.Channel, timeout_s: float) -> None:
    left_s = int(unary(channel, "TimeLeft")(b"", timeout=timeout_s)) / 1e9
    assert timeout_s * 0.99 - 0.8 < left_s <= timeout_s * 1.01


def test_without_a_deadline_there_is_none(channel: grpc.Channel) -> None:
    assert unary(channel, "TimeLeft")(b"") == b"0"


def test_a_call_that_is_late_is_told_so_and_its_handler_that_nobody_waits(server: TransportServer, channel: grpc.Channel) -> None:
    began = time.monotonic()
    error = error_of(lambda: unary(channel, "Wait")(b"", timeout=0.2))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.19 < time.monotonic() - began < 5
    _wait_for_cancellation(server)


def _wait_for_cancellation(server: TransportServer) -> None:
    wait_until(lambda: server.handlers.cancelled, "the handler's on_cancel")
    (call,) = server.handlers.cancelled
    server.call(call.answer, Reply((b"too late",)))
    assert call.is_over


def test_cancelling_reaches_the_handler(server: TransportServer, channel: grpc.Channel) -> None:
    future = unary(channel, "Wait").future(b"", timeout=_TIMEOUT_S)
    wait_until(lambda: server.handlers.waiting, "the call")
    future.cancel()
    _wait_for_cancellation(server)
    assert unary(channel, "Echo")(b"others go on", timeout=_TIMEOUT_S) == b"others go on"


def test_a_client_that_is_gone_has_given_up(server: TransportServer) -> None:
    with connect(server) as channel:
        future = unary(channel, "Wait").future(b"", timeout=_TIMEOUT_S)
        wait_until(lambda: server.handlers.waiting, "the call")
    assert future.code() is grpc.StatusCode.CANCELLED
    _wait_for_cancellation(server)


def test_an_answer_is_the_end_and_nobody_has_given_up(server: TransportServer, channel: grpc.Channel) -> None:
    future = unary(channel, "Wait").future(b"", timeout=_TIMEOUT_S)
    wait_until(lambda: server.handlers.waiting, "the call")
    call = server.handlers.waiting[0]
    _release(server, [future])
    server.call(call.answer, Reply((b"again",)))
    assert unary(channel, "Echo")(b"x", timeout=_TIMEOUT_S) == b"x"
    assert server.handlers.cancelled == []


# Streams


@pytest.mark.parametrize(("number", "size"), [(0, 8), (1, 8), (1000, 8), (20, 1 << 20)])
def test_a_stream_of_answers_arrives_whole_and_in_order(channel: grpc.Channel, number: int, size: int) -> None:
    stream = channel.unary_stream("/test.Test/Count")(b"%d %d" % (number, size), timeout=_TIMEOUT_S)
    messages = list(stream)
    assert [int(message[:8]) for message in messages] == list(range(number))
    assert {len(message) for message in messages} <= {size}
    assert stream.code() is grpc.StatusCode.OK


def test_a_stream_may_end_with_an_error_behind_its_messages(channel: grpc.Channel) -> None:
    stream = channel.unary_stream("/test.Test/Count")(b"3 8 9", timeout=_TIMEOUT_S)
    assert [int(next(stream)) for _ in range(3)] == [0, 1, 2]
    error = error_of(lambda: next(stream))
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "the end")


def test_messages_of_a_stream_arrive_when_they_are_sent(server: TransportServer, channel: grpc.Channel) -> None:
    stream = channel.unary_stream("/test.Test/Watch")(b"", timeout=_TIMEOUT_S)
    assert next(stream) == b"first"
    (call,) = server.handlers.waiting
    for text in (b"second", b"", b"third"):
        server.call(call.send, (text,))
        assert next(stream) == text
    server.call(call.fail, Unavailable("no more"))
    assert error_of(lambda: next(stream)).details() == "no more"


def test_a_stream_that_is_cancelled_tells_its_handler(server: TransportServer, channel: grpc.Channel) -> None:
    stream = channel.unary_stream("/test.Test/Watch")(b"", timeout=_TIMEOUT_S)
    assert next(stream) == b"first"
    stream.cancel()
    _wait_for_cancellation(server)


def test_both_sides_of_a_stream_go_on_at_once(channel: grpc.Channel) -> None:
    outgoing = _Messages()
    stream = channel.stream_stream("/test.Test/Chat")(outgoing, timeout=_TIMEOUT_S)
    for text in (b"one", b"", b"x" * 100_000, b"y" * 3_000_000):
        outgoing.put(text)
        assert next(stream) == text
    outgoing.end()
    assert list(stream) == []
    assert stream.code() is grpc.StatusCode.OK


class _Messages:
    """Messages that a client sends when the test says so."""

    def __init__(self) -> None:
        self._queue: list[bytes | None] = []
        self._more = threading.Condition()

    def put(self, message: bytes | None) -> None:
        with self._more:
            self._queue.append(message)
            self._more.notify()

    def end(self) -> None:
        self.put(None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._more:
            assert self._more.wait_for(lambda: self._queue, _TIMEOUT_S)
            message = self._queue.pop(0)
        if message is None:
            raise StopIteration
        return message


def test_a_stream_of_many_messages_is_answered_in_order(channel: grpc.Channel) -> None:
    messages = [b"%d" % index for index in range(2000)]
    assert list(channel.stream_stream("/test.Test/Chat")(iter(messages), timeout=_TIMEOUT_S)) == messages


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (b"stop", grpc.StatusCode.INVALID_ARGUMENT, "stopped"),
        (b"raise", grpc.StatusCode.INTERNAL, "Internal error; the server's log has the rest."),
    ],
)
def test_a_stream_ends_with_an_error_while_its_client_still_sends(
    channel: grpc.Channel, message: bytes, code: grpc.StatusCode, text: str
) -> None:
    outgoing = _Messages()
    stream = channel.stream_stream("/test.Test/Chat")(outgoing, timeout=_TIMEOUT_S)
    outgoing.put(b"fine")
    assert next(stream) == b"fine"
    outgoing.put(message)
    error = error_of(lambda: next(stream))
    assert (error.code(), error.details()) == (code, text)
    outgoing.end()


def test_a_stream_without_a_message_ends(channel: grpc.Channel) -> None:
    assert list(channel.stream_stream("/test.Test/Chat")(iter([]), timeout=_TIMEOUT_S)) == []


def test_a_client_that_sends_and_does_not_wait_for_answers_is_held_back(server: TransportServer, channel: grpc.Channel) -> None:
    outgoing = _Messages()
    stream = channel.stream_stream("/test.Test/Hold")(outgoing, timeout=_TIMEOUT_S)
    for _ in range(200):
        outgoing.put(b"x" * 1000)
    received = server.handlers.received
    wait_until(lambda: len(received) >= 64, "the first messages")
    assert unary(channel, "Echo")(b"x", timeout=_TIMEOUT_S) == b"x"
    assert len(received) <= 64
    (call,) = server.handlers.waiting
    for _ in range(200):
        server.call(call.send, (b"y",))
        assert next(stream) == b"y"
    wait_until(lambda: len(received) == 200, "all messages")
    stream.cancel()
    _wait_for_cancellation(server)


# Many at once


def test_a_thousand_calls_at_once_on_one_connection(channel: grpc.Channel) -> None:
    echo = unary(channel, "Echo")
    futures = [echo.future(b"%d" % index, timeout=60) for index in range(1000)]
    assert [future.result() for future in futures] == [b"%d" % index for index in range(1000)]


def test_a_thousand_calls_may_wait_on_one_connection(server: TransportServer, channel: grpc.Channel) -> None:
    futures = [unary(channel, "Wait").future(b"", timeout=60) for _ in range(1000)]
    wait_until(lambda: len(server.handlers.waiting) == 1000, "a thousand calls")
    waiting = list(server.handlers.waiting)

    def answer_all() -> None:
        for call in reversed(waiting):
            call.answer(Reply((b"done",)))

    server.call(answer_all)
    assert [future.result(_TIMEOUT_S) for future in futures] == [b"done"] * 1000


def test_many_connections_with_large_and_small_messages(server: TransportServer) -> None:
    def talk(index: int) -> bool:
        message = bytes([index]) * (10 ** (index % 7))
        with connect(server) as channel:
            echo = unary(channel, "Echo")
            return all(echo(message, timeout=60) == message for _ in range(10))

    with ThreadPoolExecutor(8) as pool:
        futures: list[Future[bool]] = [pool.submit(talk, index) for index in range(24)]
        assert all(future.result(60) for future in futures)


def test_keep_alive_pings_keep_an_idle_connection(server: TransportServer) -> None:
    options = (
        ("grpc.keepalive_time_ms", 1100),
        ("grpc.keepalive_timeout_ms", 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    with connect(server, *options) as channel:
        states: list[grpc.ChannelConnectivity] = []
        assert unary(channel, "Echo")(b"x", timeout=_TIMEOUT_S) == b"x"
        channel.subscribe(states.append)
        time.sleep(5)  # four pings
        assert set(states) <= {grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.READY}
        assert unary(channel, "Echo")(b"x", timeout=_TIMEOUT_S) == b"x"


# The end


def test_calls_under_way_are_answered_while_the_server_stops(own_server: TransportServer) -> None:
    server = own_server
    with connect(server) as channel, ThreadPoolExecutor(1) as pool:
        future = unary(channel, "Wait").future(b"", timeout=_TIMEOUT_S)
        wait_until(lambda: server.handlers.waiting, "the call")
        (call,) = server.handlers.waiting
        stopping = pool.submit(server.drain)
        wait_until(lambda: _is_refused(server), "that no more calls are taken")
        server.call(call.answer, Reply((b"done",)))
        assert future.result(_TIMEOUT_S) == b"done"
        stopping.result(_TIMEOUT_S)


def _is_refused(server: TransportServer) -> bool:
    """Whether a call on a new connection finds nobody. One that is just being taken is cancelled by gRPC's own server."""
    with connect(server) as channel:
        future = unary(channel, "Echo").future(b"x", timeout=_TIMEOUT_S)
        code = future.code()
    endings = {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert code in (endings | {grpc.StatusCode.CANCELLED} if server.transport == GRPCIO else endings)
    return code is grpc.StatusCode.UNAVAILABLE


def test_a_server_without_calls_stops_at_once(own_server: TransportServer) -> None:
    with connect(own_server) as channel:
        assert unary(channel, "Echo")(b"x", timeout=_TIMEOUT_S) == b"x"
        began = time.monotonic()
        own_server.drain()
        assert time.monotonic() - began < 2


def test_both_transports_are_tested_where_both_are_there() -> None:
    assert GRPCIO in TRANSPORTS
    assert set(TRANSPORTS) <= {NGHTTP2, GRPCIO}
    assert Limits().max_message_bytes == (2 << 30) - 1
