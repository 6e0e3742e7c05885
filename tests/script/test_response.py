"""The response is one of requests' to scripts, and costs no JSON unless that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest
import requests

from penstock.script.response import Response

CONTENT = b'{\n    "predictions": [1.5, "gr\xc3\xbcn", NaN]\n}'


def make(content: bytes = CONTENT, encode: Callable[[], bytes] | None = None) -> Response:
    return Response({"y": np.array([1.5])}, encode or (lambda: content), "http://host/v1/models/m:predict", timedelta(seconds=2))


def theirs(content: bytes) -> requests.Response:
    """The same answer, had requests received it."""
    response = requests.Response()
    response._content = content
    response._content_consumed = True  # type: ignore[attr-defined]
    response.status_code = 200
    response.reason = "OK"
    response.encoding = "utf-8"
    response.url = "http://host/v1/models/m:predict"
    return response


def test_it_reads_as_a_response_of_requests_does() -> None:
    ours, reference = make(), theirs(CONTENT)
    for name in ("status_code", "ok", "content", "text", "reason", "url", "encoding"):
        assert getattr(ours, name) == getattr(reference, name), name
    assert bool(ours) is bool(reference) is True
    assert repr(ours) == repr(reference)
    assert str(ours.json()) == str(reference.json())
    assert ours.json(parse_float=str)["predictions"][0] == "1.5"
    ours.raise_for_status()


@pytest.mark.parametrize("content", [CONTENT, b"", b"a\nb\r\n\nc", b"x" * 2000 + b"\n"])
def test_it_is_iterated_as_a_response_of_requests_is(content: bytes) -> None:
    for decode in (False, True):
        lines = make(content).iter_lines(decode_unicode=decode)
        assert list(lines) == list(theirs(content).iter_lines(decode_unicode=decode))
        pieces = list(make(content).iter_content(7, decode_unicode=decode))
        assert all(len(piece) <= 7 for piece in pieces)
        assert ("" if decode else b"").join(pieces) == (content.decode() if decode else content)
    assert list(make(content).iter_content(None)) == ([content] if content else [])


def test_lines_may_end_otherwise() -> None:
    assert list(make(b"1,2,3").iter_lines(delimiter=b",")) == [b"1", b"2", b"3"]
    assert list(make(b"1,2,3").iter_lines(decode_unicode=True, delimiter=",")) == ["1", "2", "3"]


def test_header_names_are_equal_in_any_case() -> None:
    headers = make().headers
    assert headers["content-type"] == headers["CONTENT-TYPE"] == "application/json"
    assert headers.get("Content-Length") == str(len(CONTENT))
    assert headers.get("X-Other") is None
    assert "content-LENGTH" in headers
    assert dict(headers) == {"Content-Type": "application/json", "Content-Length": str(len(CONTENT))}


def test_an_encoding_may_be_set() -> None:
    response = make("grün".encode("latin-1"))
    assert response.text == "gr\ufffdn"
    response.encoding = "latin-1"
    assert response.text == "grün"
    response.encoding = None
    assert response.text == "gr\ufffdn"


def test_json_is_made_once_and_only_when_it_is_wanted() -> None:
    calls: list[int] = []

    def encode() -> bytes:
        calls.append(1)
        return CONTENT

    response = make(encode=encode)
    assert response.arrays["y"].tolist() == [1.5]
    assert response
    assert (response.status_code, response.url[-8:], response.elapsed.total_seconds()) == (200, ":predict", 2)
    assert calls == []
    assert response.content is response.content
    assert response.text
    assert response.headers
    assert calls == [1]
