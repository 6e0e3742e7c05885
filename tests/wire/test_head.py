"""Heads: what is understood, what is refused with which status, and what is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.wire import head as head_module
from penstock.wire.head import CHUNKED, Head, HttpError, may_become_head, parse_head


def head_of(*lines: str) -> Head:
    return parse_head("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")


def refusal(data: bytes) -> int:
    with pytest.raises(HttpError) as caught:
        parse_head(data)
    return caught.value.status


def test_a_head_is_read() -> None:
    head = head_of("POST /v1/models/m:predict?a=b&c HTTP/1.1", "HOST: h", "Content-Length: 12", "Content-Type: text/csv ")
    assert (head.method, head.path, head.query, head.version) == ("POST", "/v1/models/m:predict", "a=b&c", "1.1")
    assert (head.length, head.content_type, head.keeps_alive) == (12, "text/csv", True)
    assert head.field(b"host") == "h"
    assert head.field(b"absent") is None


def test_fields_that_come_twice_are_joined() -> None:
    assert head_of("GET / HTTP/1.1", "Accept: a", "ACCEPT: b").field(b"accept") == "a, b"


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "keep-alive, close", False),
        ("1.1", "x-close-it", True),
        ("1.0", None, False),
        ("1.0", "Keep-Alive", True),
        ("1.0", "close, keep-alive", False),
        ("1.0", "not-keep-alive", False),
    ],
)
def test_connection_decides_what_follows(version: str, connection: str | None, keeps: bool) -> None:
    fields = [] if connection is None else [f"Connection: {connection}"]
    assert head_of(f"GET / HTTP/{version}", *fields).keeps_alive is keeps


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("//a//b", "//a//b", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/a%00%0d%0a%2f%zz%", "/a%00%0d%0a%2f%zz%", ""),
        ("/x?u=http://h/y", "/x", "u=http://h/y"),
        ("http://host:80/a/b?c", "/a/b", "c"),
        ("http://host", "/", ""),
        ("http://host?c", "/", "c"),
        ("*", "*", ""),
    ],
)
def test_targets(target: str, path: str, query: str) -> None:
    """Escapes are the API's to decode; a proxy's absolute target means its path."""
    head = head_of(f"OPTIONS {target} HTTP/1.1")
    assert (head.path, head.query) == (path, query)


def test_non_ascii_values_are_kept_as_bytes() -> None:
    head = parse_head(b"GET / HTTP/1.1\r\nX-Name: \xff\xe9\r\n\r\n")
    assert head.fields[b"x-name"] == b"\xff\xe9"
    assert head.field(b"x-name") == "\xff\xe9"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: xchunked", 400),
        ("Transfer-Encoding: \x0bchunked", 400),
        ("Transfer-Encoding : chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: -5", 400),
        ("Content-Length: 5 5", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length: 5_0", 400),
        ("Content-Length: \xb2", 400),
        ("Content-Length:", 400),
        ("Content-Length: 99999999999999999999999", 400),
        ("Content-Length : 5", 400),
        ("A: b\r\n folded", 400),
        ("A: b\r\n\tfolded", 400),
        (" A: b", 400),
        ("A: b\nContent-Length: 5", 400),
        ("A: b\rContent-Length: 5", 400),
        ("A: \0", 400),
        ("A\0: b", 400),
        ("A: \x01", 400),
        ("no colon", 400),
        (": no name", 400),
        ("na me: x", 400),
        ("n\xe4me: x", 400),
    ],
)
def test_fields_that_two_readers_could_understand_differently_are_refused(line: str, status: int) -> None:
    assert refusal(f"POST / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n".encode("latin-1")) == status


def test_an_empty_transfer_encoding_is_refused() -> None:
    """As broken or as unknown: versions of the parser differ."""
    assert refusal(b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n") in (400, 501)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET / ",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET / HTTP/1.2",
        b"GET / HTTP/0.9",
        b"GET / HTTP/2.0",
        b"GET / HTTP/11",
        b"GET / http/1.1",
        b"GET / RTSP/1.0",
        b"SOURCE / ICE/1.0",
        b"get / HTTP/1.1",
        b"NONSENSE / HTTP/1.1",
        b"G\xc4T / HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"PRI * HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET ?a HTTP/1.1",
        b"GET /\x01 HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"\nGET / HTTP/1.1",
        b"\rGET / HTTP/1.1",
        b"HTTP/1.1 200 OK",
    ],
)
def test_first_lines_that_are_no_http_1_are_400(line: bytes) -> None:
    assert refusal(line + b"\r\nHost: h\r\n\r\n") == 400


def test_bare_line_feeds_do_not_end_a_head() -> None:
    assert refusal(b"GET / HTTP/1.1\nHost: x\n\nGET /second HTTP/1.1\r\nHost: y\r\n\r\n") == 400
    assert refusal(b"GET / HTTP/1.1\r\nHost: x\r\n\nGET /second HTTP/1.1\r\n\r\n") == 400


def test_chunked_needs_http_1_1() -> None:
    assert head_of("POST / HTTP/1.1", "Transfer-Encoding: Chunked").length == CHUNKED
    assert refusal(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n") == 400


def test_expect_is_for_http_1_1() -> None:
    assert head_of("POST / HTTP/1.1", "Expect: 100-Continue").expects_continue
    assert not head_of("POST / HTTP/1.0", "Expect: 100-continue").expects_continue


@pytest.mark.parametrize(
    ("value", "kept"),
    [("abc-1", True), ("a" * 128, True), ("a" * 129, False), ("", False), ("\xe9", False), ("a\tb", False), ('"{}', True)],
)
def test_request_ids_that_are_printable_and_short_are_kept(value: str, kept: bool) -> None:
    assert head_of("GET / HTTP/1.1", f"X-Request-Id: {value}").request_id == (value.encode() if kept else b"")


def test_an_upgrade_is_not_taken_up() -> None:
    head = head_of("GET /u HTTP/1.1", "Connection: Upgrade", "Upgrade: h2c")
    assert (head.path, head.keeps_alive) == ("/u", True)
    assert head_of("CONNECT h:1 HTTP/1.1").path == "h:1"


def test_the_same_bytes_are_the_same_head_and_others_are_not() -> None:
    one = b"GET /same HTTP/1.1\r\nA: 1\r\n\r\n"
    assert parse_head(one) is parse_head(bytes(bytearray(one)))
    assert parse_head(one.replace(b"1\r\n\r\n", b"2\r\n\r\n")).field(b"a") == "2"


def test_what_is_kept_of_heads_is_bounded() -> None:
    for number in range(3000):
        head_of(f"GET /{number} HTTP/1.1")
    head_of("GET / HTTP/1.1", "A: " + "x" * 3000)
    head_of("GET / HTTP/1.1", *(f"A{number}: b" for number in range(100)))
    assert len(head_module._heads) <= 1024
    assert all(len(data) <= 2048 and len(head.fields) <= 32 for data, head in head_module._heads.items())


def test_refused_heads_are_not_kept() -> None:
    bad = b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"
    assert refusal(bad) == refusal(bad) == 400
    assert bad not in head_module._heads


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n", b"\0", b"{}", b"A" * 30, b"\n", b"\r\0", b" GET"]
)
def test_what_cannot_become_a_request_is_known_from_its_first_bytes(data: bytes) -> None:
    assert not may_become_head(data)


@pytest.mark.parametrize("line", [b"GET /a b c", b"M-SEARCH * HTTP/1.1\r\nA: b", b"\r"])
def test_every_beginning_of_a_request_may_become_one(line: bytes) -> None:
    assert all(may_become_head(line[:size]) for size in range(1, len(line) + 1))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\n", b":", b"A", b"\0", b"\xff", b"Host", b"\t"])))
def test_pieces_of_heads_in_any_order_are_understood_or_refused(pieces: list[bytes]) -> None:
    data = b"".join(pieces) + b"\r\n\r\n"
    status, head = 0, None
    try:
        head = parse_head(data)
    except HttpError as error:
        status = error.status
    assert status in (0, 400, 501)
    assert head is None or (head.path and head.version in ("1.0", "1.1"))
