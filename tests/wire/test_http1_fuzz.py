"""Whatever comes in, in whatever segments: no exception leaves the connection, every answer is HTTP, and cuts do not matter."""

from __future__ import annotations

import gzip

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.wire.server import Limits
from tests.wire.peer import CONTINUE, Peer, answer_at_once, chunked, chunked_request, request_bytes

LIMITS = Limits(max_head_bytes=300, max_body_bytes=200)
VALID = [
    request_bytes(b'{"instances": [1]}'),
    request_bytes(b"", "X-Request-Id: a"),
    b"GET /g?a=b HTTP/1.1\r\nHost: h\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    request_bytes(b"x", "Connection: keep-alive", line="POST /old HTTP/1.0"),
    request_bytes(b"last", "Connection: close"),
    chunked_request(chunked(b"hello", b"world")),
    chunked_request(chunked(b"a", trailers=b"A: b\r\n"), "Accept-Encoding: gzip"),
    request_bytes(b"hello", "Expect: 100-continue"),
    request_bytes(gzip.compress(b"zipped", mtime=0), "Content-Encoding: gzip"),
    request_bytes(gzip.compress(bytes(1000), mtime=0), "Content-Encoding: gzip"),
    request_bytes(b"x" * 201),
    b"\r\n",
]
PIECES = [b"\r\n", b"\n", b"\0", b" ", b"\t", b":", b"\xff", b"0", b"5", b"-", b"chunked", b"Content-Length: 3\r\n", b"\r\n\r\n"]

requests = st.lists(st.sampled_from(VALID), min_size=1, max_size=4).map(b"".join)
places = st.lists(st.integers(0, 1200), max_size=6)
mutations = st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 3), st.sampled_from(PIECES)), max_size=3)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    ends = sorted(min(place, len(data)) for place in at)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def mutate(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, removed, inserted in changes:
        at %= len(data) + 1
        data = data[:at] + inserted + data[at + removed :]
    return data


def exchange(segments: list[bytes]) -> list[tuple[int, bytes]]:
    """The answers to `segments` and the end of the data: each well-formed, none to a request that was not there."""
    peer = Peer(answer_at_once, LIMITS).send(*segments)
    with peer.turns.running():
        peer.protocol.check_progress(1e12)
    peer.send_end()
    sent = peer.take_sent().replace(CONTINUE, b"")
    peer.transport.sent += sent
    answers = peer.answers()
    assert peer.has_ended
    assert all(200 <= answer.status < 600 for answer in answers)
    assert len(peer.requests) <= len(answers)
    peer.lose()
    return [(answer.status, answer.body) for answer in answers]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes(segments: list[bytes]) -> None:
    exchange(segments)


@settings(max_examples=200, deadline=None)
@given(requests, mutations, places)
def test_mutated_requests_give_the_same_answers_however_they_are_cut(
    data: bytes, changes: list[tuple[int, int, bytes]], at: list[int]
) -> None:
    data = mutate(data, changes)
    whole = exchange([data])
    assert [status for status, _ in exchange(cut(data, at))] == [status for status, _ in whole]


@settings(max_examples=150, deadline=None)
@given(requests, places)
def test_valid_requests_give_the_same_answers_to_the_letter_however_they_are_cut(data: bytes, at: list[int]) -> None:
    assert exchange(cut(data, at)) == exchange([data])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(VALID[:3]), min_size=1, max_size=8), st.data())
def test_answers_out_of_order_between_pauses(parts: list[bytes], data: st.DataObject) -> None:
    peer = Peer(limits=LIMITS).send(*cut(b"".join(parts), data.draw(places)))
    assert len(peer.requests) == len(parts)
    expected = [request.body for request in peer.requests]
    for index in data.draw(st.permutations(range(len(parts)))):
        if data.draw(st.booleans()):
            peer.protocol.pause_writing()
        peer.answer(peer.requests[index])
        with peer.turns.running():
            peer.protocol.resume_writing()
    assert [answer.json["body"].encode() for answer in peer.answers()] == expected
