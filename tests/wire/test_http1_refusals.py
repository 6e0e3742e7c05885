"""What is not a request, or too much of one: the right status, the connection ended, nothing of it taken for another request."""

from __future__ import annotations

import pytest

from penstock.wire.server import Limits
from tests.wire.peer import Peer, answer_at_once, bytewise, chunked, chunked_request, cuts, request_bytes

LIMITS = Limits(max_head_bytes=1000, max_body_bytes=1000)
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


def refusal(*segments: bytes) -> int:
    """The status of the only answer; the connection ends, and what follows is neither answered nor taken."""
    peer = Peer(answer_at_once, LIMITS).send(*segments, SMUGGLED)
    answer = peer.only_answer()
    assert answer.fields["connection"] == "close"
    assert answer.json["error"]
    assert peer.has_ended
    assert peer.requests == []
    return answer.status


def post(*fields: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: h", *fields, b"", b""])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post(b"Content-Length: 6", b"Transfer-Encoding: chunked") + b"0\r\n\r\nX", 400),
        (post(b"Transfer-Encoding: chunked", b"Content-Length: 6") + b"0\r\n\r\nX", 400),
        (post(b"Content-Length: 1", b"Content-Length: 2") + b"xx", 400),
        (post(b"Content-Length: 1", b"Content-Length: 1") + b"x", 400),
        (post(b"Content-Length: +1") + b"x", 400),
        (post(b"Content-Length: -1") + b"x", 400),
        (post(b"Content-Length: 1 1") + b"x", 400),
        (post(b"Content-Length: 1,1") + b"x", 400),
        (post(b"A: b", b" folded") + b"x", 400),
        (post(b"A: b\nContent-Length: 1") + b"x", 400),
        (post(b"A: \0"), 400),
        (post(b"Transfer-Encoding: gzip, chunked"), 501),
        (post(b"Transfer-Encoding: chunked, chunked"), 400),
        (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (chunked_request(b"g\r\n"), 400),
        (chunked_request(b"5;\n\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked_request(b"5\r\nhello!\r\n0\r\n\r\n"), 400),
        (chunked_request(b"3e9\r\n"), 413),
        (chunked_request(chunked(b"a" * 600, b"b" * 600)), 413),
        (chunked_request(b"0\r\nA: b\nC: d\r\n\r\n"), 400),
        (post(b"Content-Length: 1001"), 413),
        (post(b"Content-Length: 1073741824"), 413),
        (post(b"A: " + b"x" * 1000), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), 400),
        (b"HTTP/1.1 200 OK\r\n\r\n", 400),
        (b"SSH-2.0-client\r\n", 400),
        (b"\xff" * 500, 400),
    ],
)
def test_the_refusal_is_the_same_however_the_request_is_cut(data: bytes, status: int) -> None:
    assert refusal(data) == status
    assert refusal(*bytewise(data)) == status
    for first, second in cuts(data):
        assert refusal(first, second) == status


def test_a_length_over_the_limit_is_refused_before_the_body_comes() -> None:
    peer = Peer().send(post(b"Content-Length: 1073741824"))
    assert peer.only_answer().status == 413


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"\0", b"SSH-2"])
def test_other_protocols_are_refused_at_their_first_bytes(data: bytes) -> None:
    peer = Peer().send(data)
    assert peer.only_answer().status == 400
    assert peer.has_ended


@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_head_does_not_depend_on_where_it_is_cut(excess: int) -> None:
    head = b"GET / HTTP/1.1\r\nA: "
    head += b"x" * (LIMITS.max_head_bytes + excess - len(head)) + b"\r\n\r\n"
    for segments in ([head], bytewise(head), *map(list, cuts(head))):
        answer = Peer(answer_at_once, LIMITS).send(*segments).only_answer()
        assert answer.status == (431 if excess else 200)


def test_empty_lines_before_a_request_are_skipped_and_not_kept() -> None:
    peer = Peer(answer_at_once, LIMITS)
    for _ in range(50):
        peer.send(b"\r\n" * 100)
    assert peer.take_sent() == b""
    assert peer.send(request_bytes(b"x")).only_answer().json["body"] == "x"


def test_requests_before_the_broken_one_are_answered_first() -> None:
    peer = Peer().send(request_bytes(b"1") + request_bytes(b"2") + b"\0")
    assert peer.take_sent() == b""
    for request in list(reversed(peer.requests)):
        peer.answer(request)
    assert [answer.status for answer in peer.answers()] == [200, 200, 400]
    assert peer.has_ended


def test_a_client_that_still_sends_can_read_the_refusal() -> None:
    """Closing with bytes unread resets the connection, and a reset overtakes the answer: the server listens on, for a while."""
    peer = Peer(limits=LIMITS).send(post(b"Content-Length: 100000"), b"x" * 5000)
    assert peer.only_answer().status == 413
    assert (peer.transport.has_sent_end, peer.transport.is_closed) == (True, False)
    peer.send(b"x" * 5000)
    assert peer.transport.reads
    peer.send_end()
    assert peer.transport.is_closed


def test_a_connection_that_ends_normally_is_closed_at_once() -> None:
    peer = Peer(answer_at_once).send(request_bytes(b"", "Connection: close"))
    assert peer.transport.is_closed
