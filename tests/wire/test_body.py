"""Bodies of known length, however they are cut."""

import pytest

from penstock.wire.body import GatheredBody, PlacedBody, body_for
from penstock.wire.chunked import ChunkedBody
from penstock.wire.head import parse_head

CONTENT = bytes(range(256)) * 300


@pytest.mark.parametrize("kind", [GatheredBody, PlacedBody])
@pytest.mark.parametrize("segment", [1, 100, 4095, 4096, 50_000, len(CONTENT), len(CONTENT) + 1])
def test_the_body_is_the_same_however_it_is_cut_and_what_follows_is_given_back(
    kind: type[GatheredBody] | type[PlacedBody], segment: int
) -> None:
    sent, body, rest = CONTENT + b"next", kind(len(CONTENT)), b""
    for at in range(0, len(sent), segment):
        assert body.size == at
        piece = sent[at : at + segment]
        given_back = body.feed(piece)
        if at + segment < len(CONTENT):
            assert given_back is None
        else:
            assert given_back is not None
            rest = given_back + sent[at + segment :]
            break
    assert bytes(body.content) == CONTENT
    assert rest == b"next"


def test_a_placed_body_is_filled_in_its_room() -> None:
    body = PlacedBody(10)
    assert body.feed(b"abcd") is None
    assert len(body.room) == 6
    body.room[:4] = b"efgh"
    assert not body.filled(4)
    body.room[:] = b"ij"
    assert body.filled(2)
    assert bytes(body.content) == b"abcdefghij"


def test_small_pieces_are_put_together() -> None:
    body = GatheredBody(60_000)
    for _ in range(10_000):
        body.feed(b"ab")
    assert len(body._pieces) < 10


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (b"content-length: 65535", GatheredBody),
        (b"content-length: 65536", PlacedBody),
        (b"content-length: 65536\r\ncontent-encoding: gzip", GatheredBody),
        (b"transfer-encoding: chunked", ChunkedBody),
    ],
)
def test_the_kind_is_what_the_head_announces(fields: bytes, kind: type) -> None:
    head = parse_head(b"POST / HTTP/1.1\r\nhost: a\r\n" + fields + b"\r\n\r\n")
    assert type(body_for(head, 1 << 20)) is kind
