"""Many requests, slow clients, slow readers, draining: every wait has an end, every queue a bound, nothing is lost."""

from __future__ import annotations

import sys
import time

import pytest

from penstock.api.router import Handler, Router
from penstock.errors import NotFound
from penstock.wire.request import Request, Response
from penstock.wire.server import HttpServer, Limits
from tests.wire.peer import Peer, answer_at_once, chunked, chunked_request, describe, request_bytes

LIMITS = Limits(max_head_bytes=1000, max_body_bytes=10_000_000)


def numbered(count: int, *, is_chunked: bool = False) -> bytes:
    if is_chunked:
        return b"".join(chunked_request(chunked(b"%d" % number)) for number in range(count))
    return b"".join(request_bytes(b"%d" % number) for number in range(count))


def bodies(peer: Peer) -> list[int]:
    return [int(answer.json["body"]) for answer in peer.answers()]


def sweep(peer: Peer, after_s: float) -> None:
    """What `HttpServer.sweep` does, `after_s` from now."""
    with peer.turns.running():
        peer.protocol.check_progress(time.monotonic() + after_s)
    peer.run()


def trickle(peer: Peer, monkeypatch: pytest.MonkeyPatch, data: bytes, seconds_each: float) -> None:
    """Sends `data` byte by byte with a sweep after each, on a clock of its own."""
    now = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        patch.setattr(time, "monotonic_ns", lambda: int(now * 1e9))
        for at in range(len(data)):
            peer.send(data[at : at + 1])
            now += seconds_each
            peer.protocol.check_progress(now)


# Pipelining


@pytest.mark.parametrize("is_chunked", [False, True])
def test_thousands_of_pipelined_requests_are_answered_in_turns_and_without_recursion(is_chunked: bool) -> None:
    depths: set[int] = set()

    def app(request: Request) -> None:
        frame, depth = sys._getframe(), 0
        while frame.f_back is not None:
            frame, depth = frame.f_back, depth + 1
        depths.add(depth)
        answer_at_once(request)

    peer = Peer(app).send(numbered(5000, is_chunked=is_chunked))
    assert bodies(peer) == list(range(5000))
    assert max(depths) - min(depths) < 10
    assert peer.turns_taken >= 5000 // 64
    assert peer.transport.reads


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_client_that_pipelines_too_many_waits_and_loses_nothing(is_chunked: bool) -> None:
    peer = Peer()
    data = numbered(1000, is_chunked=is_chunked)
    peer.send(*(data[at : at + 777] for at in range(0, len(data), 777)))
    most = 0
    for number in range(1000):
        most = max(most, len(peer.requests) - number)
        assert not (len(peer.requests) - number >= 64 and peer.transport.reads)
        peer.answer(peer.requests[number])
    assert most == 64
    assert bodies(peer) == list(range(1000))
    assert peer.transport.reads


def test_a_client_that_pipelines_too_many_and_half_closes_gets_all_answers() -> None:
    peer = Peer().send(numbered(300)).send_end()
    for number in range(300):
        peer.answer(peer.requests[number])
    assert bodies(peer) == list(range(300))
    assert peer.transport.is_closed


def test_requests_that_wait_in_the_server_are_not_late_when_it_takes_them() -> None:
    """The rest of a head that the server itself did not read in time is not a slow head."""
    peer = Peer(limits=LIMITS).send(numbered(65) + b"GET /last HT")
    for request in list(peer.requests):
        peer.answer(request)
    peer.answer(peer.requests[64])
    sweep(peer, LIMITS.head_timeout_s - 1)
    assert peer.send(b"TP/1.1\r\n\r\n").requests[-1].head.path == "/last"


def test_large_bodies_are_not_pipelined() -> None:
    """Bodies stay in memory until they are answered; 64 of the largest would be too many."""
    large = request_bytes(bytes(2 << 20))
    peer = Peer(limits=LIMITS).send(large, large, request_bytes(b"last"))
    assert len(peer.requests) == 1
    peer.answer(peer.requests[0], Response(200, b"1"))
    assert len(peer.requests) == 2
    peer.answer(peer.requests[1], Response(200, b"2"))
    peer.answer(peer.requests[2], Response(200, b"3"))
    assert [answer.body for answer in peer.answers()] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("size", [65_535, 65_536, 400_000])
