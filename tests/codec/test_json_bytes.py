"""Base64 as TensorFlow Serving takes it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.codec.json_bytes import decode_base64


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_come_back_with_and_without_padding(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert decode_base64(text) == data
    assert decode_base64(text.rstrip("=")) == data
    assert decode_base64("\n".join(text)) == data


@pytest.mark.parametrize("text", ["a", "abcde", "YQ=", "YQ===", "YWI==", "Y*Q=", "YQ==YQ==", "Y\x00Q=", "é", "YWJj-_", "="])
def test_what_is_no_base64_is_refused(text: str) -> None:
    assert decode_base64(text) is None


@settings(max_examples=200, deadline=None)
@given(st.text("ABCab+/=-* ", max_size=12))
def test_foreign_characters_never_go_unnoticed(text: str) -> None:
    decoded = decode_base64(text)
    if decoded is not None:
        bare = "".join(text.split()).rstrip("=")
        assert base64.b64encode(decoded).decode().rstrip("=")[: len(bare) - 1] == bare[:-1]
