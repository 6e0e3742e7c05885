"""What the connections of a gateway share: the app and its methods, the limits, and the lines that end every head.

Guarantees: what goes wrong inside the app is that request's answer. Connections that make no progress are ended when `sweep` is
called; after `drain` none takes a further request.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.wire.answer import error_response
from penstock.wire.encoding import decompress
from penstock.wire.grpc import Methods, internal
from penstock.wire.http1 import HttpConnection
from penstock.wire.request import App, Request

if TYPE_CHECKING:
    from penstock.wire.http2 import Http2Connection
    from penstock.wire.stream import StreamHead

log = logging.getLogger("penstock.wire")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may cost. Times in seconds."""

    max_head_bytes: int = 32 << 10
    max_body_bytes: int = 256 << 20
    max_message_bytes: int = (2 << 30) - 1
    #: Of all streams of an HTTP/2 connection together: what has come of bodies that are not whole.
    max_unfinished_bytes: int = 2 << 30
    head_timeout_s: float = 10.0
    progress_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    min_bytes_per_s: int = 1024


class HttpServer:
    """`fields` are header lines of every answer, `methods` what gRPC can call; `touched` is called when bytes have come."""

    def __init__(
        self,
        app: App,
        limits: Limits,
        fields: bytes = b"",
        methods: Methods | None = None,
        touched: Callable[[], None] | None = None,
    ) -> None:
        self.app = app
        self.touched = touched
        self.methods: Methods = methods or {}
        self.stream_heads: dict[tuple[bytes, ...], StreamHead] = {}
        self.fields = fields
        self.limits = limits
        self.connections: set[HttpConnection | Http2Connection] = set()
        self.is_draining = False
        self._ids = itertools.count(1)
        self._id_prefix = os.urandom(6).hex().encode() + b"-"
        self.last_lines = b""
        self.refresh_date()

    def protocol(self) -> HttpConnection:
        return HttpConnection(self)

    def run(self, request: Request) -> None:
        """Hands a request that is whole to the app; what is wrong with it, or goes wrong inside, is its answer."""
        encoding = request.head.content_encoding
        try:
            if encoding and request.body_bytes:
                request.body = decompress(request.body, encoding, self.limits.max_body_bytes)
                request.body_bytes = len(request.body)
            self.app(request)
        except PenstockError as error:
            request.answer(error_response(error))
        except Exception:
            log.exception("request %s failed inside", request.id.decode())
            request.answer(error_response(internal()))

    def next_id(self) -> bytes:
        return self._id_prefix + b"%x" % next(self._ids)

    def refresh_date(self) -> None:
        """The lines that end every head are the same for a second."""
        self.last_lines = f"date: {formatdate(usegmt=True)}\r\n".encode() + self.fields + b"\r\n"

    def sweep(self) -> None:
        """Ends the connections that have made no progress for too long. To be called about once a second."""
        self.refresh_date()
        now = time.monotonic()
        for connection in list(self.connections):
            connection.check_progress(now)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be sent. (With TLS, a connection lasts until the client has said that it ends it too.)"""
        return all(connection.is_done for connection in self.connections)

    def drain(self) -> None:
        """Takes no further request on any connection; ends the idle ones."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.end_if_idle()
