"""Bodies and Accept headers of /invocations: the contract's vectors, what it spoils, and hostile ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec.invocation import Format, UnsupportedMediaType, media_type, negotiate, to_tfs_json
from penstock.errors import Code, PenstockError

VECTORS = [
    ("application/json", b'{"instances":[1.0]}', b'{"instances":[1.0]}'),
    ("application/json", b"[1.0, 2.0]", b'{"instances":[[1.0, 2.0]]}'),
    ("application/json", b"[[1.0],[2.0]]", b'{"instances":[[1.0],[2.0]]}'),
    ("application/json", b'{"x":[1.0]}', b'{"instances":[{"x":[1.0]}]}'),
    ("application/json", b'[{"x":1},{"x":2}]', b'{"instances":[[{"x":1},{"x":2}]]}'),
    ("application/json", b"5", b'{"instances":[5]}'),
    ("application/json", b"", b'{"instances":[]}'),
    ("application/json", b'{"foo":{"inputs": 1}}', b'{"foo":{"inputs": 1}}'),
    ("application/jsonlines", b"[1,2]\n[3,4]\n", b'{"instances":[[1,2],[3,4]]}'),
    ("application/jsonlines", b"[1,2]", b'{"instances":[[1,2]]}'),
    ("text/csv", b"1.0,2.0\n3.0,4.0\n", b'{"instances":[[1.0,2.0],[3.0,4.0]]}'),
    ("application/jsons", b'{"x":1}\r\n\r\n{"x":2}', b'{"instances":[{"x":1},{"x":2}]}'),
    ("application/jsonlines", b"[[1,2]]\n[[3,4]]", b'{"instances":[[[1,2]],[[3,4]]]}'),
    ("application/json", b" [\n [1], [2]]\n", b'{"instances":[\n [1], [2]]}'),
    ("application/json", b'["a] [b"]', b'{"instances":["a] [b"]}'),
]

SPOILED: list[tuple[bytes, Any]] = [
    (b"1.0\n2.0", [1.0, 2.0]),
    (b'"a"\n"b"\n', ["a", "b"]),
    (b'{"x":1} {"x":2}', [{"x": 1}, {"x": 2}]),
    (b'{"x":1}{"x":2}\n{"x":3}', [{"x": 1}, {"x": 2}, {"x": 3}]),
    (b'{\n "x": 1\n}\n{\n "x": 2\n}', [{"x": 1}, {"x": 2}]),
    (b"[1] [2]", [[1], [2]]),
    (b"[-9223372036854775809]\n[1]", [[-9223372036854775809], [1]]),
    (b'{"x":-9223372036854775809,"y":"] ["}', [{"x": -9223372036854775809, "y": "] ["}]),
    (b'{"text":"a] [b"}', [{"text": "a] [b"}]),
    (b'{\n "text": "a} {b"\n}', [{"text": "a} {b"}]),
    (b'{"inputs":[1,2]}\n{"inputs":[3,4]}', [{"inputs": [1, 2]}, {"inputs": [3, 4]}]),
    (b'{"inputs":1}{"inputs":2}', [{"inputs": 1}, {"inputs": 2}]),
    (b'[{"inputs":1},{"inputs":2}]', [{"inputs": 1}, {"inputs": 2}]),
    (b"\xef\xbb\xbf[1,2]", [[1, 2]]),
    (b'\xef\xbb\xbf{"instances":[1]}', [1]),
]


@pytest.mark.parametrize(("content_type", "body", "expected"), VECTORS)
def test_contract_vectors(content_type: str, body: bytes, expected: bytes) -> None:
    assert to_tfs_json(content_type, body) == expected


@pytest.mark.parametrize(("body", "instances"), SPOILED)
def test_what_the_container_makes_invalid_is_read_as_it_was_meant(body: bytes, instances: list[Any]) -> None:
    assert json.loads(to_tfs_json("application/jsonlines", body)) == {"instances": instances}


def test_json_lines_with_nan_are_lines() -> None:
    assert to_tfs_json("application/jsonlines", b"[NaN]\n[Infinity]") == b'{"instances":[[NaN],[Infinity]]}'


@pytest.mark.parametrize("body", [b'{"inputs":"a} {b"}', b'{\n"instances": [{"x":1},\n{"x":2}]\n}\n', b'{"inputs":1} {'])
def test_tfs_json_passes_unchanged(body: bytes) -> None:
    assert to_tfs_json("application/json", body) is body


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", " Application/JSON ", "application/jsons", "APPLICATION/JSONLINES;a=b"],
)
def test_parameters_and_case_of_the_content_type_do_not_matter(content_type: str) -> None:
    assert to_tfs_json(content_type, b"[1]") == b'{"instances":[[1]]}'


@pytest.mark.parametrize(
    ("content_type", "named"),
    [
        (None, "Unknown"),
        ("", "Unknown"),
        ("; a=b", "Unknown"),
        ("Image/PNG; q=1", "image/png"),
        ("text/plain", "text/plain"),
    ],
)
def test_other_types_are_415(content_type: str | None, named: str) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        to_tfs_json(content_type, b"[1]")
    assert caught.value.message == f"Unsupported Media Type: {named}"
    assert caught.value.http_status == 415
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b"{" * 100_000,
        b"]" + b" " * 300_000 + b"x",
        b"] " * 200_000,
        b"} {" * 100_000,
        b'"inputs" ' * 50_000,
        b'"inputs":' + b"} {" * 100_000,
        b"[1]\n" + b"9" * 1_000_000,
        b'"' * 200_001,
        b"\xff] [\xff",
        b"[1] [2] " * 50_000 + b"x",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_hostile_bodies_come_back_as_some_text(body: bytes) -> None:
    """None may cost quadratic time, recurse or raise: the JSON decoder refuses what is left."""
    assert len(to_tfs_json("application/json", body)) < 2 * len(body) + 20


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2),
    max_leaves=8,
)


@given(st.lists(JSON_VALUES, min_size=2, max_size=5))
def test_each_line_is_an_instance(values: list[Any]) -> None:
    lines = [json.dumps([value]) for value in values]
    assert json.loads(to_tfs_json("application/jsonlines", "\n".join(lines).encode()))["instances"] == [[v] for v in values]


@given(JSON_VALUES)
def test_any_document_becomes_valid_json(value: Any) -> None:
    instances = json.loads(to_tfs_json("application/json", json.dumps(value, ensure_ascii=False).encode()))["instances"]
    assert instances in ([value], value)


@given(
    st.sampled_from(["application/json", "text/csv"]),
    st.binary(max_size=60) | st.text(alphabet='[]{}",: \n1ainputs', max_size=60).map(str.encode),
)
def test_any_bytes_raise_nothing_else(content_type: str, body: bytes) -> None:
    try:
        to_tfs_json(content_type, body)
    except PenstockError:
        pass


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ("", {})),
        ("text/csv", ("text/csv", {})),
        ("Text/CSV; Charset=UTF-8 ; header = absent", ("text/csv", {"charset": "UTF-8", "header": "absent"})),
        ('a/b; shape="1,2"; d="x;\\"y"', ("a/b", {"shape": "1,2", "d": 'x;"y'})),
        ("a/b; shape=1,224,224,3;dtype=float32", ("a/b", {"shape": "1,224,224,3", "dtype": "float32"})),
        ('a/b; shape=""', ("a/b", {"shape": ""})),
        ("a/b;;=;x", ("a/b", {})),
    ],
)
def test_media_types(header: str | None, expected: tuple[str, dict[str, str]]) -> None:
    assert media_type(header) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, Format.JSON),
        ("", Format.JSON),
        ("*/*", Format.JSON),
        ("application/*", Format.JSON),
        ("application/json", Format.JSON),
        ("application/jsonlines", Format.JSON_LINES),
        ("text/csv", Format.CSV),
        ("TEXT/CSV; charset=utf-8", Format.CSV),
        ("text/*", Format.CSV),
        ("application/x-npy", Format.NPY),
        ("application/octet-stream", Format.OCTET_STREAM),
        ("text/html, image/png", Format.JSON),
        ("text/html, text/csv;q=0.1", Format.CSV),
        ("text/csv, application/json", Format.CSV),
        ("text/csv;q=0.5, application/json", Format.JSON),
        ("text/csv;q=0.5, */*", Format.JSON),
        ("*/*, application/x-npy", Format.NPY),
        ("*/*;q=0.8, text/csv;q=0.9", Format.CSV),
        ("text/csv;q=0", Format.JSON),
        ("application/json;q=0, */*", Format.JSON_LINES),
        ("text/csv;q=nonsense", Format.CSV),
        (",,;,", Format.JSON),
    ],
)
def test_negotiation(accept: str | None, expected: Format) -> None:
    assert negotiate(accept) is expected


def test_json_lines_are_labelled_json() -> None:
    assert negotiate("application/jsonlines").content_type == "application/json"
    assert Format.NPY.content_type == "application/x-npy"


@given(st.text(max_size=40) | st.text(alphabet="*/;q=01.,jsoncv application/json", max_size=60))
def test_any_accept_header_has_an_answer(accept: str) -> None:
    assert isinstance(negotiate(accept), Format)
    media_type(accept)
