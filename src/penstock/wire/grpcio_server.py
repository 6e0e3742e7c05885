"""gRPC by grpcio, for machines without libnghttp2: the same handlers, messages as bytes, no generated code.

Guarantees: what handlers see and clients get is what wire/http2.py has it, at a tenth of the speed: deadlines, cancellation,
metadata, codes and texts. One thing differs: a call that comes in the instant of a stop is cancelled by gRPC's own core.
What waits to be sent on a stream is bounded: a client that takes nothing is not read from, and loses its stream.

Assumes a running event loop (uvloop's too), in which everything but grpcio's own threads runs. A port may be shared by
several processes (SO_REUSEPORT), a Unix socket not. grpcio is imported when a server is made: it is an extra, and must not have
been used before a fork.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from penstock.errors import PenstockError, ResourceExhausted, Unimplemented
from penstock.wire.grpc import Buffer, GrpcCall, Kind, Method, Methods, Reply, error_text, internal

log = logging.getLogger("penstock.wire")
#: Messages of a stream that have come and are not answered yet; a client that sends more waits.
_MAX_UNANSWERED = 64
#: Messages of a stream that its client has not taken yet; more end the stream.
_MAX_UNSENT = 1024
_MAX_HEAD_BYTES = 32 << 10
_MAX_STREAMS = 1024
_OPTIONS = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", _MAX_HEAD_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_HEAD_BYTES),
    ("grpc.max_concurrent_streams", _MAX_STREAMS),
    # Clients may ask as often as once a second whether we are still there, with or without calls.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
)


class NotThere(Exception):
    """grpcio is not installed; the text says what to install."""


def load() -> Any:
    """The module grpc, with grpc.aio. Raises NotThere."""
    try:
        import grpc.aio
    except ImportError as error:
        raise NotThere(
            "gRPC needs libnghttp2 (Debian and Ubuntu have it as libnghttp2-14) or grpcio (pip install 'penstock[grpcio]'), "
            f"and neither is there: {error}"
        ) from None
    return grpc


class GrpcioServer:
    """A server of `methods`. `credentials` are `tls(...)`, None for cleartext. To be made in the event loop. Raises NotThere."""

    def __init__(self, methods: Methods, *, max_message_bytes: int, credentials: Any | None = None) -> None:
        self._grpc = load()
        self._credentials = credentials
        self._id_prefix = os.urandom(6).hex().encode() + b"-"
        self._ids = itertools.count(1)
        options = (*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes))
        self._server = self._grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((_Handlers(self._grpc, methods, self),))

    async def start(self, addresses: Iterable[str]) -> list[int]:
        """Listens on `host:port` and `unix:path`; the ports, 1 for a path. Raises OSError where an address cannot be had."""
        ports: list[int] = []
        for address in addresses:
            try:
                if self._credentials is None:
                    port = self._server.add_insecure_port(address)
                else:
                    port = self._server.add_secure_port(address, self._credentials)
            except RuntimeError as error:
                raise OSError(f"grpcio cannot listen on {address}: {error}") from None
            ports.append(int(port))
        await self._server.start()
        return ports

    async def stop(self, grace_s: float) -> None:
        """Takes no more calls; returns when those under way have ended, after `grace_s` by force."""
        await self._server.stop(grace_s)

    def next_id(self) -> bytes:
        return self._id_prefix + b"%x" % next(self._ids)


def tls(key: bytes, certificates: bytes, client_ca: bytes | None = None) -> Any:
    """Credentials from PEM; with `client_ca`, clients need a certificate that it has signed. Raises NotThere."""
    return load().ssl_server_credentials(
        [(key, certificates)], root_certificates=client_ca, require_client_auth=client_ca is not None
    )


class _Handlers:
    """Finds the handler of a path, as grpcio wants it."""

    def __init__(self, grpc: Any, methods: Methods, server: GrpcioServer) -> None:
        self._grpc = grpc
        self._handlers = {path: self._rpc(path, method, server) for path, method in methods.items()}

    def service(self, details: Any) -> Any:
        return self._handlers.get(details.method) or self._unknown(details.method)

    def _unknown(self, path: str) -> Any:
        async def refuse(_requests: Any, context: Any) -> None:
            await _end(self._grpc, context, Reply(error=Unimplemented(f"There is no method {path} here.")))

        return self._grpc.stream_stream_rpc_method_handler(refuse)

    def _rpc(self, path: str, method: Method, server: GrpcioServer) -> Any:
        grpc = self._grpc

        async def unary(message: bytes, context: Any) -> bytes:
            carrier = _Unary()
            reply = await carrier.run(method, _call(carrier, server, path, message, context))
            await _end(grpc, context, reply)
            return b"".join(reply.message)

        async def stream(message: Any, context: Any) -> None:
            carrier = _Stream(context)
            is_whole = method.kind is Kind.SERVER_STREAM
            reply = await carrier.run(method, _call(carrier, server, path, message if is_whole else b"", context))
            await _end(grpc, context, reply)

        if method.kind is Kind.UNARY:
            return grpc.unary_unary_rpc_method_handler(unary)
        if method.kind is Kind.SERVER_STREAM:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.stream_stream_rpc_method_handler(stream)


class _Unary:
    """Carries a call with one message each way."""

    def __init__(self) -> None:
        self._reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    async def run(self, method: Method, call: GrpcCall) -> Reply:
        """The handler's reply. Tells the handler when the client has given up."""
        _begin(method, call)
        try:
            return await self._reply
        except asyncio.CancelledError:
            _cancel(call)
            raise

    def send(self, call: GrpcCall, message: tuple[Buffer, ...]) -> None:
        raise TypeError(f"{call.path} has one answer and no stream of them")

    def answered(self, call: GrpcCall, reply: Reply) -> None:
        self._reply.set_result(reply)


