"""The sockets that clients connect to: two ports and a Unix socket, in the clear or with TLS.

Guarantees: what cannot be listened on is found before anything is started, with a text that says what to do; every gateway has a
socket of its own on each port, between which the kernel spreads connections.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.config import ServeOptions
from penstock.errors import UsageError
from penstock.wire import http2


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens, and whether TLS is spoken on it."""

    sock: socket.socket
    is_secure: bool

    def close(self) -> None:
        self.sock.close()


def listeners(options: ServeOptions) -> list[list[Listener]]:
    """What each gateway listens on, the one of `options.port` first. Raises UsageError."""
    tls_context(options)
    is_secure = bool(options.tls_cert)
    count = options.gateway_count
    found = [
        [Listener(sock, is_secure and not options.tls_grpc_only)] for sock in _bound(options.host, options.port, count, "--port")
    ]
    if options.grpc_port and options.grpc_port != options.port and http2.is_there():
        for own, sock in zip(found, _bound(options.host, options.grpc_port, count, "--grpc-port"), strict=True):
            own.append(Listener(sock, is_secure))
    if options.unix_socket:
        for own, sock in zip(found, _unix(options.unix_socket, count), strict=True):
            own.append(Listener(sock, False))
    return found


def without_http2(options: ServeOptions) -> str | None:
    """What there is to say on a machine without libnghttp2. Raises UsageError where a port for gRPC was asked for in vain."""
    if http2.is_there():
        return None
    if not options.grpc_port:
        return "libnghttp2 is not there: no HTTP/2 and no gRPC (Debian: libnghttp2-14; or penstock[grpcio] and --grpc-port)"
    if importlib.util.find_spec("grpc") is None:
        raise UsageError("--grpc-port needs libnghttp2 (Debian: libnghttp2-14) or grpcio (pip install 'penstock[grpcio]')")
    return "libnghttp2 is not there: grpcio answers gRPC, on --grpc-port alone and at a tenth of the speed"


def tls_context(options: ServeOptions) -> ssl.SSLContext | None:
    """What TLS is spoken with, None where it is not. Raises UsageError."""
    if not options.tls_cert:
        if options.tls_key or options.tls_client_ca:
            raise UsageError("--tls-key and --tls-client-ca need --tls-cert")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"] if http2.is_there() else ["http/1.1"])
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--tls-cert {options.tls_cert}, --tls-key {options.tls_key}: {_reason(error)}") from None
    if options.tls_client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(options.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"--tls-client-ca {options.tls_client_ca}: {_reason(error)}") from None
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not what was expected in PEM: {error.reason or error}"
    return error.strerror or str(error)


def _bound(host: str, port: int, count: int, flag: str) -> list[socket.socket]:
    """`count` sockets bound to the same address. SO_REUSEPORT would let a second server share the port unnoticed, so a bind
    without it comes first."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            address = probe.getsockname()
        found: list[socket.socket] = []
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            found.append(listener)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with {flag}") from None
    return found


def _unix(path: str, count: int) -> Sequence[socket.socket]:
    """The Unix socket, of which every gateway gets a descriptor. What a server that has died left at the path is removed."""
    try:
        if _is_stale(path):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(path)
    except OSError as error:
        raise UsageError(f"cannot listen on {path}: {error.strerror or error}; choose another with --unix-socket") from None
    return [sock, *(sock.dup() for _ in range(count - 1))]


def _is_stale(path: str) -> bool:
    """Whether there is a socket at `path` that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except FileNotFoundError:
        return False
    return False
