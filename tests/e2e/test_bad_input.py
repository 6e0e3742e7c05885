"""Bad input of every kind: refused with a text that names the place, after which the server is as it was before."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server, read_all, wait_until

pytestmark = pytest.mark.xdist_group("bad_input")

_ALLOWED_BYTES = 20 << 20
_PREDICT = "/v1/models/half_plus_two:predict"
_MILLION = 1_000_000


@pytest.fixture(scope="module")
def hardened(models: Path) -> Iterator[Server]:
    """A server with the default limits, but impatient."""
    names = ("half_plus_two", "mixed", "vocabulary", "checked", "examples")
    with Server(*[f"--model={name}={models / name}" for name in names], "--gateways", "1", "--read-timeout-s", "1") as running:
        yield running


@pytest.fixture(scope="module")
def ordinary_bytes(hardened: Server) -> int:
    """The server's memory after good requests, of which a large one leaves a parser of its size behind."""
    for size in (1, 1000, 500_000):
        for _ in range(3):
            hardened.predict("half_plus_two", {"instances": [0.5] * size})
            hardened.refuse("half_plus_two", b"{")
    return hardened.held_bytes()


@pytest.fixture
def unharmed(hardened: Server, ordinary_bytes: int) -> Iterator[Server]:
    """The server, of which it is checked afterwards that the next request works and that its memory is where it was."""
    processes = {process.pid for process in hardened.processes()}
    yield hardened
    assert hardened.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}
    wait_until(lambda: hardened.held_bytes() < ordinary_bytes + _ALLOWED_BYTES, "the memory is where it was")
    assert {process.pid for process in hardened.processes()} == processes


def _deep(opening: bytes, closing: bytes, count: int = _MILLION) -> bytes:
    return b'{"instances":' + opening * count + b"1" + closing * count + b"}"


_JSON: dict[str, tuple[str, bytes, str]] = {
    "empty body": ("half_plus_two", b"", "JSON Parse error: The document is empty"),
    "not json": ("half_plus_two", b"\x89PNG\r\n\x1a\n\x00", "JSON Parse error"),
    "not utf-8": ("half_plus_two", b'{"instances":["\xff\xfe"]}', "Type: String is not of expected type: float"),
    "lists a million deep": ("half_plus_two", _deep(b"[", b"]"), "deep"),
    "lists a million deep, cut off": ("half_plus_two", b'{"instances":' + b"[" * _MILLION, "JSON Parse error"),
    "objects a million deep": ("half_plus_two", _deep(b'{"x":', b"}"), ""),
    "a million deep beside it": (
        "half_plus_two",
        b'{"signature_name":' + b"[" * _MILLION + b"]" * _MILLION + b"}",
        "must be a string",
    ),
    "integer of a million digits": ("checked", b'{"instances":[' + b"9" * _MILLION + b"]}", ""),
    "list of a million nulls": ("half_plus_two", b'{"instances":[' + b"null," * _MILLION + b"1]}", "element: 0"),
    "NaN for an integer": ("checked", b'{"instances":[NaN]}', "Failed to process element: 0 of 'instances' list"),
    "ragged": ("half_plus_two", b'{"instances":[[1,2],[3]]}', "Failed to process element: 1"),
    "mixed": ("half_plus_two", b'{"instances":[1,[2]]}', "Failed to process element: 1"),
    "missing key": ("mixed", b'{"instances":[{"count":1}]}', "Failed to process element: 0"),
    "extra key": ("half_plus_two", b'{"instances":[{"x":1,"zz":2}]}', "zz"),
    "wrong dtype": ("half_plus_two", b'{"instances":[1,"2"]}', "Failed to process element: 1"),
    "wrong shape": ("mixed", b'{"inputs":{"count":[1],"name":["a"],"weights":[1]}}', ""),
    "bad base64": ("vocabulary", b'{"instances":[{"b64":"%%%"}]}', "Unable to base64 decode"),
    "no such signature": ("half_plus_two", b'{"signature_name":"zz","instances":[1]}', '"zz" not found in signature def'),
}


@pytest.mark.parametrize("case", _JSON)
def test_a_bad_body_is_refused_and_the_server_unharmed(unharmed: Server, case: str) -> None:
    model, body, fragment = _JSON[case]
    status, text = unharmed.refuse(model, body)
    assert status == 400
    assert fragment in text
    assert len(text) < 2000


def test_a_float_of_a_million_digits_is_a_number_or_refused(unharmed: Server) -> None:
    for digits in (b"9" * _MILLION, b"0." + b"1" * _MILLION, b"1e" + b"9" * _MILLION):
        response = unharmed.post(_PREDICT, data=b'{"instances":[' + digits + b"]}")
        assert response.status_code in (200, 400)


def test_nan_reaches_a_model_of_floats(unharmed: Server) -> None:
    assert unharmed.post(_PREDICT, data=b'{"instances":[NaN]}').text == '{"predictions":[NaN]}'


def test_deep_examples_are_refused(unharmed: Server) -> None:
    body = b'{"examples":[{"x":' + b"[" * _MILLION + b"]" * _MILLION + b"}]}"
    assert unharmed.refuse("examples", body, "classify")[0] == 400
    assert unharmed.refuse("examples", b'{"examples":' + b"[" * _MILLION, "regress")[0] == 400


