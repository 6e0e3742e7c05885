"""The patient parser: RapidJSON's texts and offsets, and the same values as the standard library."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.codec import json_parse
from penstock.codec.json_parse import parse_lenient, parse_strict, parse_tree
from penstock.codec.json_scan import scan
from penstock.errors import InvalidArgument

FAULTS = [
    (b" ", "The document is empty.", 1),
    (b"]", "The document is empty.", 0),
    (b"x", "Invalid value.", 0),
    (b"[nul]", "Invalid value.", 4),
    (b"[1,]", "Invalid value.", 3),
    (b"[}", "Invalid value.", 1),
    (b'{"a":}', "Invalid value.", 5),
    (b"[-]", "Invalid value.", 2),
    (b"[Infi]", "Invalid value.", 5),
    (b"[1 2]", "Missing a comma or ] after an array element.", 3),
    (b"[01]", "Missing a comma or ] after an array element.", 2),
    (b"[1.5.3]", "Missing a comma or ] after an array element.", 4),
    (b"[1,2", "Missing a comma or ] after an array element.", 4),
    (b"{a:1}", "Missing a name for object member.", 1),
    (b'{"a":1,}', "Missing a name for object member.", 7),
    (b'{"a" 1}', "Missing a colon after a name of object member.", 5),
    (b'{"a":1 "b":2}', "Missing a comma or } after an object member.", 7),
    (b'{"a":1', "Missing a comma or } after an object member.", 6),
    (b'["abc', "Missing a closing quotation mark in string.", 5),
    (b'{"abc', "Missing a closing quotation mark in string.", 5),
    (b'["a\\x"]', "Invalid escape character in string.", 3),
    (b'["a\\', "Invalid escape character in string.", 3),
    (b'["\\u12g4"]', "Incorrect hex digit after \\u escape in string.", 2),
    (b'["\\ud800"]', "The surrogate pair in string is invalid.", 2),
    (b'["\\udc00"]', "The surrogate pair in string is invalid.", 2),
    (b'["a\tb"]', "Invalid encoding in string.", 3),
    (b"[1.]", "Miss fraction part in number.", 3),
    (b"[1e]", "Miss exponent in number.", 3),
    (b"[1.5e+]", "Miss exponent in number.", 6),
]


@pytest.mark.parametrize(("body", "text", "offset"), FAULTS)
def test_faults_have_the_text_and_the_offset_of_rapidjson(body: bytes, text: str, offset: int) -> None:
    for parse in (scan, parse_lenient, parse_tree):
        with pytest.raises(InvalidArgument) as caught:
            parse(body)
        assert caught.value.message == f"JSON Parse error: {text} at offset: {offset}"


def test_an_empty_body_has_a_text_of_its_own() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_lenient(b"")
    assert caught.value.message == "JSON Parse error: The document is empty"


def test_tokens_outside_the_standard_are_numbers() -> None:
    values = scan(b"[Inf,-Inf,Infinity,-Infinity,1e400,NaN,-NaN]")
    assert values[:5] == [math.inf, -math.inf, math.inf, -math.inf, math.inf]
    assert all(map(math.isnan, values[5:]))


def test_integers_beyond_64_bits_are_floats() -> None:
    body = b"[18446744073709551615,18446744073709551616,-9223372036854775808,-9223372036854775809]"
    for parse in (scan, parse_lenient):
        assert list(map(type, parse(body))) == [int, float, int, float]


def test_of_two_members_with_one_name_the_first_counts() -> None:
    for parse in (scan, parse_lenient, parse_tree):
        assert parse(b'{"a":1,"b":2,"a":3}') == {"a": 1, "b": 2}


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_nesting_of_any_depth_is_checked_and_cut(opening: bytes) -> None:
    closing = opening.replace(b'"a":', b"").translate(bytes.maketrans(b"[{", b"]}"))[::-1]
    count = 25_000
    assert scan(opening * count + b"1" + closing * count)
    with pytest.raises(InvalidArgument):
        scan(opening * count)
    with pytest.raises(InvalidArgument):
        scan(opening * count + b"1" + closing * (count - 1) + b"!")


def test_what_would_take_seconds_to_read_is_refused() -> None:
    """Other requests wait meanwhile."""
    assert scan(b"[" + b"1," * 1_000_000 + b"2]")[-1] == 2, "runs of numbers are quick"
    assert scan(b"[" * 1_000_000 + b"]" * 1_000_000 + b"x"), "so are runs of brackets"
    with pytest.raises(InvalidArgument, match="too deep for a body of this size"):
        scan(b'{"a":' * 1_000_000)
    with pytest.raises(InvalidArgument, match="too deep for a body of this size"):
        scan(b"[" + b'"",' * 500_000 + b"Inf]")


@pytest.mark.parametrize("rest", [b"", b',{"x":NaN}'], ids=["strict", "lenient"])
def test_the_first_of_members_with_the_same_name_counts_in_rows_too(rest: bytes) -> None:
    assert parse_tree(b'{"instances":[{"x":1,"x":9}' + rest + b"]}")["instances"][0] == {"x": 1}
    assert parse_tree(b'{"inputs":{"x":[1],"x":[9]}}') == {"inputs": {"x": [1]}}


def test_faults_in_large_bodies_are_reported_without_the_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_parse, "EXACT_FAULT_BYTES", 10)
    with pytest.raises(InvalidArgument, match=r"^JSON Parse error: .* at offset: 11$"):
        parse_lenient(b"[1, 2, 3, 4x, 5]")


def test_only_strict_objects_come_from_simdjson() -> None:
    assert parse_strict(b'{"a":1}') is not None
    for body in (b"", b"[1]", b"5", b"null", b'{"a":NaN}', b"{} x", b'{"a":"\xff"}', b"[" * 5000 + b"]" * 5000):
        assert parse_strict(body) is None


def test_a_parser_in_use_is_replaced() -> None:
    held = [parse_strict(b'{"a":[1,2]}') for _ in range(3)]
    assert [document["a"].as_list() for document in held] == [[1, 2]] * 3


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_valid_json_reads_as_the_standard_library_reads_it(value: Any, is_ascii: bool, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode()
    assert scan(body) == value
    assert parse_lenient(body) == value


@settings(max_examples=200, deadline=None)
@given(VALUES, st.integers(0, 60), st.integers(0, 2), st.binary(max_size=2))
def test_the_scanner_refuses_what_the_standard_library_refuses(value: Any, start: int, length: int, replacement: bytes) -> None:
    """Up to the differences in the contract: bytes after the value, and tokens for NaN and infinity."""
    text = json.dumps(value).encode()
    body = text[:start] + replacement + text[start + length :]
    try:
        expected = parse_lenient(body)
    except InvalidArgument:
        with pytest.raises(InvalidArgument):
            scan(body)
    else:
        assume(type(expected) not in (int, float))  # the library takes the 0 of "0." at the root, where no body may have a number
        assert repr(scan(body)) == repr(expected)
