"""Scripts that call the server they run in over gRPC, through `context.channel` and by `context.grpc_port` (contract §3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from penstock.wire import http2
from tests.e2e.model_folders import put_text, with_script
from tests.servers import Server, error_of, free_port

pytestmark = pytest.mark.xdist_group("scripts_grpc")

_CERTIFICATES = Path(__file__).with_name("certificates")
_TLS = ("--tls-cert", _CERTIFICATES / "server.pem", "--tls-key", _CERTIFICATES / "server.key")
_SERVING = b"\x08\x01"
_needs_http2 = pytest.mark.skipif(not http2.is_there(), reason="there is no libnghttp2 here")


@pytest.fixture(scope="module")
def scripts(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of models whose scripts use the stubs."""
    pytest.importorskip("tensorflow")
    pytest.importorskip("tensorflow_serving.apis", reason="tensorflow-serving-api is not installed")
    if not http2.is_there():
        pytest.skip("there is no libnghttp2 here")
    folder = tmp_path_factory.mktemp("scripts")
    names = ("grpc_handler", "grpc_pair")
    for name in names:
        with_script(models / "half_plus_two" / "1", folder / name, name)
    with Server(*[f"--model={name}={folder / name}" for name in names], "--gateways", "2") as running:
        yield running


def _invoke(server: Server, model: str, body: bytes) -> requests.Response:
    """On a connection of its own."""
    fields = {"Content-Type": "application/json", "X-Amzn-SageMaker-Custom-Attributes": f"tfs-model-name={model}"}
    certificate = str(_CERTIFICATES / "ca.pem") if server.url.startswith("https") else True
    return requests.post(f"{server.url}/invocations", body, headers=fields, timeout=60, verify=certificate)


def _ask(server: Server, by: str, *instances: float) -> Any:
    answer = _invoke(server, "grpc_handler", json.dumps({"by": by, "instances": instances}).encode())
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("by", ["channel", "port"])
def test_a_handler_calls_its_own_model_with_the_stubs(scripts: Server, by: str) -> None:
    assert _ask(scripts, by, 1.0, 2.0, 5.0) == {"predictions": [2.5, 3.0, 4.5]}


def test_many_requests_share_the_channel(scripts: Server) -> None:
    """More at once than the script has threads."""
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda value: _ask(scripts, "channel", float(value)), range(64)))
    assert answers == [{"predictions": [value / 2 + 2]} for value in range(64)]


def test_what_is_larger_than_grpcio_takes_by_itself_passes_through_the_channel(scripts: Server) -> None:
    values = [1.0] * (3 << 20)
    assert _ask(scripts, "channel", *values) == {"predictions": [2.5] * len(values)}


def test_a_pair_of_handlers_calls_the_server_on_both_sides_of_the_model(scripts: Server) -> None:
    answer = _invoke(scripts, "grpc_pair", b"[0, 8]")
    assert answer.status_code == 200, answer.text
    assert answer.json() == [3.5, 4.5]


def test_an_error_of_grpc_is_the_scripts_error(scripts: Server) -> None:
    answer = _invoke(scripts, "grpc_handler", b'{"by": "channel", "instances": ["text"]}')
    assert answer.status_code == 500
    assert "StatusCode.INVALID_ARGUMENT" in error_of(answer)


# Servers that do not speak gRPC in the clear on their first port


@pytest.fixture
def health(models: Path, tmp_path: Path) -> Path:
    return with_script(models / "half_plus_two" / "1", tmp_path / "health", "grpc_health")


@_needs_http2
def test_tls_leaves_scripts_the_unix_socket(health: Path, tmp_path: Path) -> None:
    with Server(health, *_TLS, "--unix-socket", tmp_path / "penstock.sock") as server:
        assert _invoke(server, "health", b"").content == _SERVING
        assert _invoke(server, "health", b"port").text == str(server.port)


def test_tls_without_a_unix_socket_is_an_error_that_says_what_to_do(health: Path) -> None:
    with Server(health, *_TLS) as server:
        answer = _invoke(server, "health", b"")
        assert (answer.status_code, "--unix-socket" in error_of(answer)) == (500, True)


@_needs_http2
def test_with_tls_on_the_other_port_alone_the_first_one_is_used(health: Path) -> None:
    with Server(health, *_TLS, "--grpc-port", str(free_port()), "--tls-grpc-only") as server:
        assert _invoke(server, "health", b"").content == _SERVING


def test_without_libnghttp2_scripts_reach_grpcio_on_its_port(health: Path) -> None:
    port = free_port()
    without = {"PENSTOCK_NGHTTP2": "/nowhere/libnghttp2.so"}
    with Server(health, "--grpc-port", str(port), env=without) as server:
        assert _invoke(server, "health", b"").content == _SERVING
        assert _invoke(server, "health", b"port").text == str(port)
    with Server(health, env=without) as server:
        answer = _invoke(server, "health", b"")
        assert (answer.status_code, "--grpc-port" in error_of(answer)) == (500, True)
        assert _invoke(server, "health", b"port").text == ""


def test_without_grpcio_the_error_says_so(health: Path) -> None:
    put_text(health / "code" / "grpc.py", "raise ImportError('no grpcio')\n")
    with Server(health) as server:
        answer = _invoke(server, "health", b"")
        assert answer.status_code == 500
        assert error_of(answer) == "there is no context.channel without grpcio: name grpcio in the script's requirements.txt."
