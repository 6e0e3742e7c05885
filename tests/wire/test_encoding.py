"""gzip and deflate: both ways, within limits, never an exception other than HttpError."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.wire.encoding import MIN_COMPRESSED_BYTES, compress, decompress, is_worth_compressing
from penstock.wire.head import HttpError

BODY = b'{"instances": [1.0, 2.0, 5.0]}' * 10


def raw_deflate(body: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(body) + deflater.flush()


ENCODED = [
    (b"gzip", gzip.compress(BODY, mtime=0)),
    (b"x-gzip", gzip.compress(BODY, mtime=0)),
    (b"gzip", gzip.compress(BODY[:100], mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(BODY[100:], mtime=0)),
    (b"deflate", zlib.compress(BODY)),
    (b"deflate", raw_deflate(BODY)),
    (b"identity", BODY),
    (b"", BODY),
]


def refusal(body: bytes, encoding: bytes, max_bytes: int = 1000) -> int:
    with pytest.raises(HttpError) as caught:
        decompress(body, encoding, max_bytes)
    return caught.value.status


@pytest.mark.parametrize(("encoding", "encoded"), ENCODED)
def test_a_body_up_to_the_limit_is_decompressed(encoding: bytes, encoded: bytes) -> None:
    assert decompress(encoded, encoding, len(BODY)) == BODY


@pytest.mark.parametrize(("encoding", "encoded"), ENCODED[:5])
def test_a_body_one_byte_over_the_limit_is_413(encoding: bytes, encoded: bytes) -> None:
    assert refusal(encoded, encoding, len(BODY) - 1) == 413


@pytest.mark.parametrize(("encoding", "encoded"), [(b"gzip", ENCODED[0][1]), *ENCODED[3:5]])
def test_every_truncation_is_400(encoding: bytes, encoded: bytes) -> None:
    for size in range(1, len(encoded)):
        assert refusal(encoded[:size], encoding) == 400


@pytest.mark.parametrize(("encoding", "encoded"), ENCODED[:5])
def test_what_follows_the_end_is_400(encoding: bytes, encoded: bytes) -> None:
    assert refusal(encoded + b"junk", encoding) == 400


def test_a_wrong_checksum_is_400() -> None:
    encoded = bytearray(gzip.compress(BODY, mtime=0))
    encoded[-5] ^= 1
    assert refusal(bytes(encoded), b"gzip") == 400


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"\xff" * 3000])
def test_unknown_encodings_are_415_and_named_shortly(encoding: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        decompress(BODY, encoding, 1000)
    assert caught.value.status == 415
    assert len(caught.value.message) < 150


def test_a_bomb_takes_no_more_memory_than_the_limit_allows() -> None:
    bombs = [gzip.compress(bytes(10 << 20), mtime=0), zlib.compress(bytes(10 << 20)), raw_deflate(bytes(10 << 20))]
    tracemalloc.start()
    try:
        for bomb, encoding in zip(bombs, (b"gzip", b"deflate", b"deflate"), strict=True):
            assert len(bomb) < 12_000
            assert refusal(bomb, encoding, 1 << 20) == 413
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def test_many_members_are_read_without_copying_the_rest_for_each() -> None:
    """Each copy of the rest would be megabytes; the largest that is allowed is a slice."""
    member = gzip.compress(bytes(1000), 0, mtime=0)
    assert decompress(member * 2000, b"gzip", 2_000_000) == bytes(2_000_000)
    small = gzip.compress(b"", mtime=0)
    assert decompress(small * 8192, b"gzip", 10) == b""
    assert refusal(small * 8193, b"gzip", 10) == 400


@pytest.mark.parametrize(
    ("accepts", "takes"),
    [
        (b"gzip", True),
        (b"GZIP", True),
        (b"deflate, gzip, br", True),
        (b"*", True),
        (b"gzip;q=0.5", True),
        (b"gzip; q=0.001", True),
        (b"br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        (b"*;q=0, gzip", True),
        (b"", False),
        (b"identity", False),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000", False),
        (b"gzip ;\tq=0.0", False),
        (b"gzip;level=1;q=0", False),
        (b"gzip;Q=0", False),
        (b"*, gzip;q=0", False),
        (b"gzip;q=0, *", False),
        (b"*;q=0", False),
        (b",;,;;q", False),
    ],
)
def test_accept_encoding_decides(accepts: bytes, takes: bool) -> None:
    assert is_worth_compressing(accepts, "application/json", MIN_COMPRESSED_BYTES) is takes


def test_short_or_binary_answers_are_not_worth_it() -> None:
    assert not is_worth_compressing(b"gzip", "application/json", MIN_COMPRESSED_BYTES - 1)
    assert not is_worth_compressing(b"gzip", "application/octet-stream", 1 << 20)
    assert is_worth_compressing(b"gzip", "text/csv; charset=utf-8", 1 << 20)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=3000))
def test_what_is_compressed_comes_back(body: bytes) -> None:
    assert gzip.decompress(compress(body)) == body
    assert decompress(compress(body), b"gzip", len(body)) == body


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(ENCODED[:5]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3),
    st.binary(max_size=20),
)
def test_corrupt_bodies_are_refused_or_decoded_within_the_limit(
    encoded: tuple[bytes, bytes], changes: list[tuple[int, int]], behind: bytes
) -> None:
    body = bytearray(encoded[1])
    for at, value in changes:
        body[at % len(body)] = value
    decoded, status = b"", 0
    try:
        decoded = decompress(bytes(body) + behind, encoded[0], 2000)
    except HttpError as error:
        status = error.status
    assert status in (0, 400, 413)
    assert len(decoded) <= 2000
