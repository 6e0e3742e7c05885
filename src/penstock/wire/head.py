"""Request heads: from bytes to a `Head`, by httptools, and remembered.

A client that keeps its connection sends the same head over and over, but for its length, and often to the letter. Parsing
with httptools' callbacks costs 6 µs and more for a head of six fields; finding the same bytes in a dict costs 0.1. So heads
are immutable and the last of them are kept, bounded in number and size.

What two readers might understand differently (bare CR or LF, folded fields, more than one space) is refused before httptools
sees it: how strict that is depends on its version.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import httptools

from penstock.errors import PenstockError

_KEPT_HEADS = 1024
_MAX_KEPT_BYTES = 2048
_MAX_KEPT_FIELDS = 32
_REQUEST_LINE = re.compile(rb"[A-Z-]+ [^\x00-\x20\x7f]+ HTTP/1\.[01]\r\n")
_BEGINNING = re.compile(rb"\r?\Z|[A-Z-]{1,24}(?: |\Z)")
_NO_BODY = 0
#: `Head.length` of a chunked body.
CHUNKED = -1


class HttpError(PenstockError):
    """A request that ends at the wire: `status` and a text, before any API has seen it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def http_status(self) -> int:
        return self.status


class Head:
    """A request's first line and fields. Field names are lower case; of fields that come twice, values are joined by commas."""

    __slots__ = (
        "accept_encoding",
        "content_encoding",
        "content_type",
        "expects_continue",
        "fields",
        "keeps_alive",
        "length",
        "method",
        "path",
        "query",
        "request_id",
        "route",
        "version",
    )

    def __init__(self, method: str, target: bytes, version: str, fields: dict[bytes, bytes], keeps_alive: bool) -> None:
        self.method = method
        #: For the app to remember whose request this is: the same head comes again.
        self.route: Callable[..., None] | None = None
        self.version = version
        self.fields = fields
        self.keeps_alive = keeps_alive
        path, _, query = (target if target.startswith(b"/") else _origin_form(target)).partition(b"?")
        self.path = path.decode("latin-1")
        self.query = query.decode("latin-1")
        self.length = _length(fields, version)
        self.content_type = fields.get(b"content-type", b"").strip().decode("latin-1")
        self.content_encoding = fields.get(b"content-encoding", b"").strip().lower()
        self.accept_encoding = fields.get(b"accept-encoding", b"").lower()
        self.expects_continue = version == "1.1" and fields.get(b"expect", b"").strip().lower() == b"100-continue"
        self.request_id = _request_id(fields.get(b"x-request-id", b""))

    def field(self, name: bytes) -> str | None:
        """A field's value as text, None where it is absent."""
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")


def _origin_form(target: bytes) -> bytes:
    """`/path?query` of an absolute target, as proxies send it; others (`*`, `host:port`) as they are."""
    _, is_absolute, rest = target.partition(b"://")
    if not is_absolute:
        return target
    at = re.search(rb"[/?#]|\Z", rest)
    origin = rest[at.start() :] if at else b""
    return origin if origin.startswith(b"/") else b"/" + origin


def _length(fields: dict[bytes, bytes], version: str) -> int:
    encoding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if encoding is not None:
        if length is not None:
            raise HttpError(400, "A request has either Content-Length or Transfer-Encoding, this one has both.")
        if version != "1.1":
            raise HttpError(400, "Transfer-Encoding needs HTTP/1.1.")
        if encoding.strip().lower() != b"chunked":
            raise HttpError(501, "The only Transfer-Encoding that is understood is chunked.")
        return CHUNKED
    if length is None:
        return _NO_BODY
    if not length.isdigit() or len(length) > 18:
        raise HttpError(400, "Content-Length is not a number.")
    return int(length)


def _request_id(value: bytes) -> bytes:
    """The client's request id where it can be sent back and logged as it is, else nothing."""
    if 0 < len(value) <= 128 and value.isascii() and value.decode("ascii").isprintable():
        return value
    return b""


class _Collector:
    """httptools' callbacks for one head."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: dict[bytes, bytes] = {}

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        before = self.fields.get(name)
        if before is not None:
            if name == b"content-length":
                raise HttpError(400, "Content-Length comes twice.")
            value = before + b", " + value
        self.fields[name] = value


_heads: dict[bytes, Head] = {}


def parse_head(data: bytes) -> Head:
    """The head that `data` is, up to and with its empty line. Raises HttpError."""
    head = _heads.get(data)
    if head is None:
        head = _parse(data)
        if len(data) <= _MAX_KEPT_BYTES and len(head.fields) <= _MAX_KEPT_FIELDS:
            if len(_heads) >= _KEPT_HEADS:
                _heads.clear()
            _heads[data] = head
    return head


def may_become_head(data: bytes) -> bool:
    """Whether the beginning of a head can be the beginning of a request: TLS and other protocols need not be waited for."""
    return _BEGINNING.match(data) is not None


def _check_lines(data: bytes) -> None:
    lines = data.count(b"\r\n")
    if data.count(b"\n") != lines or data.count(b"\r") != lines or b"\0" in data:
        raise HttpError(400, "The request is not HTTP: its head has bare CR, LF or NUL bytes.")
    if b"\r\n " in data or b"\r\n\t" in data:
        raise HttpError(400, "The request is not HTTP: a field goes on in the next line.")
    if not _REQUEST_LINE.match(data):
        raise HttpError(400, "The request is not HTTP/1.1 or 1.0: the first line is not a method, a target and a version.")


def _parse(data: bytes) -> Head:
    while data.startswith(b"\r\n"):
        data = data[2:]
    _check_lines(data)
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserCallbackError as error:
        if isinstance(error.__context__, HttpError):
            raise error.__context__ from None
        raise HttpError(400, "The request is not HTTP.") from None
    except httptools.HttpParserError as error:
        raise HttpError(400, f"The request is not HTTP: {error}.") from None
    method, version = parser.get_method(), parser.get_http_version()
    if not method or not collector.target:
        raise HttpError(400, "The request is not HTTP.")
    connection = {word.strip() for word in collector.fields.get(b"connection", b"").lower().split(b",")}
    keeps_alive = b"close" not in connection and (version == "1.1" or b"keep-alive" in connection)
    return Head(method.decode("ascii"), collector.target, version, collector.fields, keeps_alive)
