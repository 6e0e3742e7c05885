"""gRPC as an API sees it: a call with its request message, and the reply that ends it.

What carries it (HTTP/2 by libnghttp2, or grpcio) is another module's; handlers are the same for both.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from penstock.errors import Internal, PenstockError
from penstock.wire.grpc_fields import metadata_of

#: Bytes; a memoryview has one dimension and format "B".
Buffer = bytes | bytearray | memoryview


class Reply:
    """The end of a call: the response message of a unary one, as buffers to be sent one behind the other, or an error.

    `fields` are trailing metadata.
    """

    __slots__ = ("error", "fields", "message")

    def __init__(self, message: tuple[Buffer, ...] = (), error: PenstockError | None = None) -> None:
        self.message = message
        self.error = error
        self.fields: list[tuple[bytes, bytes]] = []

    def add_field(self, name: bytes, value: bytes) -> None:
        """Adds a field of metadata, sent behind the message."""
        self.fields.append((name, value))


class Carrier(Protocol):
    """Whoever sends what a call is answered with."""

    def send(self, call: GrpcCall, message: tuple[Buffer, ...]) -> None: ...

    def answered(self, call: GrpcCall, reply: Reply) -> None: ...


class GrpcCall:
    """A call. A handler has it answered exactly once, then or later; what is sent to a call that is over goes nowhere.

    Unary and server-streaming handlers are called when `message`, the request, is whole. Handlers of bidirectional streams are
    called at once, and set `on_message` and `on_end` (the client has sent all) before they return. `on_cancel` is called when the
    client has given up, or is gone; the call needs no answer then.

    `head` has the client's fields as they came, names in lower case. `deadline_ns` is 0 where the client gave none; times are on
    the monotonic clock. `id` is the client's x-request-id, or a new one.
    """

    __slots__ = (
        "carrier",
        "deadline_ns",
        "first_byte_ns",
        "head",
        "id",
        "is_over",
        "message",
        "on_cancel",
        "on_end",
        "on_message",
        "path",
        "read_ns",
    )

    is_cancellable: ClassVar[bool] = True

    def __init__(
        self,
        carrier: Carrier,
        path: str,
        head: Mapping[bytes, bytes],
        message: Buffer,
        deadline_ns: int,
        first_byte_ns: int,
        request_id: bytes,
    ) -> None:
        self.carrier = carrier
        self.path = path
        self.head = head
        self.message = message
        self.deadline_ns = deadline_ns
        self.first_byte_ns = first_byte_ns
        self.read_ns = time.monotonic_ns()
        self.id = request_id
        self.is_over = False
        self.on_message: Callable[[Buffer], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_cancel: Callable[[], None] | None = None

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """The client's fields, the values of those that end in `-bin` decoded. Raises InvalidArgument where one is not base64."""
        return metadata_of(self.head)

    def forget_body(self) -> None:
        """The message is not needed any more: large ones should not stay until the answer is there."""
        self.message = b""

    def send(self, message: tuple[Buffer, ...]) -> None:
        """Sends a message of a response stream."""
        if not self.is_over:
            self.carrier.send(self, message)

    def answer(self, reply: Reply) -> None:
        """Ends the call."""
        if not self.is_over:
            self.is_over = True
            self.carrier.answered(self, reply)

    def fail(self, error: PenstockError) -> None:
        """Ends the call with an error."""
        self.answer(Reply(error=error))


class Kind(enum.Enum):
    """How many messages go each way."""

    UNARY = enum.auto()
    SERVER_STREAM = enum.auto()
    BIDIRECTIONAL = enum.auto()


Handler = Callable[[GrpcCall], None]


@dataclass(frozen=True, slots=True)
class Method:
    """What answers the calls of a path. What a handler raises ends the call."""

    handler: Handler
    kind: Kind = Kind.UNARY


#: Methods by path: `/package.Service/Method`.
Methods = Mapping[str, Method]


class Service(Protocol):
    """One or more services of gRPC; `names` are their full names."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def methods(self) -> Methods: ...


def join_methods(services: Iterable[Service]) -> Methods:
    """The methods of all services."""
    return {path: method for service in services for path, method in service.methods().items()}


#: Messages of errors are cut here, as TensorFlow Serving does it (contract §2.1).
MAX_ERROR_CHARACTERS = 1024


def error_text(error: PenstockError) -> str:
    """The message of an error as it is sent."""
    text = error.message
    return text if len(text) <= MAX_ERROR_CHARACTERS else text[:MAX_ERROR_CHARACTERS] + "...TRUNCATED"


def internal() -> PenstockError:
    return Internal("Internal error; the server's log has the rest.")
