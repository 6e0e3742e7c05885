"""Every error that a client or a user can see, with its place in HTTP and gRPC.

Guarantees: each class has one neutral code (the gRPC code names); both tables are total over the codes. The message of
an error is written for the person who has to act on it, and holds nothing that is only known inside.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Code(enum.IntEnum):
    """The gRPC status codes, by number."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


#: HTTP status of each code, as TensorFlow Serving maps them (contract §1.2).
HTTP_STATUS: dict[Code, int] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


class PenstockError(Exception):
    """Base of all errors with a place in the table; `message` is what the client reads."""

    code: ClassVar[Code] = Code.UNKNOWN

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def http_status(self) -> int:
        return HTTP_STATUS[self.code]


class Cancelled(PenstockError):
    """The client went away or took its request back."""

    code = Code.CANCELLED


class Unknown(PenstockError):
    """An error of a runtime that gave no better code."""

    code = Code.UNKNOWN


class InvalidArgument(PenstockError):
    """The request itself is wrong, whatever the state of the server."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(PenstockError):
    """The time that the request had is over."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(PenstockError):
    """No such model, version or route."""

    code = Code.NOT_FOUND


class AlreadyExists(PenstockError):
    """What should be made is there."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(PenstockError):
    """Not for this caller."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(PenstockError):
    """A bound was reached: a queue, a size, memory."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(PenstockError):
    """Right in itself, but not in the present state of the server or model."""

    code = Code.FAILED_PRECONDITION


class Aborted(PenstockError):
    """Stopped half-way by a conflict."""

    code = Code.ABORTED


class OutOfRange(PenstockError):
    """Past the end of what is valid."""

    code = Code.OUT_OF_RANGE


class Unimplemented(PenstockError):
    """Known, but not something this server does."""

    code = Code.UNIMPLEMENTED


class Internal(PenstockError):
    """A defect of ours; the log has the rest."""

    code = Code.INTERNAL


class ScriptFailed(Internal):
    """A script failed, or chose to: with the HTTP status and the JSON that the client gets."""

    def __init__(self, message: str, status: int, body: bytes) -> None:
        super().__init__(message)
        self._status = status
        self.body = body

    @property
    def http_status(self) -> int:
        return self._status


class Unavailable(PenstockError):
    """Not now; trying again may help."""

    code = Code.UNAVAILABLE


class DataLoss(PenstockError):
    """Something stored is broken."""

    code = Code.DATA_LOSS


class Unauthenticated(PenstockError):
    """The caller did not say who it is."""

    code = Code.UNAUTHENTICATED


BY_CODE: dict[Code, type[PenstockError]] = {
    kind.code: kind
    for kind in (
        Cancelled,
        Unknown,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
        Unauthenticated,
    )
}


def from_code(code: int, message: str) -> PenstockError:
    """The error of a numeric gRPC code; codes outside the table and OK become UNKNOWN."""
    try:
        kind = BY_CODE[Code(code)]
    except (ValueError, KeyError):
        kind = Unknown
    return kind(message)


class UsageError(Exception):
    """What a person at the command line got wrong: one line that says what, and what to do about it."""
