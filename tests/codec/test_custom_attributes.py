"""The header of custom attributes: its grammar, and what AWS's container refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec.custom_attributes import CustomAttributes, parse_custom_attributes
from penstock.errors import InvalidArgument

NAME = "invalid tfs-model-name"
VERSION = "invalid tfs-model-version: must be a positive integer"
METHOD = "invalid tfs-method: must be one of predict|classify|regress"


@pytest.mark.parametrize("header", [None, ""])
def test_no_header_asks_for_nothing(header: str | None) -> None:
    assert parse_custom_attributes(header) == CustomAttributes(None, None, "predict", "")


@pytest.mark.parametrize(
    ("header", "name", "version", "method"),
    [
        ("tfs-model-name=half", "half", None, "predict"),
        ("tfs-model-name=a.B-c_1,tfs-model-version=0012,tfs-method=regress", "a.B-c_1", 12, "regress"),
        ("tfs-method=classify", None, None, "classify"),
        ("some text tfs-method=regress,more", None, None, "regress"),
        ("xtfs-method=regress", None, None, "regress"),
        ("a=b;tfs-model-version=3", None, 3, "predict"),
        ("tfs-model-name=a,tfs-model-name=b", "b", None, "predict"),
        ("tfs-signature-name=s,tfs-unknown=1", None, None, "predict"),
        ("tfs-=x,tfs-Method=regress,tfs-method", None, None, "predict"),
        ("tfs-method=,tfs-model-name=", None, None, "predict"),
        ("tfs-model-name= a , tfs-model-version=1", "a", 1, "predict"),
        ("tfs-a-tfs-method=regress", None, None, "predict"),
        ("trace=abc==,tfs-model-name=m", "m", None, "predict"),
        ("tfs-model-version=9223372036854775807", None, 2**63 - 1, "predict"),
        ("tfs-model-name=" + "a" * 255, "a" * 255, None, "predict"),
    ],
)
def test_what_the_header_asks_for(header: str, name: str | None, version: int | None, method: str) -> None:
    assert parse_custom_attributes(header) == CustomAttributes(name, version, method, header)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("tfs-model-name=../x", NAME),
        ("tfs-model-name=.x", NAME),
        ("tfs-model-name=a=b", NAME),
        ("tfs-model-name=" + "a" * 256, NAME),
        ("tfs-model-name=größe", NAME),
        ("tfs-model-name= ", NAME),
        ("tfs-model-version=1.0", VERSION),
        ("tfs-model-version=-1", VERSION),
        ("tfs-model-version=latest", VERSION),
        ("tfs-model-version=٣", VERSION),
        ("tfs-model-version=9223372036854775808", VERSION),
        ("tfs-model-version=" + "9" * 100_000, VERSION),
        ("tfs-method=Predict", METHOD),
        ("tfs-method=delete", METHOD),
        ("tfs-model-name=../x,tfs-model-version=x,tfs-method=x", NAME),
        ("tfs-method=x,tfs-model-version=x", VERSION),
    ],
    ids=lambda text: text[:40],
)
def test_what_the_container_refuses(header: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_custom_attributes(header)
    assert caught.value.message == message


@pytest.mark.parametrize("header", ["tfs-" * 100_000, "tfs-=" * 100_000, "=" * 100_000, "," * 100_000])
def test_hostile_headers_ask_for_nothing(header: str) -> None:
    assert parse_custom_attributes(header) == CustomAttributes(None, None, "predict", header)


@given(st.text(max_size=60) | st.text(alphabet="tfs-modelnvri=,1 ", max_size=80))
def test_any_text_raises_nothing_else(header: str) -> None:
    try:
        assert parse_custom_attributes(header).raw == header
    except InvalidArgument:
        pass
