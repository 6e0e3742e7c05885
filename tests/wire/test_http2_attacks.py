"""What clients may do to HTTP/2: memory stays bounded, they lose their stream or their connection, and nobody else notices."""

from __future__ import annotations

import itertools
import random
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import grpc
import psutil
import pytest

from penstock.wire import http2
from tests.servers import wait_until
from tests.wire.grpc_peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    call,
    frame,
    head,
    literal,
    message,
    peers,
    request_fields,
    reset,
    settings,
    window_update,
)

pytestmark = [
    pytest.mark.xdist_group("http2_attacks"),
    pytest.mark.skipif(not http2.is_there(), reason="there is no libnghttp2 here"),
]
#: Of a server that is attacked: what it may need more than before, unless a test says otherwise.
_SPARE_BYTES = 32 << 20
#: Of address space: what fails here must not take the machine with it.
_MOST_BYTES = 4 << 30
#: How late another client's answer may be. Far above what is usual: the machine has other work too.
_LATE_S = 1.0
_PROGRESS_S = 1.5
_WAIT, _COUNT, _CHAT, _HOLD = (f"/test.Test/{name}" for name in ("Wait", "Count", "Chat", "Hold"))


class AttackedServer:
    """A server in a process of its own, with short time-outs."""

    def __init__(self) -> None:
        command = f"from tests.e2e.grpc_transports import serve_until_closed; serve_until_closed({_PROGRESS_S})"
        limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({_MOST_BYTES}, {_MOST_BYTES})); {command}"
        line = [sys.executable, "-X", "faulthandler", "-c", limited]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._info = psutil.Process(self._process.pid)

        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            for _ in range(200):
                channel.unary_unary("/test.Test/Echo")(b"x" * 10_000, timeout=10)

    @property
    def exit_code(self) -> int | None:
        """None while it lives."""
        return self._process.poll()

    def held_bytes(self) -> int:
        return int(self._info.memory_info().rss) if self.exit_code is None else 0

    def connections(self) -> int:
        return len([one for one in self._info.net_connections() if one.status == psutil.CONN_ESTABLISHED])

    def processor_s(self) -> float:
        times = self._info.cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Keeper:
    """Has a server for each test, the same one as long as it lives."""

    def __init__(self) -> None:
        self._server: AttackedServer | None = None

    def server(self) -> AttackedServer:
        if self._server is None or self._server.exit_code is not None:
            self.close()
            self._server = AttackedServer()
        return self._server

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


@pytest.fixture(scope="module")
def keeper() -> Iterator[_Keeper]:
    one = _Keeper()
    yield one
    one.close()


@pytest.fixture
def server(keeper: _Keeper) -> Iterator[AttackedServer]:
    """After each test it lives still, and no connection is left."""
    running = keeper.server()
    yield running
    assert running.exit_code is None, f"the server has ended with {running.exit_code}"
    wait_until(lambda: running.exit_code is not None or running.connections() == 0, "the end of all connections", 10)