class _Stream:
    """Carries a call whose answers are a stream, and perhaps its requests too."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._unsent: deque[bytes] = deque()
        self._reply: Reply | None = None
        self._unanswered = 0
        #: Set when there is something to send, and when a further message may be read.
        self._wants_to_send = asyncio.Event()
        self._wants_to_read = asyncio.Event()

    async def run(self, method: Method, call: GrpcCall) -> Reply:
        """Sends what the handler gives, until it has replied. Tells it when the client has given up."""
        _begin(method, call)
        reader = asyncio.create_task(self._read(call)) if method.kind is Kind.BIDIRECTIONAL else None
        try:
            return await self._write()
        except BaseException:
            _cancel(call)
            raise
        finally:
            if reader is not None:
                reader.cancel()

    async def _write(self) -> Reply:
        while True:
            while self._unsent:
                await self._context.write(self._unsent.popleft())
                self._unanswered -= 1
                self._wants_to_read.set()
            if self._reply is not None:
                if self._reply.message:
                    await self._context.write(b"".join(self._reply.message))
                return self._reply
            self._wants_to_send.clear()
            await self._wants_to_send.wait()

    async def _read(self, call: GrpcCall) -> None:
        end = load().aio.EOF
        try:
            while not call.is_over:
                message = await self._context.read()
                if message is end:
                    if call.on_end is not None and not call.is_over:
                        call.on_end()
                    return
                self._unanswered += 1
                if call.on_message is not None and not call.is_over:
                    call.on_message(message)
                while self._unanswered >= _MAX_UNANSWERED:
                    self._wants_to_read.clear()
                    await self._wants_to_read.wait()
        except PenstockError as error:
            call.fail(error)
        except Exception:
            log.exception("call %s failed inside", call.id.decode())
            call.fail(internal())

    def send(self, call: GrpcCall, message: tuple[Buffer, ...]) -> None:
        if len(self._unsent) >= _MAX_UNSENT:
            call.fail(ResourceExhausted(f"The client has not taken {_MAX_UNSENT} messages of the stream."))
            return
        self._unsent.append(b"".join(message))
        self._wants_to_send.set()

    def answered(self, call: GrpcCall, reply: Reply) -> None:
        self._reply = reply
        self._wants_to_send.set()


def _begin(method: Method, call: GrpcCall) -> None:
    try:
        method.handler(call)
    except PenstockError as error:
        call.fail(error)
    except Exception:
        log.exception("call %s failed inside", call.id.decode())
        call.fail(internal())


def _cancel(call: GrpcCall) -> None:
    """Nobody waits for the call's answer any more."""
    if not call.is_over:
        call.is_over = True
        if call.on_cancel is not None:
            call.on_cancel()


async def _end(grpc: Any, context: Any, reply: Reply) -> None:
    """Sets what goes behind the messages; ends the call, by raising, where it is an error."""
    fields = tuple(
        (name.decode("latin-1"), value if name.endswith(b"-bin") else value.decode("latin-1")) for name, value in reply.fields
    )
    error = reply.error
    if error is not None:
        text = error_text(error).encode("utf-8", "replace").decode()
        await context.abort(_status_codes(grpc)[error.code], text, fields)
    elif fields:
        context.set_trailing_metadata(fields)


@functools.lru_cache(maxsize=1)
def _status_codes(grpc: Any) -> Mapping[int, Any]:
    return {status.value[0]: status for status in grpc.StatusCode}


def _call(carrier: _Unary | _Stream, server: GrpcioServer, path: str, message: bytes, context: Any) -> GrpcCall:
    metadata = _metadata(context.invocation_metadata() or ())
    now_ns = time.monotonic_ns()
    left_s = context.time_remaining()
    return GrpcCall(
        carrier,
        path,
        metadata,
        message,
        deadline_ns=0 if left_s is None else now_ns + int(left_s * 1e9),
        first_byte_ns=now_ns,
        request_id=metadata.get(b"x-request-id") or server.next_id(),
    )


def _metadata(fields: Iterable[tuple[str, str | bytes]]) -> Mapping[bytes, bytes]:
    """Fields by name, as they came: grpcio has decoded binary ones. Values of those that come more than once are joined."""
    metadata: dict[bytes, bytes] = {}
    for key, text in fields:
        name = key.encode("latin-1")
        value = text if isinstance(text, bytes) else text.encode("latin-1")
        if name.endswith(b"-bin"):
            value = base64.b64encode(value)
        before = metadata.get(name)
        metadata[name] = value if before is None else before + b", " + value
    return metadata
