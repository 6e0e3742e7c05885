"""Requests in, answers out: segments, order, keep-alive, 100 Continue, encodings, request ids, the ends of connections."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from itertools import permutations

import pytest

from penstock.errors import InvalidArgument
from penstock.wire.request import Request, Response
from penstock.wire.server import Limits
from tests.wire.peer import CONTINUE, Peer, answer_at_once, bytewise, chunked, chunked_request, cuts, request_bytes

LONG = {"predictions": [0.5] * 2000}
LIMITS = Limits(max_head_bytes=1000, max_body_bytes=1000)


def paths(peer: Peer) -> list[str]:
    return [request.head.path for request in peer.requests]


def answering(status: int, body: bytes, content_type: str = "text/plain") -> Callable[[Request], None]:
    return lambda request: request.answer(Response(status, body, content_type))


# Segments

REQUESTS = [
    request_bytes(b'{"instances": [1]}'),
    request_bytes(b""),
    b"GET /g HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\n\r\n" + request_bytes(b"x"),
    chunked_request(chunked(b"hello", b" ", b"world", trailers=b"A: b\r\n")),
    request_bytes(gzip.compress(b"body", mtime=0), "Content-Encoding: gzip"),
]


@pytest.mark.parametrize("data", REQUESTS)
def test_a_request_cut_anywhere_gives_the_same_answer(data: bytes) -> None:
    def result(*segments: bytes) -> object:
        peer = Peer(answer_at_once).send(*segments)
        answer = peer.only_answer()
        assert not peer.transport.is_closed
        return answer.status, answer.body, [request.body for request in peer.requests]

    whole = result(data)
    assert result(*bytewise(data)) == whole
    for first, second in cuts(data):
        assert result(first, second) == whole


def test_several_requests_in_one_segment_or_cut_anywhere_are_answered_in_order() -> None:
    data = b"".join(REQUESTS)
    expected = [answer.body for answer in Peer(answer_at_once).send(data).answers()]
    assert len(expected) == len(REQUESTS)
    for first, second in cuts(data):
        assert [answer.body for answer in Peer(answer_at_once).send(first, second).answers()] == expected


def test_a_connection_is_kept_for_the_next_request() -> None:
    peer = Peer(answer_at_once)
    for number in range(5):
        answer = peer.send(request_bytes(b"%d" % number)).only_answer()
        assert answer.json["body"] == str(number)
        assert "connection" not in answer.fields
        peer.requests.clear()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_answers_leave_in_the_order_of_the_requests(order: tuple[int, ...]) -> None:
    peer = Peer().send(b"".join(request_bytes(b"%d" % number) for number in range(3)))
    requests = list(peer.requests)
    for number in order:
        peer.answer(requests[number])
    assert [answer.json["body"] for answer in peer.answers()] == ["0", "1", "2"]


def test_the_second_answer_to_a_request_is_dropped() -> None:
    peer = Peer().send(request_bytes(b"1"), request_bytes(b"2"))
    first, second = peer.requests
    peer.answer(second)
    peer.answer(second)
    peer.answer(first)
    peer.answer(first)
    assert len(peer.answers()) == 2


# Ends of connections


@pytest.mark.parametrize(
    ("line", "field", "keeps"),
    [
        ("GET / HTTP/1.1", "A: b", True),
        ("GET / HTTP/1.1", "Connection: close", False),
        ("GET / HTTP/1.0", "A: b", False),
        ("GET / HTTP/1.0", "Connection: keep-alive", True),
    ],
)
def test_the_connection_ends_behind_the_answer_when_the_client_says_so(line: str, field: str, keeps: bool) -> None:
    peer = Peer().send(request_bytes(b"", field, line=line) + b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
    assert not peer.transport.is_closed
    for request in list(peer.requests):
        peer.answer(request)
    first, *others = peer.answers()
    assert len(others) == keeps
    assert peer.has_ended is not keeps
    assert first.fields.get("connection") == ("close" if not keeps else "keep-alive" if "1.0" in line else None)


def test_a_client_that_half_closes_gets_its_answers() -> None:
    peer = Peer().send(request_bytes(b"1"), request_bytes(b"2")).send_end()
    assert not peer.transport.is_closed
    for request in list(peer.requests):
        peer.answer(request)
    first, second = peer.answers()
    assert "connection" not in first.fields
    assert second.fields["connection"] == "close"
    assert peer.transport.is_closed


@pytest.mark.parametrize("data", [b"", request_bytes(b"body"), chunked_request(chunked(b"hello"))])
def test_the_end_of_the_data_anywhere_in_a_request_closes_quietly(data: bytes) -> None:
    for size in range(len(data)):
        peer = Peer().send(data[:size]).send_end()
        assert peer.transport.is_closed
        assert peer.requests == []
        assert peer.take_sent() == b""


def test_answers_after_the_connection_was_lost_are_dropped() -> None:
    peer = Peer().send(request_bytes(b"1"), request_bytes(b"2"), request_bytes(b"half")[:-2])
    peer.lose()
    for request in reversed(peer.requests):
        peer.answer(request)
    assert peer.take_sent() == b""
    assert peer.server.connections == set()
    peer.protocol.check_progress(1e12)
    peer.protocol.end_if_idle()


# 100 Continue


@pytest.mark.parametrize(
    "data", [request_bytes(b"hello", "Expect: 100-continue"), chunked_request(chunked(b"hello"), "Expect: 100-continue")]
)
def test_100_continue_is_sent_once_and_only_while_nothing_of_the_body_is_there(data: bytes) -> None:
    head_size = data.index(b"\r\n\r\n") + 4
    for first, second in cuts(data):
        sent = Peer(answer_at_once).send(first, second).take_sent()
        assert sent.count(CONTINUE) == (len(first) == head_size)
        assert sent.count(b"HTTP/1.1 200 OK") == 1
    peer = Peer(answer_at_once).send(data[:head_size])
    assert peer.take_sent() == CONTINUE
    peer.send(*bytewise(data[head_size:]))
    assert peer.only_answer().json["body"] == "hello"


def test_100_continue_waits_for_the_answers_before_it() -> None:
    data = request_bytes(b"hello", "Expect: 100-continue")
    peer = Peer().send(request_bytes(b"first"), data[:-5])
    assert peer.take_sent() == b""
    peer.answer(peer.requests[0])
    sent = peer.take_sent()
    assert sent.startswith(b"HTTP/1.1 200 OK")
    assert sent.endswith(CONTINUE)
    peer.send(b"hello")
    assert peer.requests[1].body == b"hello"


def test_100_continue_is_not_sent_when_the_client_did_not_wait() -> None:
    peer = Peer().send(request_bytes(b"first"), request_bytes(b"hello", "Expect: 100-continue")[:-5], b"he")
    peer.answer(peer.requests[0])
    peer.send(b"llo")
    peer.answer(peer.requests[1])
    assert len(peer.answers()) == 2
    assert CONTINUE not in peer.take_sent()


@pytest.mark.parametrize("field", ["Content-Length: 1001", "Content-Length: x", "Transfer-Encoding: gzip, chunked"])
def test_100_continue_is_not_sent_to_a_request_that_is_refused(field: str) -> None:
    peer = Peer(limits=LIMITS).send(f"POST / HTTP/1.1\r\nExpect: 100-continue\r\n{field}\r\n\r\n".encode())
    assert peer.only_answer().status in (400, 413, 501)


def test_100_continue_is_not_for_http_1_0() -> None:
    assert Peer().send(request_bytes(b"b", "Expect: 100-continue", line="POST / HTTP/1.0")[:-1]).take_sent() == b""


# Encodings

ZEROS = bytes(10 << 20)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(b"a" * 1000, mtime=0), 200),
        ("deflate", zlib.compress(b"a" * 1000), 200),
        ("GZIP", gzip.compress(b"a" * 1000, mtime=0), 200),
        ("gzip", gzip.compress(b"a" * 1001, mtime=0), 413),
        ("gzip", gzip.compress(ZEROS, mtime=0)[:900], 413),
        ("gzip", gzip.compress(b"a" * 1000, mtime=0)[:-1], 400),
        ("deflate", b"\xff" * 20, 400),
        ("br", b"x", 415),
        ("gzip, gzip", b"x", 415),
    ],
)
def test_encoded_bodies(encoding: str, body: bytes, status: int) -> None:
    """The message has been read whole, so the connection goes on."""
    for data in (
        request_bytes(body, f"Content-Encoding: {encoding}"),
        chunked_request(chunked(body), f"Content-Encoding: {encoding}"),
    ):
        peer = Peer(answer_at_once, LIMITS).send(data)
        answer = peer.only_answer()
        assert answer.status == status
        assert answer.json.get("body", "a" * 1000) == "a" * 1000
        peer.requests.clear()
        assert peer.send(request_bytes(b"next")).only_answer().json["body"] == "next"


@pytest.mark.parametrize(
    ("accepts", "is_compressed"), [("gzip, deflate", True), ("gzip;q=0", False), ("br", False), (None, False)]
)
def test_long_answers_are_compressed_for_those_who_ask_and_vary_for_all(accepts: str | None, is_compressed: bool) -> None:
    fields = [] if accepts is None else [f"Accept-Encoding: {accepts}"]
    answer = Peer(answering(200, json.dumps(LONG).encode(), "application/json")).send(request_bytes(b"", *fields)).only_answer()
    assert answer.fields.get("content-encoding") == ("gzip" if is_compressed else None)
    assert answer.fields["vary"] == "accept-encoding"
    assert json.loads(gzip.decompress(answer.body) if is_compressed else answer.body) == LONG


def test_short_answers_are_sent_as_they_are() -> None:
    answer = Peer(answer_at_once).send(request_bytes(b"", "Accept-Encoding: gzip")).only_answer()
    assert "content-encoding" not in answer.fields
    assert "vary" not in answer.fields


@pytest.mark.parametrize("fields", [(), ("Accept-Encoding: gzip",)])
def test_head_gets_the_head_that_get_would_get(fields: tuple[str, ...]) -> None:
    for size in (1, 1000, 5000, 100_000):
        app = answering(200, b"1" * size)
        expected = Peer(app).send(request_bytes(b"", *fields, line="GET / HTTP/1.1")).only_answer()
        peer = Peer(app).send(request_bytes(b"", *fields, line="HEAD / HTTP/1.1"))
        assert peer.transport.sent.endswith(b"\r\n\r\n")
        answer = peer.only_answer()
        assert answer.body == b""
        for name in ("content-length", "content-encoding", "content-type", "vary"):
            assert answer.fields.get(name) == expected.fields.get(name)


# What an app does


@pytest.mark.parametrize("status", [200, 299, 404, 424, 499, 599])
def test_any_status_is_well_formed(status: int) -> None:
    assert Peer(answering(status, b"{}")).send(request_bytes()).only_answer().status == status


@pytest.mark.parametrize(
    "error", [ValueError("secret"), RecursionError(), KeyError("x"), UnicodeDecodeError("ascii", b"", 0, 1, "")]
)
def test_an_exception_of_the_app_is_a_500_that_says_nothing_and_the_connection_goes_on(error: Exception) -> None:
    def app(request: Request) -> None:
        raise error

    peer = Peer(app).send(request_bytes(b"1"), request_bytes(b"2"))
    answers = peer.answers()
    assert [answer.status for answer in answers] == [500, 500]
    assert b"secret" not in answers[0].body
    assert not peer.transport.is_closed


def test_an_error_with_a_place_in_the_table_has_its_status() -> None:
    def app(request: Request) -> None:
        raise InvalidArgument("no \ud800 such input")

    answer = Peer(app).send(request_bytes()).only_answer()
    assert answer.status == 400
    assert answer.json == {"error": "no ? such input"}


def test_an_exception_behind_the_answer_changes_nothing() -> None:
    def app(request: Request) -> None:
        answer_at_once(request)
        raise ValueError

    assert Peer(app).send(request_bytes()).only_answer().status == 200


@pytest.mark.parametrize("content_type", ["text/plain\r\nx-injected: 1", "text/\N{SNOWMAN}", "", "\0", "x" * 1000])
def test_no_content_type_can_break_an_answer_or_the_next(content_type: str) -> None:
    answers = Peer(answering(200, b"1", content_type)).send(request_bytes() * 2).answers()
    assert [answer.body for answer in answers] == [b"1", b"1"]
    assert all("x-injected" not in answer.fields for answer in answers)


# Request ids


def test_a_printable_request_id_comes_back_and_others_are_replaced() -> None:
    def id_for(value: str) -> str:
        return Peer(answer_at_once).send(request_bytes(b"", f"X-Request-Id: {value}")).only_answer().fields["x-request-id"]

    assert id_for("client-7/a b") == "client-7/a b"
    for value in ("", "a" * 129, "\xe9", "a\tb"):
        assert id_for(value) not in ("", value)


def test_generated_request_ids_differ() -> None:
    answers = Peer(answer_at_once).send(request_bytes() * 50).answers()
    assert len({answer.fields["x-request-id"] for answer in answers}) == 50


@pytest.mark.parametrize("value", [b"a\r\nx-injected: 1", b"a\nx-injected: 1", b"a\rx-injected: 1", b"a\0"])
def test_no_line_can_be_injected_through_a_request_id(value: bytes) -> None:
    peer = Peer(answer_at_once).send(b"GET / HTTP/1.1\r\nX-Request-Id: " + value + b"\r\n\r\n")
    assert "x-injected" not in peer.only_answer().fields