@pytest.mark.parametrize("segment", [1000, 65_536, 1 << 20])
def test_a_large_body_is_whole_and_what_follows_is_a_request(size: int, segment: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    data = request_bytes(body) + request_bytes(b"next") + request_bytes(body)
    peer = Peer(answer_at_once, limits=LIMITS).send(*[data[at : at + segment] for at in range(0, len(data), segment)])
    assert [request.body for request in peer.requests] == [body, b"next", body]
    assert len(peer.answers()) == 3


# Slow readers


def test_a_client_that_does_not_read_is_not_read_from_and_goes_on_when_it_reads() -> None:
    peer = Peer(answer_at_once)
    peer.transport.on_write = lambda size: peer.protocol.pause_writing()
    peer.send(numbered(10))
    assert bodies(peer) == [0]
    assert not peer.transport.reads
    for number in range(1, 10):
        with peer.turns.running():
            peer.protocol.resume_writing()
        assert bodies(peer.run()) == [number]
        peer.requests.clear()
    with peer.turns.running():
        peer.protocol.resume_writing()
    assert peer.run().transport.reads


def test_a_slow_reader_in_the_middle_of_a_body_goes_on() -> None:
    peer = Peer(limits=LIMITS).send(request_bytes(b"first"), request_bytes(b"second")[:-3])
    peer.protocol.pause_writing()
    peer.send(b"ond")
    assert len(peer.requests) == 1
    with peer.turns.running():
        peer.protocol.resume_writing()
    peer.run()
    assert [request.body for request in peer.requests] == [b"first", b"second"]


def test_a_client_that_reads_nothing_for_too_long_is_cut_off() -> None:
    peer = Peer(answer_at_once, LIMITS).send(request_bytes())
    peer.transport.unsent = 100_000
    peer.protocol.pause_writing()
    sweep(peer, LIMITS.progress_timeout_s - 1)
    assert not peer.transport.is_closed
    sweep(peer, LIMITS.progress_timeout_s + 1)
    assert peer.transport.is_aborted


@pytest.mark.parametrize(("bytes_per_s", "survives"), [(100_000, True), (100, False)])
def test_a_large_answer_may_take_long_when_it_is_read_fast_enough(bytes_per_s: int, survives: bool) -> None:
    peer = Peer(answer_at_once, LIMITS).send(request_bytes())
    peer.transport.unsent = 50_000_000
    peer.protocol.pause_writing()
    for second in range(1, 100):
        peer.transport.unsent -= bytes_per_s
        sweep(peer, second)
    assert peer.transport.is_aborted is not survives


def test_a_client_that_never_reads_the_last_answer_is_cut_off() -> None:
    peer = Peer(answer_at_once, LIMITS).send(request_bytes(b"", "Connection: close"))
    peer.transport.unsent = 1000
    assert not peer.transport.is_aborted
    sweep(peer, 1)
    sweep(peer, LIMITS.progress_timeout_s + 1)
    assert peer.transport.is_aborted


# Slow senders


def test_a_slow_head_is_408() -> None:
    peer = Peer(limits=LIMITS).send(b"GET / HT")
    sweep(peer, LIMITS.head_timeout_s - 1)
    assert peer.take_sent() == b""
    sweep(peer, LIMITS.head_timeout_s + 1)
    assert peer.only_answer().status == 408
    assert peer.has_ended


def test_a_trickled_head_is_408_too(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(limits=LIMITS)
    trickle(peer, monkeypatch, request_bytes()[:-1], 1)
    assert peer.only_answer().status == 408


@pytest.mark.parametrize("data", [request_bytes(b"x" * 1000)[:-500], chunked_request(b"3e8\r\nxxx")])
def test_a_body_that_stops_is_408(data: bytes) -> None:
    peer = Peer(limits=LIMITS).send(data)
    sweep(peer, LIMITS.progress_timeout_s - 1)
    assert peer.take_sent() == b""
    sweep(peer, LIMITS.progress_timeout_s + 1)
    assert peer.only_answer().status == 408


@pytest.mark.parametrize(
    ("start", "rest"),
    [(request_bytes(bytes(9_000_000))[:-9_000_000], b"x" * 200), (chunked_request(b"895440\r\n"), b"x" * 200)],
)
def test_a_trickled_body_is_408_whatever_it_announces(start: bytes, rest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(limits=LIMITS).send(start)
    trickle(peer, monkeypatch, rest, 1)
    assert peer.only_answer().status == 408


def test_a_body_that_comes_at_the_lowest_rate_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(min_bytes_per_s=1)
    peer = Peer(answer_at_once, limits).send(request_bytes(b"x" * 200)[:-200])
    trickle(peer, monkeypatch, b"x" * 200, 1)
    assert peer.only_answer().status == 200


def test_time_for_a_body_begins_when_the_client_is_told_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(limits=LIMITS).send(request_bytes(b"1"), request_bytes(b"hello", "Expect: 100-continue")[:-5])
    later = time.monotonic() + 1000
    monkeypatch.setattr(time, "monotonic", lambda: later)
    peer.protocol.check_progress(later)
    peer.answer(peer.requests[0])
    peer.protocol.check_progress(later + 1)
    assert peer.send(b"hello").requests[-1].body == b"hello"


def test_an_idle_connection_is_closed_without_a_word() -> None:
    for used in (False, True):
        peer = Peer(answer_at_once, LIMITS)
        if used:
            peer.send(request_bytes()).take_sent()
        sweep(peer, LIMITS.idle_timeout_s - 1)
        assert not peer.transport.is_closed
        sweep(peer, LIMITS.idle_timeout_s + 1)
        assert peer.transport.is_closed
        assert peer.take_sent() == b""


def test_empty_lines_do_not_make_the_next_request_late(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(answer_at_once, LIMITS).send(b"\r\n")
    now = time.monotonic() + LIMITS.head_timeout_s + 5
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "monotonic_ns", lambda: int(now * 1e9))
    peer.send(request_bytes()[:5])
    peer.protocol.check_progress(now)
    peer.send(request_bytes()[5:])
    assert peer.only_answer().status == 200
    assert peer.requests[0].first_byte_ns == int(now * 1e9)


def test_a_request_that_the_app_has_may_take_any_time() -> None:
    peer = Peer(limits=LIMITS).send(request_bytes())
    sweep(peer, 1e6)
    peer.answer(peer.requests[0])
    assert peer.only_answer().status == 200


def test_a_refused_client_that_stays_is_closed_after_a_while() -> None:
    peer = Peer(limits=LIMITS).send(b"\0")
    assert not peer.transport.is_closed
    for _ in range(10):
        peer.send(b"more")
    sweep(peer, 4)
    assert not peer.transport.is_closed
    sweep(peer, 6)
    assert peer.transport.is_closed


def test_sweep_looks_at_all_connections_and_renews_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(limits=LIMITS)
    later = time.monotonic() + 1000
    monkeypatch.setattr(time, "monotonic", lambda: later)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    peer.server.sweep()
    assert peer.transport.is_closed
    assert peer.server.last_lines == b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"


# Draining


def test_draining_closes_idle_connections() -> None:
    peer = Peer()
    peer.server.drain()
    assert peer.transport.is_closed


@pytest.mark.parametrize("size", [1, 30, -8, -1])
def test_draining_lets_a_request_that_is_arriving_finish(size: int) -> None:
    data = request_bytes(b"hello")
    peer = Peer(answer_at_once).send(data[:size])
    peer.server.drain()
    assert not peer.transport.is_closed
    answer = peer.send(data[size:]).only_answer()
    assert answer.json["body"] == "hello"
    assert answer.fields["connection"] == "close"
    assert peer.has_ended


def test_draining_lets_requests_under_way_finish_and_takes_no_more() -> None:
    peer = Peer().send(numbered(3))
    peer.server.drain()
    peer.send(request_bytes(b"3"))
    for request in reversed(list(peer.requests)):
        peer.answer(request)
    answers = peer.answers()
    assert [answer.json["body"] for answer in answers] == ["0", "1", "2"]
    assert [answer.fields.get("connection") for answer in answers] == [None, None, "close"]
    assert peer.has_ended


def test_draining_closes_a_connection_that_only_listens_on() -> None:
    peer = Peer().send(b"\0")
    peer.server.drain()
    assert peer.transport.is_closed


def test_draining_ends_a_connection_whose_requests_wait() -> None:
    peer = Peer().send(numbered(200))
    peer.server.drain()
    answered = 0
    while answered < len(peer.requests):
        peer.answer(peer.requests[answered])
        answered += 1
    answers = peer.answers()
    assert [int(answer.json["body"]) for answer in answers] == list(range(answered))
    assert answers[-1].fields["connection"] == "close"
    assert peer.has_ended


# Behind the router


class _Api:
    def match(self, method: str, path: str) -> Handler | None:
        if path == "/match":
            raise ValueError("secret")
        return {"/ok": answer_at_once, "/raise": self._raise, "/known": self._known}.get(path)

    def _raise(self, request: Request) -> None:
        raise ValueError("secret")

    def _known(self, request: Request) -> None:
        raise NotFound("no such model")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /ok", 200),
        ("HEAD /ok", 200),
        ("GET http://host/ok", 200),
        ("GET /raise", 500),
        ("GET /match", 500),
        ("GET /known", 404),
        ("GET /other", 404),
        ("GET /%00%ff", 404),
        ("OPTIONS *", 200),
    ],
)
def test_whatever_happens_behind_the_router_the_connection_goes_on(line: str, status: int) -> None:
    peer = Peer(Router([_Api()], allows_cors=True).dispatch).send(request_bytes(line=f"{line} HTTP/1.1"))
    answer = peer.only_answer()
    assert answer.status == status
    assert b"secret" not in answer.body
    peer.requests.clear()
    assert peer.send(request_bytes(line="GET /ok HTTP/1.1")).only_answer().status == 200


def test_fields_of_the_server_are_in_every_answer() -> None:
    server = HttpServer(lambda request: request.answer(describe(request)), Limits(), b"x-all: 1\r\n")
    assert Peer(server=server).send(request_bytes()).only_answer().fields["x-all"] == "1"
    assert Peer(server=server).send(b"\0").only_answer().fields["x-all"] == "1"
