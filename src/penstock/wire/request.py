"""What passes between the wire and an API: a request that is whole, and its answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from penstock.wire.head import Head

JSON_TYPE = "application/json"


class Response:
    """An answer: `fields` are further header lines, each with its line end."""

    __slots__ = ("body", "content_type", "fields", "status")

    def __init__(self, status: int, body: bytes, content_type: str = JSON_TYPE, fields: bytes = b"") -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.fields = fields

    def add_field(self, name: bytes, value: bytes) -> None:
        """Adds a header line."""
        self.fields += b"%b: %b\r\n" % (name, value)


class Writer(Protocol):
    """Whoever sends an answer in its turn."""

    def answered(self, request: Request, response: Response) -> None: ...


class Request:
    """A request with its whole body. An API calls `answer` exactly once, then or later.

    `buffer` is the body as it came: of a large one the only copy there is. `body` is the same as bytes, which may cost one.
    `body_bytes` is the size of the body, also when that has been forgotten. `first_byte_ns` and `read_ns` are when its first byte
    and its last were seen, on the monotonic clock.
    """

    __slots__ = ("body_bytes", "buffer", "first_byte_ns", "head", "id", "read_ns", "response", "writer")

    #: HTTP/1.1 has no field for the time that a client is ready to wait, and none for giving up.
    deadline_ns: ClassVar[int] = 0
    is_cancellable: ClassVar[bool] = False

    def __init__(self, head: Head, body: bytes | memoryview, writer: Writer, first_byte_ns: int, request_id: bytes) -> None:
        self.head = head
        self.buffer = body
        self.body_bytes = len(body)
        self.writer = writer
        self.first_byte_ns = first_byte_ns
        self.read_ns = time.monotonic_ns()
        self.id = request_id
        self.response: Response | None = None

    @property
    def body(self) -> bytes:
        if type(self.buffer) is not bytes:
            self.buffer = bytes(self.buffer)
        return self.buffer

    @body.setter
    def body(self, body: bytes) -> None:
        self.buffer = body

    def forget_body(self) -> None:
        """It is not needed any more: large ones should not stay until the answer is there."""
        self.buffer = b""

    def answer(self, response: Response) -> None:
        """Sends the answer when its turn has come (answers leave a connection in the order of its requests)."""
        self.writer.answered(self, response)


App = Callable[[Request], None]
