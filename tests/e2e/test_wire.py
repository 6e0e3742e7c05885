"""HTTP as real clients speak it: connections, encodings, large bodies, request ids."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import shutil
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.servers import Server, error_of, read_all

pytestmark = pytest.mark.xdist_group("shared")

_PREDICT = "/v1/models/half_plus_two:predict"
_BODY = b'{"instances":[1.0]}'
_EXPECTED = {"predictions": [2.5]}


def _request(path: str = _PREDICT, body: bytes = _BODY, fields: str = "", version: str = "1.1") -> bytes:
    return f"POST {path} HTTP/{version}\r\nHost: a\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _split(answers: bytes) -> list[tuple[int, bytes]]:
    """The status and body of each answer in a stream of them."""
    found: list[tuple[int, bytes]] = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
        assert length is not None, head
        found.append((int(head.split(b" ")[1]), rest[: int(length[1])]))
        answers = rest[int(length[1]) :]
    return found


def test_a_connection_serves_many_requests(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.connect()
    before = connection.sock
    for value in range(50):
        connection.request("POST", _PREDICT, json.dumps({"instances": [value]}))
        assert json.loads(connection.getresponse().read()) == {"predictions": [value / 2 + 2]}
    assert connection.sock is before
    connection.close()


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """The first takes longest."""
    slow = _request("/v1/models/slow:predict", b'{"instances":[200]}')
    invalid = _request(body=b"{")
    answers = _split(server.raw(slow + _request() + invalid + _request() + _request(fields="Connection: close\r\n")))
    assert [status for status, _ in answers] == [200, 200, 400, 200, 200]
    assert json.loads(answers[0][1]) == {"predictions": [200]}
    assert [json.loads(answers[index][1]) for index in (1, 3, 4)] == [_EXPECTED] * 3


def test_200_pipelined_requests_are_all_answered(server: Server) -> None:
    """More than a connection may have under way."""
    bodies = [json.dumps({"instances": [value]}).encode() for value in range(200)]
    data = b"".join(_request(body=body) for body in bodies) + _request(fields="Connection: close\r\n")
    answers = _split(server.raw(data))
    assert [json.loads(body)["predictions"][0] for _, body in answers] == [*(value / 2 + 2 for value in range(200)), 2.5]


def test_a_request_may_come_byte_by_byte(server: Server) -> None:
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in _request(fields="Connection: close\r\n"):
            connection.sendall(bytes([byte]))
        assert _split(read_all(connection)) == [(200, b'{"predictions":[2.5]}')]


def test_chunked_bodies_are_read(server: Server) -> None:
    def parts() -> Iterator[bytes]:
        yield from (b'{"inst', b'ances":', b"[1.0]", b"}")

    assert server.post(_PREDICT, data=parts()).json() == _EXPECTED


def test_http_1_0_and_connection_close_are_honoured(server: Server) -> None:
    for data in (_request(version="1.0"), _request(fields="Connection: close\r\n")):
        assert _split(server.raw(data)) == [(200, b'{"predictions":[2.5]}')]


def test_a_client_that_has_said_all_still_gets_its_answer(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(_request("/v1/models/slow:predict", b'{"instances":[100]}'))
        connection.shutdown(socket.SHUT_WR)
        assert _split(read_all(connection)) == [(200, b'{"predictions":[100]}')]


def test_a_client_that_leaves_disturbs_nobody(server: Server) -> None:
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(_request("/v1/models/slow:predict", b'{"instances":[5]}'))
    assert server.predict("slow", {"instances": [1]}) == {"predictions": [1]}


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw deflate"])
def test_compressed_requests_are_read(server: Server, encoding: str) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = {
        "gzip": gzip.compress(_BODY),
        "x-gzip": gzip.compress(_BODY),
        "deflate": zlib.compress(_BODY),
        "raw deflate": deflater.compress(_BODY) + deflater.flush(),
    }[encoding]
    assert server.post(_PREDICT, data=body, headers={"Content-Encoding": encoding.split()[-1]}).json() == _EXPECTED


def test_compressed_requests_that_cannot_be_read_are_refused(server: Server) -> None:
    for body, encoding, status in ((b"garbage", "gzip", 400), (gzip.compress(_BODY)[:-9], "gzip", 400), (_BODY, "br", 415)):
        response = server.post(_PREDICT, data=body, headers={"Content-Encoding": encoding})
        assert response.status_code == status
        assert error_of(response)


def test_large_answers_are_compressed_for_those_who_ask(server: Server) -> None:
    body = {"instances": list(range(5000))}
    plain = server.post(_PREDICT, json=body, headers={"Accept-Encoding": "identity"})
    packed = server.post(_PREDICT, json=body, headers={"Accept-Encoding": "gzip"})
    refused = server.post(_PREDICT, json=body, headers={"Accept-Encoding": "gzip;q=0"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in refused.headers
    assert packed.json() == plain.json() == refused.json()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2


def test_a_request_id_comes_back_or_is_made(server: Server) -> None:
    assert server.post(_PREDICT, data=_BODY, headers={"X-Request-Id": "my-id-7"}).headers["x-request-id"] == "my-id-7"
    made = [server.post(_PREDICT, data=_BODY).headers["x-request-id"] for _ in range(3)]
    assert len(set(made)) == 3
    assert all(made)


def test_a_request_id_cannot_smuggle_headers(server: Server) -> None:
    data = b"GET /ping HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\tb\xff\r\nConnection: close\r\n\r\n"
    assert b"a\tb" not in server.raw(data)


def test_curl_sends_a_large_body_with_expect(server: Server, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    picture = np.linspace(0, 1, 2 * 224 * 224 * 3, dtype=np.float32).reshape(2, 224, 224, 3)
    file = tmp_path / "body.json"
    file.write_text(json.dumps({"instances": picture.tolist()}))
    done = subprocess.run(
        [curl, "-sS", "-v", "-H", "Expect: 100-continue", "--data-binary", f"@{file}", f"{server.url}/v1/models/image:predict"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"100 Continue" in done.stderr
    assert np.allclose(json.loads(done.stdout)["predictions"], 1 - picture, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon here\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n", 431),
    ],
)
def test_what_is_not_http_is_refused_and_ends_the_connection(server: Server, data: bytes, status: int) -> None:
    answers = _split(server.raw(data))
    assert [answer[0] for answer in answers] == [status]
    assert json.loads(answers[0][1])["error"]
