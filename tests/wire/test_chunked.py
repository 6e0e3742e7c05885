"""Chunked bodies: decoded the same however they are cut, refused when two readers could differ about them."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.wire.chunked import ChunkedBody
from penstock.wire.head import HttpError
from tests.wire.peer import bytewise, chunked, cuts


def decode(*segments: bytes, max_bytes: int = 1000) -> tuple[bytes, bytes] | None:
    """The body and what follows it, None where it is not whole."""
    body = ChunkedBody(max_bytes)
    rest = None
    for segment in segments:
        rest = body.feed(segment) if rest is None else rest + segment
    return None if rest is None else (bytes(body.content), rest)


def refusal(*segments: bytes, max_bytes: int = 1000) -> int:
    with pytest.raises(HttpError) as caught:
        decode(*segments, max_bytes=max_bytes)
    return caught.value.status


WHOLE = [
    (b"0\r\n\r\n", b""),
    (b"000\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"A\r\n0123456789\r\n00a\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    (b"5;name=value\r\nhello\r\n0;last\r\n\r\n", b"hello"),
    (b'5 ; n="v;w"\r\nhello\r\n0\r\n\r\n', b"hello"),
    (b"5 \t\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    (b"1\r\na\r\n0\r\nX-Checksum: 1\r\nY:\r\n\r\n", b"a"),
]


@pytest.mark.parametrize(("data", "body"), WHOLE)
def test_a_body_is_the_same_however_it_is_cut(data: bytes, body: bytes) -> None:
    data += b"GET /next"
    assert decode(data) == (body, b"GET /next")
    assert decode(*bytewise(data)) == (body, b"GET /next")
    for first, second in cuts(data):
        assert decode(first, second) == (body, b"GET /next")


@pytest.mark.parametrize("data", [data for data, _ in WHOLE])
def test_no_beginning_of_a_body_is_whole(data: bytes) -> None:
    for first, _ in cuts(data):
        assert decode(first) is None


BROKEN = [
    b"\r\n",
    b"g\r\n",
    b"-1\r\n",
    b"+1\r\na\r\n",
    b" 1\r\na\r\n",
    b"0x1\r\na\r\n",
    b"1_0\r\n",
    b"\xd9\xa1\r\n",
    b"1 1\r\n",
    b";ext\r\n",
    b"ffffffffffffffff\r\n",
    b"0000000000000001\r\na\r\n0\r\n\r\n",
    b"1\na\n0\n\n\r\n",
    b"1;a\nb\r\na\r\n0\r\n\r\n",
    b"1;a\rb\r\na\r\n0\r\n\r\n",
    b"1;a\0b\r\na\r\n0\r\n\r\n",
    b"1\x0b\r\na\r\n0\r\n\r\n",
    b"1\r\nab\r\n0\r\n\r\n",
    b"1\r\na\n0\r\n\r\n",
    b"1\r\na0\r\n\r\n",
    b"0\r\nno field\r\n\r\n",
    b"0\r\n: v\r\n\r\n",
    b"0\r\nA: b\r\n folded\r\n\r\n",
    b"0\r\nA: b\nGET / HTTP/1.1\r\n\r\n",
    b"0\r\nA: \0\r\n\r\n",
]


@pytest.mark.parametrize("data", BROKEN)
def test_a_broken_body_is_refused_however_it_is_cut(data: bytes) -> None:
    assert refusal(data) == 400
    assert refusal(*bytewise(data)) == 400
    for first, second in cuts(data):
        assert refusal(first, second) == 400


def test_a_body_over_the_limit_is_refused_as_soon_as_it_is_announced() -> None:
    assert refusal(b"3e9\r\n") == 413
    assert refusal(chunked(b"a" * 500, b"b" * 500, b"c")) == 413
    assert decode(chunked(b"a" * 500, b"b" * 500)) == (b"a" * 500 + b"b" * 500, b"")


@pytest.mark.parametrize("length", [4095, 4096, 4097])
def test_the_longest_line_does_not_depend_on_where_it_is_cut(length: int) -> None:
    line = b"1;" + b"e" * (length - 2)
    data = line + b"\r\na\r\n0\r\n\r\n"
    for segments in ((data,), (line, data[length:]), (data[: length + 1], data[length + 1 :]), tuple(bytewise(data))):
        if length <= 4096:
            assert decode(*segments) == (b"a", b"")
        else:
            assert refusal(*segments) == 400


def test_a_line_without_end_is_not_kept() -> None:
    assert refusal(b"1" * 5000) == 400
    assert refusal(b"0\r\n", b"A: " + b"x" * 5000) == 400


def test_trailers_are_bounded() -> None:
    assert refusal(b"0\r\n" + b"A: b\r\n" * 5000) == 431


def test_the_body_is_released_without_the_garbage_collector() -> None:
    body = ChunkedBody(1000)
    body.feed(b"5\r\nhello\r\n")
    gc.collect()
    gc.disable()
    try:
        del body
        assert gc.collect() == 0
    finally:
        gc.enable()


@settings(max_examples=60, deadline=None)
@given(chunks=st.lists(st.binary(min_size=1, max_size=30), max_size=6), data=st.data())
def test_any_chunks_in_any_segments_give_the_body(chunks: list[bytes], data: st.DataObject) -> None:
    encoded = chunked(*chunks, trailers=b"T: 1\r\n") + b"rest"
    places = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8)))
    segments = [encoded[a:b] for a, b in zip([0, *places], [*places, len(encoded)], strict=True)]
    assert decode(*segments) == (b"".join(chunks), b"rest")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_random_bytes_are_refused_or_wait_but_nothing_else(segments: list[bytes]) -> None:
    status = 0
    try:
        decode(*segments, max_bytes=50)
    except HttpError as error:
        status = error.status
    assert status in (0, 400, 413, 431)