def test_deep_and_endless_invocations_are_refused(unharmed: Server) -> None:
    bodies = {
        "application/json": [b"[" * _MILLION, b"[" * _MILLION + b"]" * _MILLION, b"9" * _MILLION + b"a"],
        "application/jsonlines": [b"[]\n[" * 200_000, b"]\n" * _MILLION],
        "text/csv": [b'"' * _MILLION, b"," * _MILLION + b"\n1"],
    }
    for kind, ones in bodies.items():
        for body in ones:
            response = unharmed.post("/invocations", data=body, headers={"Content-Type": kind})
            assert response.status_code == 400, (kind, body[:10], response.text[:200])


def test_unknown_models_versions_and_methods_are_refused(unharmed: Server) -> None:
    """Also many different ones, of which none may be remembered for ever."""
    for number in range(300):
        name = f"unknown-{number}-{'x' * 1000}"
        assert unharmed.refuse(name, {"instances": [1]})[0] == 404
        assert unharmed.refuse(f"half_plus_two/versions/{number + 2}", {"instances": [1]})[0] == 404
        assert unharmed.refuse("half_plus_two", {"instances": [1]}, f"verb{number}")[0] == 400


def _head(fields: str) -> bytes:
    return f"POST {_PREDICT} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n".encode()


def _status(answer: bytes) -> int:
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return int(answer.split(b" ")[1])


@pytest.mark.parametrize("expect", ["", "\r\nExpect: 100-continue"])
def test_a_body_of_a_gigabyte_is_refused_before_it_comes(unharmed: Server, expect: str) -> None:
    assert _status(unharmed.raw(_head(f"Content-Length: {1 << 30}{expect}"))) == 413


def test_a_chunk_of_a_gigabyte_is_refused_before_it_comes(unharmed: Server) -> None:
    assert _status(unharmed.raw(_head("Transfer-Encoding: chunked") + b"40000000\r\n")) == 413


def test_a_gzip_bomb_is_refused(unharmed: Server) -> None:
    """A megabyte that becomes a gigabyte, and gzip in gzip."""
    block = gzip.compress(b"0" * (16 << 20))
    for bomb in (block * 64, gzip.compress(block * 64)):
        response = unharmed.post(_PREDICT, data=bomb, headers={"Content-Encoding": "gzip"})
        assert response.status_code in (400, 413)
        assert len(response.text) < 2000


def test_half_a_request_ends_in_a_time_out(unharmed: Server) -> None:
    for data in (b"POST /v1/mod", _head("Content-Length: 100"), _head("Content-Length: 100") + b'{"inst'):
        assert _status(unharmed.raw(data)) == 408


def test_half_a_chunk_ends_in_a_time_out(unharmed: Server) -> None:
    assert _status(unharmed.raw(_head("Transfer-Encoding: chunked") + b"5\r\nab")) == 408


def _trickle(connection: socket.socket, byte: bytes) -> bytes:
    """Sends a byte a time for as long as the server puts up with it."""
    connection.settimeout(0.1)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            connection.sendall(byte)
            return connection.recv(1 << 16)
        except TimeoutError:
            continue
        except ConnectionError:
            return b""
    raise AssertionError("the server has waited for 30 s")


@pytest.mark.parametrize(("start", "byte"), [(_head("Content-Length: 100000"), b" "), (b"GET / HTTP/1.1\r\nX: ", b"a")])
def test_a_client_that_sends_too_slowly_is_cut_off(unharmed: Server, start: bytes, byte: bytes) -> None:
    with unharmed.connect() as connection:
        connection.sendall(start)
        assert re.match(rb"HTTP/1.1 408 |$", _trickle(connection, byte))


def test_a_client_that_takes_no_answer_is_cut_off(unharmed: Server) -> None:
    """It asks for 200 MB and reads nothing; the rest of the world does not notice."""
    body = json.dumps({"instances": [0.123] * 100_000}).encode()
    request = _head(f"Content-Length: {len(body)}") + body
    with unharmed.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(5)
        with pytest.raises((ConnectionError, TimeoutError)):
            connection.sendall(request * 400)
        wait_until(lambda: _is_cut_off(connection), "the end of the connection")


def _is_cut_off(connection: socket.socket) -> bool:
    return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) or _state(connection) != _ESTABLISHED


_ESTABLISHED = 1


def _state(connection: socket.socket) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def test_a_connection_that_is_closed_half_way_is_forgotten(unharmed: Server) -> None:
    for data in (b"POST /v1/mod", _head("Content-Length: 100000000") + b"1" * 1_000_000):
        for _ in range(30):
            with unharmed.connect() as connection:
                connection.sendall(data)


def test_many_bad_requests_leave_no_trace_in_memory(unharmed: Server) -> None:
    cases: list[tuple[str, Any]] = [("half_plus_two", b"{"), ("mixed", {"instances": [{}]}), ("checked", {"instances": [99]})]
    for _ in range(300):
        for model, body in cases:
            assert unharmed.refuse(model, body)[0] == 400


def test_500_idle_connections_do_not_stop_anyone(unharmed: Server) -> None:
    connections = [unharmed.connect() for _ in range(500)]
    assert unharmed.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}
    for connection in connections:
        connection.close()


def test_what_comes_after_a_bad_request_is_not_executed(unharmed: Server) -> None:
    """Request smuggling: the body of a refused request is no request."""
    hidden = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = unharmed.raw(_head("Content-Length: 3\r\nContent-Length: 5") + hidden)
    assert answer.count(b"HTTP/1.1 ") == 1
    with unharmed.connect() as connection:
        connection.sendall(_head("Content-Length: 3\r\nTransfer-Encoding: chunked") + b"0\r\n\r\n" + hidden)
        assert read_all(connection).count(b"HTTP/1.1 ") == 1