class _Bystander:
    """Another client, that calls all the time. `slowest_s` is the longest that it has waited."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.use_local_subchannel_pool", 1),))
        self._echo = self._channel.unary_unary("/test.Test/Echo")
        self._echo(b"x", timeout=10)
        self._is_done = threading.Event()
        self.slowest_s = 0.0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._call, daemon=True)
        self._thread.start()

    def _call(self) -> None:
        while not self._is_done.wait(0.005):
            began = time.monotonic()
            try:
                assert self._echo(b"hello", timeout=10) == b"hello"
            except Exception as error:
                self.error = error
                return
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def close(self) -> None:
        self._is_done.set()
        self._thread.join(20)
        self._channel.close()


@contextmanager
def nobody_else_notices(server: AttackedServer, spare_bytes: int = _SPARE_BYTES, late_s: float = _LATE_S) -> Iterator[None]:
    """Around an attack: another client's calls go on, and the server's memory does not grow by more, at any time."""
    before = server.held_bytes()
    most = 0
    is_done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_done.wait(0.01):
            most = max(most, server.held_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    bystander = _Bystander(server.port)
    try:
        yield
    finally:
        is_done.set()
        watcher.join(5)
        bystander.close()
    assert server.exit_code is None, f"the server has ended with {server.exit_code}"
    assert bystander.error is None
    assert bystander.slowest_s < late_s, f"another client waited {bystander.slowest_s:.2f} s"
    assert most - before < spare_bytes, f"{(most - before) >> 20} MB more"


def _streams(count: int, first: int = 1) -> Iterator[int]:
    return itertools.islice(itertools.count(first, 2), count)


# Streams


@pytest.mark.parametrize("what", ["heads", "calls", "calls that wait"])
def test_ten_thousand_streams_that_are_opened_and_reset(server: AttackedServer, what: str) -> None:
    def opened(stream: int) -> bytes:
        if what == "heads":
            return head(stream)
        return call(stream, path="/test.Test/Echo" if what == "calls" else _WAIT)

    with nobody_else_notices(server), Peer(server.port) as peer:
        for stream in _streams(10_000):
            if not peer.send(opened(stream), reset(stream)):
                break
        goodbye = peer.end()
    assert goodbye is None or goodbye.error != 0


def test_streams_that_the_server_is_made_to_reset(server: AttackedServer) -> None:
    with nobody_else_notices(server), Peer(server.port) as peer:
        for stream in _streams(10_000):
            if not peer.send(head(stream), window_update(stream, 0)):
                break
        goodbye = peer.end()
    assert goodbye is None or goodbye.error != 0


def test_streams_above_the_limit_are_refused_and_those_before_them_go_on(server: AttackedServer) -> None:
    with nobody_else_notices(server), Peer(server.port) as peer:
        streams = list(_streams(http2.MAX_STREAMS + 1))
        assert peer.send(*(call(stream, path=_WAIT) for stream in streams))
        refused = peer.wait_for(RST_STREAM)
        assert (refused.stream, refused.error) == (streams[-1], 7)
        assert peer.send(reset(1), call(streams[-1] + 2))
        assert peer.fields(streams[-1] + 2)[b"grpc-status"] == b"0"


@pytest.mark.parametrize("first", [b"", b"\0", message(bytes(1000))[:700]], ids=["nothing", "a prefix", "half a message"])
def test_streams_that_are_left_open_end(server: AttackedServer, first: bytes) -> None:
    with nobody_else_notices(server), Peer(server.port) as peer:
        streams = set(_streams(200))
        assert peer.send(*(head(stream) + (frame(DATA, 0, stream, first) if first else b"") for stream in streams))
        ended: set[int] = set()
        for one in peer.frames():
            if (one.kind == HEADERS and one.flags & END_STREAM) or one.kind == RST_STREAM:
                ended.add(one.stream)
            if ended == streams:
                break
        assert ended == streams


def test_connections_that_open_nothing_end(server: AttackedServer) -> None:
    with nobody_else_notices(server, spare_bytes=64 << 20), peers(server.port, 200) as opened:
        for peer in opened:
            assert peer.end(timeout_s=10) is not None


# Heads


def _big_head(stream: int, size: int, count: int) -> bytes:
    """A head that puts a field of `size` into the table, and names it `count` times, for one byte each."""
    kept = literal(b"x-big", b"a" * size, is_kept=True)
    return frame(HEADERS, END_HEADERS, stream, request_fields() + kept + b"\xbe" * count)


@pytest.mark.parametrize("count", [15, 100, 10_000])
def test_heads_that_grow_when_they_are_read(server: AttackedServer, count: int) -> None:
    """At most as many bytes are kept of each as our settings allow."""
    with nobody_else_notices(server, spare_bytes=48 << 20), Peer(server.port) as peer:
        for stream in _streams(1000):
            if not peer.send(_big_head(stream, 4000, count)):
                break
        time.sleep(0.5)


def test_a_head_without_end(server: AttackedServer) -> None:
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(head(1, flags=0))
        block = b"".join(literal(b"x-%d" % index, b"a" * 100) for index in range(100))
        assert not peer.flood(frame(CONTINUATION, 0, 1, block), 10_000)


@pytest.mark.parametrize("block", [b"", b"\x82"], ids=["empty", "one byte"])
def test_a_head_of_endlessly_many_small_frames(server: AttackedServer, block: bytes) -> None:
    began = server.processor_s()
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(head(1, flags=0))
        assert not peer.flood(frame(CONTINUATION, 0, 1, block), 1_000_000)
    assert server.processor_s() - began < 5


def test_many_heads_that_are_too_large(server: AttackedServer) -> None:
    extra = [(b"x-%d" % index, b"a" * 1000) for index in range(40)]
    block = request_fields(extra=extra)
    first, rest = block[:16_000], [block[at : at + 16_000] for at in range(16_000, len(block), 16_000)]
    with nobody_else_notices(server), Peer(server.port) as peer:
        for stream in _streams(500):
            pieces = [frame(CONTINUATION, END_HEADERS if one is rest[-1] else 0, stream, one) for one in rest]
            if not peer.send(frame(HEADERS, END_STREAM, stream, first), *pieces):
                break


# Frames that ask for an answer, and others that cost us something


@pytest.mark.parametrize(
    "data",
    [
        settings(),
        settings((INITIAL_WINDOW_SIZE, 65_535), (1, 0), (1, 4096)),
        frame(PING, 0, 0, bytes(8)),
        frame(PING, 1, 0, bytes(8)),
        frame(PRIORITY, 0, 1, bytes((0, 0, 0, 3, 16))),
        frame(DATA, 0, 1),
    ],
    ids=["empty settings", "settings", "ping", "ping answers", "priority", "empty data"],
)
@pytest.mark.parametrize("is_read", [False, True], ids=["answers are not read", "answers are read"])
def test_floods_of_small_frames_end_the_connection(server: AttackedServer, data: bytes, is_read: bool) -> None:
    began = server.processor_s()
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(head(1, _HOLD))
        reader = threading.Thread(target=_read_all, args=(peer,), daemon=True)
        if is_read:
            reader.start()
        peer.flood(data, 300_000)
        if not is_read:
            reader.start()
        reader.join(4)
        assert not reader.is_alive(), "the connection is open still"
    assert server.processor_s() - began < 5


@pytest.mark.parametrize(
    "data", [window_update(0, 1), window_update(1, 1), frame(0x42, 0, 0)], ids=["connection", "stream", "unknown frames"]
)
def test_window_updates_and_unknown_frames_are_no_flood_and_cost_little(server: AttackedServer, data: bytes) -> None:
    """A client that takes large answers in small pieces sends many of the former; the latter the protocol has us ignore."""
    began = server.processor_s()
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(head(1, _HOLD))
        assert peer.flood(data, 300_000)
        assert peer.send(call(3))
        assert peer.fields(3)[b"grpc-status"] == b"0"
    assert server.processor_s() - began < 2


def _read_all(peer: Peer) -> None:
    with suppress(OSError):
        for _ in peer.frames():
            pass


@pytest.mark.parametrize("number", [1, 100])
def test_settings_that_change_the_windows_of_many_streams(server: AttackedServer, number: int) -> None:
    """Each costs a step for each stream that is open."""
    began = server.processor_s()
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(*(call(stream, path=_WAIT) for stream in _streams(1000)))
        for index in range(number):
            peer.send(settings((INITIAL_WINDOW_SIZE, 65_535 + index % 2)))
        assert peer.send(reset(1), call(2001))
        assert peer.fields(2001)[b"grpc-status"] == b"0"
    assert server.processor_s() - began < 2


# Bodies


def test_data_that_never_ends(server: AttackedServer) -> None:
    """More than the message that was announced, or no message at all."""
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(head(1), frame(DATA, 0, 1, message(b"x")))
        peer.flood(frame(DATA, 0, 1, bytes(16_000)), 300)
        assert peer.wait_for(RST_STREAM, 1) is not None


@pytest.mark.parametrize("size", [(64 << 20) + 1, (4 << 30) - 1])
def test_a_message_that_claims_to_be_too_large_is_refused_at_once(server: AttackedServer, size: int) -> None:
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(head(1), frame(DATA, 0, 1, b"\0" + struct.pack(">I", size)))
        assert peer.fields(1)[b"grpc-status"] == b"8"


def test_messages_that_claim_to_be_large_cost_nothing_before_they_come(server: AttackedServer) -> None:
    with nobody_else_notices(server), Peer(server.port) as peer:
        claim = message(b"")[:1] + struct.pack(">I", 60 << 20) + b"x"
        assert peer.send(*(head(stream) + frame(DATA, 0, stream, claim) for stream in _streams(30)))
        time.sleep(0.5)


@pytest.mark.parametrize("padding", [255])
def test_data_that_is_mostly_padding_is_not_kept(server: AttackedServer, padding: int) -> None:
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(head(1), frame(DATA, 0, 1, b"\0" + struct.pack(">I", 10_000)))
        for _ in range(20_000):
            if not peer.send(frame(DATA, PADDED, 1, bytes((padding,)) + b"x" + bytes(padding))):
                break


def test_a_message_in_tiny_frames_costs_what_its_frames_cost(server: AttackedServer) -> None:
    began = server.processor_s()
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.settle()
        peer.send(head(1))
        assert all(peer.send(frame(DATA, 0, 1, bytes((byte,)))) for byte in message(bytes(65_000)))
        peer.send(frame(DATA, END_STREAM, 1))
        assert peer.fields(1)[b"grpc-status"] == b"0"
    assert server.processor_s() - began < 5


def test_a_stream_that_stops_within_a_message_ends(server: AttackedServer) -> None:
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(head(1, _CHAT), frame(DATA, 0, 1, b"\0" + struct.pack(">I", 60 << 20) + bytes(10_000)))
        assert peer.fields(1)[b"grpc-status"] == b"4"


def test_messages_of_streams_that_are_not_whole_are_bounded_together(server: AttackedServer) -> None:
    """Where a connection may have 96 MB of them, two of 60 are one too many."""
    with nobody_else_notices(server, spare_bytes=256 << 20), Peer(server.port) as peer:
        for stream in (1, 3):
            peer.send(head(stream, _CHAT), frame(DATA, 0, stream, b"\0" + struct.pack(">I", 60 << 20)))
        sent = _send_all(peer, (1, 3), bytes(10_000), 118 << 20)
        assert 90 << 20 < sent < 112 << 20


def test_messages_that_nobody_takes_are_held_back(server: AttackedServer) -> None:
    """A stream whose handler answers nothing, and a client that sends as much as it may."""
    with nobody_else_notices(server, spare_bytes=64 << 20), Peer(server.port, timeout_s=3) as peer:
        peer.send(head(1, _HOLD))
        _send_all(peer, (1,), message(bytes(10_000)), 100 << 20)


def _send_all(peer: Peer, streams: Sequence[int], data: bytes, size: int) -> int:
    """Sends `size` bytes of frames on these streams in turn, as fast as the server's windows let it.

    How many it has taken when it lets nothing more, or ends one of them.
    """
    peer.settle()
    windows = {0: 65_535, **dict.fromkeys(streams, 4 << 20)}
    incoming = peer.frames()
    sent = 0
    for stream in itertools.cycle(streams):
        while min(windows[0], windows[stream]) < len(data):
            try:
                one = next(incoming)
            except (TimeoutError, StopIteration):
                return sent
            if one.kind == WINDOW_UPDATE and one.stream in windows:
                windows[one.stream] += int.from_bytes(one.payload, "big")
            elif one.kind == RST_STREAM:
                return sent
        if sent >= size or not peer.send(frame(DATA, 0, stream, data)):
            break
        sent += len(data)
        windows[0] -= len(data)
        windows[stream] -= len(data)
    return sent


# Clients that do not read


def test_answers_that_nobody_takes_end_their_streams(server: AttackedServer) -> None:
    with nobody_else_notices(server), Peer(server.port, (INITIAL_WINDOW_SIZE, 0)) as peer:
        streams = set(_streams(500))
        assert peer.send(*(call(stream, bytes(5000)) for stream in streams))
        ended = set()
        for one in peer.frames():
            if one.kind == RST_STREAM:
                ended.add(one.stream)
                if ended == streams:
                    break
        assert ended == streams


def test_a_client_that_asks_and_never_reads(server: AttackedServer) -> None:
    with (
        nobody_else_notices(server, spare_bytes=128 << 20),
        Peer(server.port, (INITIAL_WINDOW_SIZE, 1 << 30), timeout_s=2) as peer,
    ):
        peer.send(window_update(0, 1 << 30))
        for stream in _streams(2000):
            if not peer.send(call(stream, b"4 65536", path=_COUNT)):
                break


def test_a_stream_of_questions_whose_answers_nobody_takes_is_held_back(server: AttackedServer) -> None:
    with nobody_else_notices(server), Peer(server.port, (INITIAL_WINDOW_SIZE, 0), timeout_s=2) as peer:
        peer.send(head(1, _CHAT))
        _send_all(peer, (1,), message(bytes(10_000)), 100 << 20)


def test_a_window_that_is_opened_byte_by_byte(server: AttackedServer) -> None:
    began = server.processor_s()
    with nobody_else_notices(server), Peer(server.port, (INITIAL_WINDOW_SIZE, 0)) as peer:
        peer.send(call(1, bytes(10_000)))
        for _ in range(10_000):
            if not peer.send(window_update(1, 1)):
                break
    assert server.processor_s() - began < 5


# Nonsense


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        frame(HEADERS, END_HEADERS, 0, request_fields()),
        frame(HEADERS, END_HEADERS, 2, request_fields()),
        frame(HEADERS, END_HEADERS, 1, b"\xff" * 100),
        frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff"),
        frame(DATA, 0, 0, b"x"),
        frame(DATA, 0, 1, b"x"),
        frame(PING, 0, 0, b"short"),
        frame(PING, 0, 1, bytes(8)),
        frame(SETTINGS, 0, 0, b"short"),
        frame(SETTINGS, 1, 0, bytes(6)),
        frame(SETTINGS, 0, 1),
        settings((INITIAL_WINDOW_SIZE, (1 << 31))),
        frame(WINDOW_UPDATE, 0, 0, bytes(4)),
        window_update(0, 0x7FFFFFFF),
        frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)),
        frame(CONTINUATION, END_HEADERS, 1, b""),
        head(1, flags=0) + frame(PING, 0, 0, bytes(8)),
        frame(RST_STREAM, 0, 0, bytes(4)),
        b"\xff\xff\xff" + bytes(6),
    ],
    ids=itertools.count(),
)
def test_what_breaks_the_protocol_ends_the_connection(server: AttackedServer, data: bytes) -> None:
    with nobody_else_notices(server), Peer(server.port) as peer:
        peer.send(data)
        goodbye = peer.end()
    assert goodbye is None or goodbye.error != 0


@pytest.mark.parametrize("cut", [1, 10, 17, 20, 23, 24])
def test_a_preface_that_is_cut_or_wrong_ends_the_connection(server: AttackedServer, cut: int) -> None:
    with nobody_else_notices(server), Peer(server.port, has_preface=False) as peer:
        peer.send(PREFACE[:cut] + b"\0" * 100)
        for _ in peer.frames():
            pass


@pytest.mark.parametrize("seed", range(4))
def test_nonsense_behind_the_preface(server: AttackedServer, seed: int) -> None:
    chosen = random.Random(seed)

    def nonsense() -> bytes:
        if chosen.random() < 0.3:
            return chosen.randbytes(chosen.randrange(200))
        kind, flags, stream = chosen.randrange(12), chosen.randrange(256), chosen.choice((0, 1, 1, 3, 5, 1 << 30))
        return frame(kind, flags, stream, chosen.randbytes(chosen.choice((0, 4, 5, 6, 8, 12, 100))))

    with nobody_else_notices(server):
        for _ in range(100):
            with Peer(server.port, timeout_s=5) as peer:
                peer.send(call(1), *(nonsense() for _ in range(20)))


@pytest.mark.parametrize("cut", [lambda data: [data[at : at + 1] for at in range(len(data))], lambda data: [data]])
def test_it_does_not_matter_how_bytes_are_cut(server: AttackedServer, cut: Callable[[bytes], list[bytes]]) -> None:
    with Peer(server.port, has_preface=False) as peer:
        for piece in cut(PREFACE + settings() + call(1, b"hello")):
            peer.send(piece)
        assert peer.fields(1)[b"grpc-status"] == b"0"


# What looks like an attack and is none


def test_a_body_that_goes_on_after_its_refusal_costs_no_other_stream(server: AttackedServer) -> None:
    with Peer(server.port) as peer:
        peer.settle()
        peer.send(call(1, path=_WAIT), head(3, "/nothing"))
        assert peer.fields(3)[b"grpc-status"] == b"12"
        for _ in range(200):
            assert peer.send(frame(DATA, 0, 3, bytes(16_000)))
        assert peer.send(call(5))
        assert peer.fields(5)[b"grpc-status"] == b"0"


def test_a_client_with_a_small_window_takes_a_large_answer(server: AttackedServer) -> None:
    """Thousands of window updates in a second are fine where as much is sent."""
    with Peer(server.port, (INITIAL_WINDOW_SIZE, 16_000)) as peer:
        peer.send(call(1, b"30 1000000", path=_COUNT))
        taken = 0
        for one in peer.frames():
            if one.kind == DATA:
                taken += len(one.payload)
                if one.payload:
                    peer.send(window_update(0, len(one.payload)), window_update(1, len(one.payload)))
            elif one.kind == HEADERS and one.flags & END_STREAM:
                break
            assert one.kind not in (GOAWAY, RST_STREAM), one
        assert taken == 30 * 1_000_005


def test_a_client_that_cancels_now_and_then_keeps_its_connection(server: AttackedServer) -> None:
    with Peer(server.port) as peer:
        for stream in _streams(600):
            assert peer.send(call(stream, path=_WAIT), reset(stream))
        assert peer.send(call(1201))
        assert peer.fields(1201)[b"grpc-status"] == b"0"


def test_an_encoding_that_is_unknown_is_unimplemented_and_the_answer_says_which_are_not(server: AttackedServer) -> None:
    with Peer(server.port) as peer:
        peer.send(call(1, extra=[(b"grpc-encoding", b"br")]))
        fields = peer.fields(1)
    assert fields[b"grpc-status"] == b"12"
    assert fields[b"grpc-accept-encoding"] == b"identity, gzip"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", b"3"),
        (b"\0\0\0\0", b"3"),
        (message(b"xy")[:-1], b"3"),
        (message(b"xy") + b"z", b"3"),
        (message(b"x") + message(b"y"), b"3"),
        (message(b"x", is_compressed=1), b"3"),
        (b"\x02" + message(b"x")[1:], b"3"),
    ],
    ids=["no message", "half a prefix", "too short", "too long", "two", "compressed by nothing", "a strange prefix"],
)
def test_bodies_that_are_not_one_message_are_refused(server: AttackedServer, body: bytes, status: bytes) -> None:
    with Peer(server.port) as peer:
        peer.send(head(1), frame(DATA, END_STREAM, 1, body))
        assert peer.fields(1)[b"grpc-status"] == status
