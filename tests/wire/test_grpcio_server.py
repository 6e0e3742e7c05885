"""What grpcio's server alone has: addresses, TLS, what it costs to send to a client that takes nothing, and its absence."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop

from penstock.errors import Code
from penstock.wire.grpc import GrpcCall, Kind, Method, Methods, Reply
from penstock.wire.grpcio_server import GrpcioServer, NotThere, tls

_TIMEOUT_S = 20.0


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """In a loop like a gateway's."""
    uvloop.run(asyncio.wait_for(coroutine, 60))


def _methods(name: bytes) -> Methods:
    return {"/test.Test/Name": Method(lambda call: call.answer(Reply((name,))))}


def _server(name: bytes = b"one", credentials: Any = None) -> GrpcioServer:
    return GrpcioServer(_methods(name), max_message_bytes=1 << 20, credentials=credentials)


async def _name(address: str, credentials: Any = None) -> bytes:
    options = (("grpc.use_local_subchannel_pool", 1),)
    if credentials is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, credentials, options=options)
    async with channel:
        return bytes(await channel.unary_unary("/test.Test/Name")(b"", timeout=_TIMEOUT_S))


def test_a_server_listens_on_several_addresses(tmp_path: Path) -> None:
    async def listen() -> None:
        server = _server()
        path = f"unix:{tmp_path}/grpc.sock"
        first, second, _ = await server.start(["127.0.0.1:0", "127.0.0.1:0", path])
        assert first != second
        for address in (f"127.0.0.1:{first}", f"127.0.0.1:{second}", path):
            assert await _name(address) == b"one"
        await server.stop(1)

    _run(listen())


def test_servers_share_a_port_as_gateways_do() -> None:
    async def listen() -> None:
        servers = [_server(b"one"), _server(b"two")]
        (port,) = await servers[0].start(["127.0.0.1:0"])
        assert await servers[1].start([f"127.0.0.1:{port}"]) == [port]
        found = {await _name(f"127.0.0.1:{port}") for _ in range(30)}
        assert found == {b"one", b"two"}
        for server in servers:
            await server.stop(1)

    _run(listen())


@pytest.mark.parametrize("kind", ["taken", "nonsense"])
def test_an_address_that_cannot_be_had_is_an_error_that_names_it(kind: str) -> None:
    async def listen() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}" if kind == "taken" else "no such host:x"
            with pytest.raises(OSError, match=f"cannot listen on {address}"):
                await _server().start([address])

    _run(listen())


def test_a_machine_without_grpcio_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc.aio", None)
    with pytest.raises(NotThere, match=r"libnghttp2-14.*pip install 'penstock\[grpcio\]'"):
        _server()


def _authority(folder: Path, name: str) -> None:
    """A key and a certificate that it has signed itself, for localhost."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *files, *subject], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client", "stranger"):
        _authority(folder, name)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tls(certificates: dict[str, bytes]) -> None:
    async def talk() -> None:
        server = _server(credentials=tls(certificates["server.key"], certificates["server.pem"]))
        (port,) = await server.start(["127.0.0.1:0"])
        trusting = grpc.ssl_channel_credentials(certificates["server.pem"])
        assert await _name(f"localhost:{port}", trusting) == b"one"
        for credentials in (None, grpc.ssl_channel_credentials(certificates["stranger.pem"])):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _name(f"localhost:{port}", credentials)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await server.stop(1)

    _run(talk())


def test_clients_may_need_a_certificate(certificates: dict[str, bytes]) -> None:
    async def talk() -> None:
        server = _server(credentials=tls(certificates["server.key"], certificates["server.pem"], certificates["client.pem"]))
        (port,) = await server.start(["127.0.0.1:0"])

        def credentials(name: str) -> Any:
            keys = (certificates[f"{name}.key"], certificates[f"{name}.pem"]) if name else ()
            return grpc.ssl_channel_credentials(certificates["server.pem"], *keys)

        assert await _name(f"localhost:{port}", credentials("client")) == b"one"
        for name in ("", "stranger"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _name(f"localhost:{port}", credentials(name))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await server.stop(1)

    _run(talk())


def test_a_client_that_takes_nothing_loses_its_stream() -> None:
    calls: list[GrpcCall] = []
    methods = {"/test.Test/Watch": Method(calls.append, Kind.SERVER_STREAM)}

    async def talk() -> None:
        server = GrpcioServer(methods, max_message_bytes=1 << 20)
        (port,) = await server.start(["127.0.0.1:0"])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = channel.unary_stream("/test.Test/Watch")(b"", timeout=_TIMEOUT_S)
            while not calls:
                await asyncio.sleep(0.01)
            for _ in range(3000):
                calls[0].send((bytes(10_000),))
            assert calls[0].is_over
            for _ in range(1024):
                assert len(await stream.read()) == 10_000
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert caught.value.code().name == Code.RESOURCE_EXHAUSTED.name
        await server.stop(1)

    _run(talk())


def test_a_stop_ends_what_does_not_end_by_itself() -> None:
    calls: list[GrpcCall] = []
    cancelled: list[GrpcCall] = []

    def wait(call: GrpcCall) -> None:
        calls.append(call)
        call.on_cancel = lambda: cancelled.append(call)

    async def talk() -> None:
        server = GrpcioServer({"/test.Test/Wait": Method(wait)}, max_message_bytes=1 << 20)
        (port,) = await server.start(["127.0.0.1:0"])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/test.Test/Wait")(b"", timeout=_TIMEOUT_S)
            while not calls:
                await asyncio.sleep(0.01)
            await server.stop(0.2)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            while cancelled != calls:
                await asyncio.sleep(0.01)

    _run(talk())
