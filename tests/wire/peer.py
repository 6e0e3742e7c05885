"""A client, a transport and an event loop in one, without sockets: bytes in, bytes out, in the order of a real loop.

What is sent while the server does not read waits, as it would in the kernel. Like uvloop's, the transport refuses to write
behind the end that it has sent.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import orjson

from penstock.wire.request import Request, Response
from penstock.wire.server import HttpServer, Limits

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class _Stream(io.BytesIO):
    """http.client closes what it reads from after each answer."""

    def makefile(self, *_: object) -> _Stream:
        return self

    def close(self) -> None:
        pass


def parse(data: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """All answers in `data`, by http.client; fails where anything is left over."""
    stream = _Stream(data)
    answers: list[Answer] = []
    while stream.tell() < len(data):
        method = methods[len(answers)] if len(answers) < len(methods) else "GET"
        response = http.client.HTTPResponse(cast(socket.socket, stream), method=method)
        response.begin()
        fields = [(name.lower(), value) for name, value in response.getheaders()]
        assert len(dict(fields)) == len(fields), f"a field comes twice: {fields}"
        answers.append(Answer(response.status, dict(fields), response.read()))
    return answers


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.reads = True
        self.is_closed = False
        self.is_aborted = False
        self.has_sent_end = False
        self.unsent = 0
        self.on_write: Callable[[int], None] = lambda size: None

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.has_sent_end, "nothing can be written behind the end"
        if not self.is_closed:
            self.sent += data
            self.on_write(len(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_sent_end = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


class _Turns:
    """The part of an event loop that a connection uses."""

    def __init__(self) -> None:
        self.ready: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self.ready.append((callback, args))

    @contextmanager
    def running(self) -> Iterator[None]:
        asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, self))
        try:
            yield
        finally:
            asyncio._set_running_loop(None)


def describe(request: Request) -> Response:
    """An answer that says what the request was."""
    head = request.head
    body = request.body.decode("latin-1")
    return Response(200, orjson.dumps({"method": head.method, "path": head.path, "query": head.query, "body": body}))


def answer_at_once(request: Request) -> None:
    request.answer(describe(request))


class Peer:
    """A connection to a server whose app is `app`; without one, `requests` are for the test to answer."""

    def __init__(
        self, app: Callable[[Request], None] | None = None, limits: Limits | None = None, server: HttpServer | None = None
    ) -> None:
        self.requests: list[Request] = []
        self._app = app
        self.server = server or HttpServer(self._receive, limits or Limits())
        self.protocol = self.server.protocol()
        self.transport = Transport()
        self.turns = _Turns()
        self.turns_taken = 0
        self._inbox: deque[bytes | None] = deque()
        self._is_lost = False
        self.protocol.connection_made(self.transport)

    def _receive(self, request: Request) -> None:
        self.requests.append(request)
        if self._app is not None:
            self._app(request)

    def send(self, *segments: bytes) -> Peer:
        self._inbox.extend(segments)
        return self.run()

    def send_end(self) -> Peer:
        self._inbox.append(None)
        return self.run()

    def answer(self, request: Request, response: Response | None = None) -> None:
        with self.turns.running():
            request.answer(response or describe(request))
        self.run()

    def lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self.transport.is_closed = True
            self.protocol.connection_lost(None)

    def run(self) -> Peer:
        """Lets the loop turn until nothing more happens. What has arrived comes before what was scheduled: the worst order."""
        with self.turns.running():
            while not self._is_lost:
                if self._inbox and self.transport.reads and not self.transport.is_closed:
                    self._deliver(self._inbox.popleft())
                elif self.turns.ready:
                    self.turns_taken += 1
                    callback, args = self.turns.ready.popleft()
                    callback(*args)
                else:
                    break
        return self

    def _deliver(self, data: bytes | None) -> None:
        if data is None and not self.protocol.eof_received():
            self.transport.close()
        while data:  # as a transport does: into the memory that it is given
            room = memoryview(self.protocol.get_buffer(len(data)))
            size = min(len(room), len(data))
            room[:size] = data[:size]
            self.protocol.buffer_updated(size)
            data = data[size:]

    def take_sent(self) -> bytes:
        sent = bytes(self.transport.sent)
        self.transport.sent.clear()
        return sent

    def answers(self) -> list[Answer]:
        """What has been sent since the last time."""
        return parse(self.take_sent(), [request.head.method for request in self.requests])

    def only_answer(self) -> Answer:
        (answer,) = self.answers()
        return answer

    @property
    def has_ended(self) -> bool:
        """The server has said its last, whether or not it still listens."""
        return self.transport.is_closed or self.transport.has_sent_end


def cuts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`data` in two, at every position."""
    for at in range(1, len(data)):
        yield data[:at], data[at:]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def request_bytes(body: bytes = b"", *fields: str, line: str = "POST /p?q=1 HTTP/1.1") -> bytes:
    lines = [line, "Host: h", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


def chunked_request(body: bytes, *fields: str, line: str = "POST /c HTTP/1.1") -> bytes:
    lines = [line, "Host: h", *fields, "Transfer-Encoding: chunked"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
