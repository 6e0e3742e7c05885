"""Answers: from a response to the bytes of HTTP/1.1.

Guarantees: never raises, whatever an API or a script put into a response: an answer that is lost would give every later one
of its connection to the wrong request.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import orjson

from penstock.errors import PenstockError
from penstock.wire.encoding import MIN_COMPRESSED_BYTES, compress, is_compressible, is_worth_compressing
from penstock.wire.request import JSON_TYPE, Request, Response

if TYPE_CHECKING:
    from penstock.wire.server import HttpServer

#: Bodies from here on are sent beside their head instead of copied behind it.
_SEPARATE_BODY_BYTES = 16 << 10
_STATUS_LINES = {int(status): b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_KEPT_STARTS = 256
_MAX_KEPT_CHARACTERS = 128
_starts: dict[tuple[int, str], bytes] = {}


def error_response(error: PenstockError) -> Response:
    message = error.message.encode("utf-8", "replace").decode()
    return Response(error.http_status, orjson.dumps({"error": message}), JSON_TYPE)


def write_answer(transport: asyncio.Transport, server: HttpServer, request: Request, *, is_last: bool) -> None:
    """Sends the response of `request`. `is_last`: the connection ends behind it."""
    response = cast(Response, request.response)
    head = request.head
    body, fields = ready_body(request, response)
    if is_last:
        fields += b"connection: close\r\n"
    elif head.version == "1.0":
        fields += b"connection: keep-alive\r\n"
    start = b"%b%d\r\nx-request-id: %b\r\n%b%b" % (
        _starts.get((response.status, response.content_type)) or _start(response.status, response.content_type),
        len(body),
        request.id,
        fields,
        server.last_lines,
    )
    if head.method == "HEAD":
        transport.write(start)
    elif len(body) < _SEPARATE_BODY_BYTES:
        transport.write(start + body)
    else:
        transport.writelines((start, body))


def ready_body(request: Request, response: Response) -> tuple[bytes, bytes]:
    """The body, compressed where that is worth it and the client takes it, and the API's header lines with those about that."""
    body, fields, content_type = response.body, response.fields, response.content_type
    if len(body) >= MIN_COMPRESSED_BYTES and is_compressible(content_type):
        fields += b"vary: accept-encoding\r\n"
        if is_worth_compressing(request.head.accept_encoding, content_type, len(body)):
            return compress(body), fields + b"content-encoding: gzip\r\n"
    return body, fields


def headers_of(request: Request, response: Response, size: int, lines: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of an answer over HTTP/2; `lines` are those that HTTP/1.1 would have, `size` is the body's."""
    fields = [
        (b":status", b"%d" % response.status),
        (b"content-type", _content_type(response.content_type)),
        (b"content-length", b"%d" % size),
        (b"x-request-id", request.id),
    ]
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name:
            fields.append((name.strip().lower(), value.strip()))
    return fields


def _content_type(text: str) -> bytes:
    """Scripts and clients choose some content types: they must not end the line."""
    return text.encode("latin-1", "replace") if text.isprintable() else b"application/octet-stream"


def _start(status: int, content_type: str) -> bytes:
    """An answer up to its length, remembered."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
    start = b"%bcontent-type: %b\r\ncontent-length: " % (line, _content_type(content_type))
    if len(_starts) >= _KEPT_STARTS:
        _starts.clear()
    if len(content_type) <= _MAX_KEPT_CHARACTERS:
        _starts[status, content_type] = start
    return start
