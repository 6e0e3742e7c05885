"""The load generator against servers that behave, stall, refuse and break off: each request has one outcome, and all its time."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from penstock.bench.connection import Address
from penstock.bench.driver import Driver
from penstock.bench.http1 import Http1Connection
from penstock.bench.record import Record, Window
from penstock.bench.schedule import Phase, arrivals
from penstock.errors import Unavailable
from tests.servers import free_port

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"
CERTIFICATES = Path(__file__).parents[1] / "e2e" / "certificates"
Handler = Callable[[socket.socket, int], bool]


@contextmanager
def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[Address]:
    """A server with a thread for each connection; `handler` answers the n-th request, and says whether the connection stays."""
    listener = socket.create_server(("127.0.0.1", 0))
    lock, counted = threading.Lock(), [0]
    open_sockets: list[socket.socket] = []

    def serve(link: socket.socket) -> None:
        data = b""
        try:
            if tls is not None:
                link = tls.wrap_socket(link, server_side=True)
                open_sockets.append(link)
            while True:
                while len(data) < len(REQUEST):
                    piece = link.recv(65536)
                    if not piece:
                        return
                    data += piece
                data = data[len(REQUEST) :]
                with lock:
                    counted[0] += 1
                    number = counted[0]
                if not handler(link, number):
                    link.close()
                    return
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            open_sockets.append(link)
            threading.Thread(target=serve, args=(link,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield Address("127.0.0.1", listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for link in open_sockets:
            link.close()
        thread.join(5)


def answer(link: socket.socket, _number: int) -> bool:
    link.sendall(ANSWER)
    return True


def drive(
    address: Address, seconds: float, *, rate: float = 0.0, connections: int = 4, timeout_s: float = 5.0
) -> tuple[Record, Window, Driver]:
    record = Record()
    driver = Driver(address, Http1Connection, [REQUEST], [0], connections, timeout_s, record)
    driver.connect()
    try:
        due = arrivals([Phase(rate, rate, seconds)], is_poisson=False) if rate else None
        begin_ns, end_ns = driver.run(seconds, due, lambda _: None)
    finally:
        driver.close()
    return record, Window(record, begin_ns, end_ns, by_due=bool(rate)), driver


def test_a_closed_loop_keeps_all_connections_busy() -> None:
    with serving(answer) as address:
        _, window, _ = drive(address, 0.5)
    assert window.requests > 100
    assert not window.errors
    assert len(window.latencies_ms()) == window.requests


def test_an_open_loop_sends_what_is_due() -> None:
    with serving(answer) as address:
        record, window, driver = drive(address, 1.0, rate=200)
    assert window.requests == len(record) == 199, "the last one would be due when all is over"
    assert driver.waited < 20, "a machine that is busy with others may keep an answer for the 5 ms until the next is due"


def test_a_stall_counts_for_all_that_were_due_in_it() -> None:
    """A closed loop would show one slow request for each connection."""

    def stalls(link: socket.socket, number: int) -> bool:
        if number == 100:
            time.sleep(0.5)
        return answer(link, number)

    with serving(stalls) as address:
        _, window, driver = drive(address, 1.5, rate=200, connections=1)
    late = (window.latencies_ms() > 100).sum()
    assert late >= 60, "about 80 were due in the first 0.4 s of the stall"
    assert driver.waited >= 60


def test_errors_are_counted_by_kind() -> None:
    def third_fails(link: socket.socket, number: int) -> bool:
        if number % 3:
            return answer(link, number)
        link.sendall(b"HTTP/1.1 503 Busy\r\ncontent-length: 5\r\n\r\nbusy!")
        return True

    with serving(third_fails) as address:
        record, window, _ = drive(address, 0.5, rate=120)
    assert window.errors == {"HTTP 503": pytest.approx(20, abs=1)}
    assert record.example.endswith("busy!")


def test_connections_that_break_are_opened_anew() -> None:
    def breaks(link: socket.socket, number: int) -> bool:
        return bool(number % 5) and answer(link, number)

    with serving(breaks) as address:
        record, window, _ = drive(address, 0.5, rate=200)
    assert set(window.errors) <= {"connection closed", "connection reset"}
    assert sum(window.errors.values()) == pytest.approx(20, abs=1)
    assert len(record) == 99, "each request has one outcome"


def test_a_server_that_closes_after_each_answer_is_no_error() -> None:
    def closes(link: socket.socket, _number: int) -> bool:
        link.sendall(ANSWER.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
        return False

    with serving(closes) as address:
        _, window, _ = drive(address, 0.5, rate=100)
    assert not window.errors
    assert window.requests == 49


def test_one_over_tls_is_no_error_either() -> None:
    def closes(link: socket.socket, _number: int) -> bool:
        link.sendall(ANSWER.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
        return False

    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
    theirs.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    with serving(closes, theirs) as address:
        _, window, _ = drive(address._replace(tls=ours), 0.5, rate=50)
    assert not window.errors
    assert window.requests == 24


def test_an_answer_in_pieces_and_one_in_chunks_are_whole_answers() -> None:
    def pieces(link: socket.socket, number: int) -> bool:
        if number % 2:
            link.sendall(ANSWER[:20])
            time.sleep(0.002)
            link.sendall(ANSWER[20:])
        else:
            link.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n")
        return True

    with serving(pieces) as address:
        _, window, _ = drive(address, 0.3)
    assert window.requests > 20
    assert not window.errors


def test_a_server_that_never_answers_costs_the_time_out() -> None:
    def silent(_link: socket.socket, _number: int) -> bool:
        return True

    with serving(silent) as address:
        begin = time.monotonic()
        record, window, _ = drive(address, 0.3, rate=100, connections=2, timeout_s=0.2)
    assert time.monotonic() - begin < 2
    assert window.requests == 0
    assert set(window.errors) == {"no answer in time", "not sent: all connections were busy"}
    assert len(record) == 29


def test_a_connection_that_cannot_be_opened_holds_up_no_other() -> None:
    """The queue of the listening socket is full: a connection to it neither comes about nor is refused."""
    filled = threading.Event()

    def serve(link: socket.socket, *, stays: bool) -> None:
        with link:
            while link.recv(65536) and stays:
                link.sendall(ANSWER)

    with socket.create_server(("127.0.0.1", 0), backlog=4) as listener, ExitStack() as queue:
        address = Address("127.0.0.1", listener.getsockname()[1])

        def accept() -> None:
            links = [listener.accept()[0] for _ in range(2)]
            for _ in range(10):
                waiting = queue.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(tuple(address[:2]))
            filled.set()
            for link, stays in zip(links, (True, False), strict=True):
                threading.Thread(target=serve, args=(link,), kwargs={"stays": stays}, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        record = Record()
        driver = Driver(address, Http1Connection, [REQUEST], [0], 2, 0.5, record)
        driver.connect()
        assert filled.wait(5)
        try:
            begin_ns, end_ns = driver.run(1.0, arrivals([Phase(100, 100, 1.0)], is_poisson=False), lambda _: None)
        finally:
            driver.close()
    window = Window(record, begin_ns, end_ns, by_due=True)
    assert set(window.errors) <= {"connection closed", "connection reset", "no connection in time"}
    assert window.errors["no connection in time"] >= 1
    assert window.requests >= 95
    assert window.latencies_ms().max() < 400


def test_nobody_there() -> None:
    port = free_port()
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        drive(Address("127.0.0.1", port), 0.1)


def test_a_server_that_goes_away_is_asked_again_with_pauses() -> None:
    record = Record()
    with serving(lambda _link, _number: False) as address:
        driver = Driver(address, Http1Connection, [REQUEST], [0], 2, 1.0, record)
        driver.connect()
    try:
        driver.run(0.5, None, lambda _: None)
    finally:
        driver.close()
    assert 2 <= len(record) < 50
    assert "connection refused" in record.kinds
