"""A server of gRPC in this process, by either of our transports, with methods that tests can look into.

Guarantees: it runs in a thread and on a loop of its own, as in a gateway; `close` ends both; what a handler saw is there to read.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import uvloop

from penstock.errors import InvalidArgument, from_code
from penstock.wire import http2
from penstock.wire.grpc import Buffer, GrpcCall, Kind, Method, Methods, Reply
from penstock.wire.grpcio_server import GrpcioServer
from penstock.wire.request import Request, Response
from penstock.wire.server import HttpServer, Limits
from tests.servers import wait_until

NGHTTP2, GRPCIO = "nghttp2", "grpcio"
TRANSPORTS = (NGHTTP2, GRPCIO) if http2.is_there() else (GRPCIO,)
MAX_MESSAGE_BYTES = 64 << 20
_SWEEP_S = 0.2

T = TypeVar("T")


class Handlers:
    """The methods of `test.Test`."""

    def __init__(self) -> None:
        self.waiting: list[GrpcCall] = []
        self.cancelled: list[GrpcCall] = []
        self.ended: list[GrpcCall] = []
        self.received: list[bytes] = []

    def forget(self) -> None:
        """For the next test: calls of this one may still be told that they are cancelled."""
        self.waiting, self.cancelled, self.ended, self.received = [], [], [], []

    def methods(self) -> Methods:
        return {
            "/test.Test/Echo": Method(self._echo),
            "/test.Test/Fail": Method(self._fail),
            "/test.Test/Raise": Method(self._raise),
            "/test.Test/Metadata": Method(self._metadata),
            "/test.Test/TimeLeft": Method(self._time_left),
            "/test.Test/Wait": Method(self._wait),
            "/test.Test/Count": Method(self._count, Kind.SERVER_STREAM),
            "/test.Test/Watch": Method(self._watch, Kind.SERVER_STREAM),
            "/test.Test/Chat": Method(self._chat, Kind.BIDIRECTIONAL),
            "/test.Test/Hold": Method(self._hold, Kind.BIDIRECTIONAL),
        }

    def _echo(self, call: GrpcCall) -> None:
        """The request, as two buffers."""
        message = memoryview(call.message)
        middle = len(message) // 2
        call.answer(Reply((message[:middle], message[middle:])))

    def _fail(self, call: GrpcCall) -> None:
        """An error: a byte of code, then the text; with metadata."""
        message = bytes(call.message)
        reply = Reply(error=from_code(message[0], message[1:].decode("utf-8", "surrogatepass")))
        reply.add_field(b"x-why", b"because")
        reply.add_field(b"x-why-bin", b"\x00\xff")
        call.answer(reply)

    def _raise(self, call: GrpcCall) -> None:
        if call.message:
            raise InvalidArgument(bytes(call.message).decode())
        raise RuntimeError("inside only")

    def _metadata(self, call: GrpcCall) -> None:
        """Gives the fields that begin with `x-` back, reversed."""
        reply = Reply()
        for name, value in call.metadata.items():
            if name.startswith(b"x-"):
                reply.add_field(name, value[::-1])
        call.answer(reply)

    def _time_left(self, call: GrpcCall) -> None:
        left_ns = call.deadline_ns - time.monotonic_ns() if call.deadline_ns else 0
        call.answer(Reply((str(left_ns).encode(),)))

    def _wait(self, call: GrpcCall) -> None:
        """Answers when the test says so."""
        call.on_cancel = partial(self.cancelled.append, call)
        self.waiting.append(call)

    def _count(self, call: GrpcCall) -> None:
        """`NUMBER SIZE [CODE]`: so many messages of that size, then the status."""
        number, size, *code = map(int, bytes(call.message).split())
        for index in range(number):
            call.send((b"%8d" % index, b"x" * (size - 8)))
        call.answer(Reply(error=from_code(code[0], "the end")) if code else Reply())

    def _watch(self, call: GrpcCall) -> None:
        """One message at once, then whatever the test sends."""
        self._wait(call)
        call.send((b"first",))

    def _chat(self, call: GrpcCall) -> None:
        """Gives each message back; `stop` ends with an error, `raise` fails."""

        def answer(message: Buffer) -> None:
            text = bytes(message)
            if text == b"stop":
                call.fail(InvalidArgument("stopped"))
            elif text == b"raise":
                raise RuntimeError("inside only")
            else:
                call.send((text,))

        call.on_message = answer
        call.on_end = lambda: call.answer(Reply())
        call.on_cancel = partial(self.cancelled.append, call)

    def _hold(self, call: GrpcCall) -> None:
        """Takes messages and answers none of them."""
        self._wait(call)
        received = self.received
        call.on_message = lambda message: received.append(bytes(message))
        call.on_end = partial(self.ended.append, call)


class TransportServer:
    """A server by `transport` on a free port. `run` runs what it is given in the server's loop."""

    def __init__(self, transport: str, limits: Limits | None = None, methods: Methods | None = None) -> None:
        self.handlers = Handlers()
        self.transport = transport
        self._limits = limits or Limits(max_message_bytes=MAX_MESSAGE_BYTES)
        self._methods = methods or self.handlers.methods()
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._grpcio: GrpcioServer | None = None
        self._http: HttpServer | None = None
        self._listening: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = self.run(self._start_grpcio() if transport == GRPCIO else self._start_nghttp2())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many there are; only of our own transport."""
        assert self._http is not None
        return len(self._http.connections)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 20.0) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls something in the server's loop, and waits for it."""

        async def in_loop() -> None:
            function(*arguments)

        self.run(in_loop())

    async def _start_grpcio(self) -> int:
        self._grpcio = GrpcioServer(self._methods, max_message_bytes=self._limits.max_message_bytes)
        (port,) = await self._grpcio.start(["127.0.0.1:0"])
        return port

    async def _start_nghttp2(self) -> int:
        http = self._http = HttpServer(_no_http, self._limits, methods=self._methods)
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listening = await self.loop.create_server(http.protocol, sock=listener, backlog=1024)
        self._tasks.add(asyncio.create_task(self._sweep(http)))
        return int(listener.getsockname()[1])

    @staticmethod
    async def _sweep(http: HttpServer) -> None:
        """As a gateway does it, only more often."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            http.sweep()

    def drain(self, grace_s: float = 5.0) -> None:
        """Takes no more calls; returns when those under way have ended."""
        if self._grpcio is not None:
            self.run(self._grpcio.stop(grace_s))
            return
        http, listening = self._http, self._listening
        assert http is not None
        assert listening is not None
        self.call(listening.close)
        self.call(http.drain)
        wait_until(lambda: not http.connections, "the end of all connections", grace_s)

    def close(self) -> None:
        """Ends everything, without asking."""

        async def end() -> None:
            if self._grpcio is not None:
                await self._grpcio.stop(0)
            if self._http is not None:
                for connection in list(self._http.connections):
                    if connection._transport is not None:
                        connection._transport.abort()
            if self._listening is not None:
                self._listening.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.sleep(0.01)

        self.run(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.loop.close()

    def __enter__(self) -> TransportServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _no_http(request: Request) -> None:
    request.answer(Response(404, b"{}"))


@contextmanager
def background(function: Callable[[], T]) -> Iterator[list[T]]:
    """Runs a function that blocks, in a thread; its result is in the list at the end."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    yield results
    thread.join(20)
    assert not thread.is_alive()


def serve_until_closed(progress_timeout_s: float) -> None:
    """A process that serves by libnghttp2 until its standard input ends; it prints its port."""
    limits = Limits(
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_unfinished_bytes=MAX_MESSAGE_BYTES * 3 // 2,
        head_timeout_s=progress_timeout_s,
        progress_timeout_s=progress_timeout_s,
        idle_timeout_s=2 * progress_timeout_s,
    )
    with TransportServer(NGHTTP2, limits) as server:
        print(server.port, flush=True)
        sys.stdin.read()
