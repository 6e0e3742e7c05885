"""Where a server can be reached: two ports, a Unix socket, TLS with HTTP/1.1 and HTTP/2, and certificates of clients."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
import requests

from tests.servers import Server, free_port, run_penstock

pytestmark = pytest.mark.xdist_group("listening")

CERTIFICATES = Path(__file__).with_name("certificates")
_CA, _CERT, _KEY = CERTIFICATES / "ca.pem", CERTIFICATES / "server.pem", CERTIFICATES / "server.key"
_BODY = {"instances": [1.0]}
_EXPECTED = {"predictions": [2.5]}
_PATH = "/v1/models/half_plus_two:predict"
_SERVING = b"\x08\x01"


def _check(channel: grpc.Channel) -> bytes:
    """The answer of the health service."""
    with channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", lambda data: data, lambda data: data)
        answer: bytes = check(b"", timeout=10)
        return answer


def _secure(*client: Path) -> grpc.ChannelCredentials:
    key, chain = (path.read_bytes() for path in client) if client else (None, None)
    return grpc.ssl_channel_credentials(_CA.read_bytes(), key, chain)


def test_one_port_more_and_a_unix_socket_speak_everything(models: Path, tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "penstock.sock"
    with Server(models / "half_plus_two", "--grpc-port", str(port), "--unix-socket", path) as server:
        first = server.url.removeprefix("http://")
        for address in (first, f"127.0.0.1:{port}", f"unix:{path}"):
            assert _check(grpc.insecure_channel(address)) == _SERVING
        assert requests.post(f"http://127.0.0.1:{port}{_PATH}", json=_BODY, timeout=10).json() == _EXPECTED
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("POST", _PATH, json.dumps(_BODY))
        assert json.loads(connection.getresponse().read()) == _EXPECTED
        connection.close()
    assert not path.exists()


def test_the_socket_of_a_server_that_has_died_is_taken_over_and_no_other(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "penstock.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with Server(models / "half_plus_two", "--unix-socket", path):
        second = run_penstock("serve", models / "half_plus_two", "--port", "0", "--unix-socket", path)
        assert second.returncode == 1
        assert f"cannot listen on {path}: Address already in use; choose another with --unix-socket" in second.stderr
        assert _check(grpc.insecure_channel(f"unix:{path}")) == _SERVING


def test_tls_carries_http_1_and_2_and_refuses_the_clear(models: Path) -> None:
    with Server(models / "half_plus_two", "--tls-cert", _CERT, "--tls-key", _KEY) as server:
        assert server.url.startswith("https://")
        assert requests.post(server.url + _PATH, json=_BODY, verify=str(_CA), timeout=10).json() == _EXPECTED
        address = server.url.removeprefix("https://")
        assert _check(grpc.secure_channel(address, _secure())) == _SERVING
        host, _, port = address.partition(":")
        for wanted in ("h2", "http/1.1"):
            context = ssl.create_default_context(cafile=str(_CA))
            context.set_alpn_protocols([wanted])
            with (
                socket.create_connection((host, int(port)), 10) as plain,
                context.wrap_socket(plain, server_hostname=host) as sock,
            ):
                assert sock.selected_alpn_protocol() == wanted
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://{address}/v1/models/half_plus_two", timeout=10)
        assert requests.post(server.url + _PATH, json=_BODY, verify=str(_CA), timeout=10).json() == _EXPECTED


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_speaks_http_2_over_tls(models: Path) -> None:
    with Server(models / "half_plus_two", "--tls-cert", _CERT, "--tls-key", _KEY) as server:
        command: list[str | Path] = [
            "curl",
            "-s",
            "--http2",
            "--cacert",
            _CA,
            "-w",
            " %{http_version}",
            "-d",
            json.dumps(_BODY),
            server.url + _PATH,
        ]
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
        assert done.stdout == b'{"predictions":[2.5]} 2'


def test_only_clients_with_a_certificate_get_in_where_that_is_asked(models: Path) -> None:
    options = ("--tls-cert", _CERT, "--tls-key", _KEY, "--tls-client-ca", _CA)
    with Server(models / "half_plus_two", *options) as server:
        address = server.url.removeprefix("https://")
        client = CERTIFICATES / "client.key", CERTIFICATES / "client.pem"
        assert _check(grpc.secure_channel(address, _secure(*client))) == _SERVING
        with pytest.raises(grpc.RpcError):
            _check(grpc.secure_channel(address, _secure()))
        with pytest.raises(requests.exceptions.RequestException):
            requests.get(server.url + "/v1/models/half_plus_two", verify=str(_CA), timeout=10)
        pair = str(client[1]), str(client[0])
        assert requests.post(server.url + _PATH, json=_BODY, verify=str(_CA), cert=pair, timeout=10).json() == _EXPECTED


def test_tls_on_the_port_for_grpc_alone(models: Path) -> None:
    port = free_port()
    options = ("--tls-cert", _CERT, "--tls-key", _KEY, "--grpc-port", str(port), "--tls-grpc-only")
    with Server(models / "half_plus_two", *options) as server:
        assert requests.post(server.url + _PATH, json=_BODY, timeout=10).json() == _EXPECTED
        assert _check(grpc.secure_channel(f"127.0.0.1:{port}", _secure())) == _SERVING


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--tls-key", str(_KEY)), "--tls-key and --tls-client-ca need --tls-cert"),
        (("--tls-cert", "/nowhere/cert.pem"), "--tls-cert /nowhere/cert.pem, --tls-key : No such file or directory"),
        (("--tls-cert", str(_CERT), "--tls-key", str(CERTIFICATES / "client.key")), "not what was expected in PEM"),
        (("--tls-cert", str(_CERT), "--tls-key", str(_KEY), "--tls-client-ca", str(_KEY)), "--tls-client-ca"),
    ],
)
def test_certificates_that_cannot_be_used_end_the_start_with_one_line(models: Path, options: tuple[str, ...], text: str) -> None:
    done = run_penstock("serve", models / "half_plus_two", "--port", "0", *options)
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr


_WITHOUT = {"PENSTOCK_NGHTTP2": "/nowhere/libnghttp2.so"}


def test_grpcio_answers_on_its_own_port_where_there_is_no_libnghttp2(models: Path) -> None:
    port = free_port()
    options = ("--grpc-port", str(port), "--tls-cert", _CERT, "--tls-key", _KEY, "--tls-grpc-only")
    with Server(models / "half_plus_two", *options, env=_WITHOUT) as server:
        assert any("libnghttp2 is not there: grpcio answers gRPC" in line for line in server.err)
        assert _check(grpc.secure_channel(f"127.0.0.1:{port}", _secure())) == _SERVING
        assert requests.post(server.url + _PATH, json=_BODY, timeout=10).json() == _EXPECTED


def test_without_libnghttp2_the_port_speaks_http_1_and_says_so(models: Path) -> None:
    with Server(models / "half_plus_two", env=_WITHOUT) as server:
        assert any("libnghttp2 is not there: no HTTP/2 and no gRPC" in line for line in server.err)
        assert requests.post(server.url + _PATH, json=_BODY, timeout=10).json() == _EXPECTED
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 10) as sock:
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_watch_does_not_hold_up_the_stop(models: Path) -> None:
    with Server(models / "half_plus_two") as server:
        with grpc.insecure_channel(server.url.removeprefix("http://")) as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch", lambda data: data, lambda data: data)(b"", timeout=30)
            assert next(watch) == _SERVING
            began = time.monotonic()
            server.stop()
            assert [*_rest(watch)] == [b"\x08\x02"]
        assert time.monotonic() - began < 10


def _rest(answers: Iterator[bytes]) -> Iterator[bytes]:
    with suppress(grpc.RpcError):
        yield from answers


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_browsers_are_told_over_http_2_too(models: Path) -> None:
    """They take it before HTTP/1.1 where there is TLS."""
    with Server(models / "half_plus_two", "--cors", "--tls-cert", _CERT, "--tls-key", _KEY) as server:
        for request in (("-X", "OPTIONS", "-H", "Origin: https://x"), ("-d", json.dumps(_BODY))):
            command: list[str | Path] = ["curl", "-s", "-i", "--http2", "--cacert", _CA, *request, server.url + _PATH]
            told = subprocess.run(command, capture_output=True, timeout=20, check=True).stdout.lower()
            assert told.startswith(b"http/2 ")
            assert b"\r\naccess-control-allow-origin: *\r\n" in told
            assert b"\r\ndate: " in told
