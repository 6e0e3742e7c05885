"""CSV bodies: the contract's vectors, hostile ones, and the array that says the same as the JSON."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec.csv import array_to_csv, csv_to_array, csv_to_json
from penstock.errors import InvalidArgument, PenstockError
from penstock.tensors import Array

VECTORS = [
    (b"1.0", b'{"instances":[1.0]}'),
    (b"1.0\n2.0\n", b'{"instances":[1.0,2.0]}'),
    (b"1.0,2.0\n3.0,4.0\n", b'{"instances":[[1.0,2.0],[3.0,4.0]]}'),
    (b"a,b,c", b'{"instances":[["a","b","c"]]}'),
    (b"1.0,hello", b'{"instances":[[1.0,"hello"]]}'),
    (b'"x,y"', b'{"instances":["x,y"]}'),
    (b".5,+1,1.,NaN,007,-0,1e5", b'{"instances":[[".5","+1","1.","NaN","007",-0,1e5]]}'),
    (b"1,2,", b'{"instances":[[1,2,""]]}'),
    (b"East,2", b'{"instances":[["East",2]]}'),
    (b"1\n\n2", b'{"instances":[1,2]}'),
]

OTHERS: list[tuple[bytes, list[Any]]] = [
    (b"", []),
    (b" \r\n\t\n", []),
    (b"1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
    (b"\xef\xbb\xbf1,2", [[1, 2]]),
    (b"\xef\xbb\xbfa,2", [["a", 2]]),
    (b" 1 , 2 \n3,\t4", [[1, 2], [3, 4]]),
    (b"1, b ", [[1, " b"]]),
    (b'"5",6', [[5, 6]]),
    (b'"say ""hi""",1', [['say "hi"', 1]]),
    (b'""', [""]),
    (b'"""a"""', ['"a"']),
    (b'"a\nb",1\n"c",2', [["a\nb", 1], ["c", 2]]),
    (b'"a\r\n\r\nb",1', [["a\n\nb", 1]]),
    (b'"open,1\nb,2', ["open,1", ["b", 2]]),
    (b'5" pipe\n6" pipe', ["5 pipe", "6 pipe"]),
    (b'C:\\dir,"a\tb"', [["C:\\dir", "a\tb"]]),
    ("größe,日本,😀".encode(), [["größe", "日本", "😀"]]),
    (b"1,2\n3", [[1, 2], 3]),
    (b"1\n \n2", [1, 2]),
    (b"1 2", ["1 2"]),
    (b"9007199254740993", [9007199254740993]),
    (b"18446744073709551616", [18446744073709551616]),
    (b"[1],{}", [["[1]", "{}"]]),
    (b"true,null", [["true", "null"]]),
    (b",", [["", ""]]),
]


@pytest.mark.parametrize(("body", "expected"), VECTORS)
def test_contract_vectors(body: bytes, expected: bytes) -> None:
    assert csv_to_json(body) == expected


@pytest.mark.parametrize(("body", "rows"), OTHERS)
def test_bodies_beyond_the_vectors(body: bytes, rows: list[Any]) -> None:
    assert json.loads(csv_to_json(body)) == {"instances": rows}


def test_a_body_that_is_not_utf8_is_refused_with_the_place() -> None:
    with pytest.raises(InvalidArgument, match="byte 2 is 0xff"):
        csv_to_json(b"a,\xff")


@pytest.mark.parametrize(("body", "shape"), [(b"1", (1,)), (b"1\n2\r\n3", (3,)), (b"1,2", (1, 2)), (b"1, 2\n-3e2,0.5\n", (2, 2))])
def test_numeric_bodies_become_arrays(body: bytes, shape: tuple[int, ...]) -> None:
    array = csv_to_array(body)
    assert array is not None
    assert array.shape == shape
    assert array.dtype == np.float64
    assert array.tolist() == json.loads(csv_to_json(body))["instances"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"a",
        b"1,2\n3",
        b"1\n2,3",
        b"1\n\n2",
        b"1,,2",
        b"1,",
        b".5",
        b"+1",
        b"1.",
        b"007",
        b"NaN",
        b"1e400",
        b"1 2",
        b"-",
        b'"1"',
        b"[1]",
        b"1\r2",
        b"9007199254740992",
        b"-9007199254740993",
        b"18446744073709551616",
        b"-9223372036854775809",
        b"99999999999999999999999999",
        b"\xff",
    ],
)
def test_what_float64_cannot_say_is_left_to_the_json(body: bytes) -> None:
    assert csv_to_array(body) is None


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1))
def test_numbers_are_exactly_those_of_python(rows: list[list[float]]) -> None:
    body = "\n".join(",".join(map(repr, row)) for row in rows).encode()
    array = csv_to_array(body)
    if array is None:
        assert np.abs(rows).max() >= 2**53
    else:
        assert np.array_equal(array, rows)
    assert json.loads(csv_to_json(body)) == {"instances": rows}


@given(st.text(alphabet='01.-e,"\n\r ab\\\t\ufeff', max_size=40))
def test_any_text_becomes_valid_json_that_the_array_agrees_with(text: str) -> None:
    instances = json.loads(csv_to_json(text.encode()))["instances"]
    array = csv_to_array(text.encode())
    if array is not None:
        assert array.tolist() == instances


@given(st.binary(max_size=60))
def test_any_bytes_raise_nothing_else(body: bytes) -> None:
    csv_to_array(body)
    try:
        json.loads(csv_to_json(body))
    except PenstockError:
        pass


@given(st.lists(st.lists(st.text(alphabet='ab",\n ', min_size=1).map(lambda text: f"x{text}x"), min_size=2, max_size=2)))
def test_strings_written_as_csv_are_read_back(rows: list[list[str]]) -> None:
    array = np.array([[value.encode() for value in row] for row in rows], object).reshape(-1, 2)
    assert json.loads(csv_to_json(array_to_csv({"y": array})))["instances"] == rows


def _strings(*values: bytes) -> Array:
    return np.array(values, object)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"y": np.array([[1.5, 2], [3, 0.1]], np.float32)}, b"1.5,2.0\n3.0,0.1\n"),
        ({"y": np.array([0.1, 1e-7])}, b"0.1\n1e-7\n"),
        ({"y": np.float32(2.5) * np.ones(())}, b"2.5\n"),
        ({"y": np.arange(8, dtype=np.int64).reshape(2, 2, 2)}, b"0,1,2,3\n4,5,6,7\n"),
        ({"y": np.asfortranarray(np.arange(4).reshape(2, 2))}, b"0,1\n2,3\n"),
        ({"b": np.array([1, 2]), "a": np.array([[1.0, 2.0], [3.0, 4.0]])}, b"1.0,2.0,1\n3.0,4.0,2\n"),
        ({"y": np.array([True, False])}, b"true\nfalse\n"),
        ({"y": np.array([[1, np.nan], [np.inf, -np.inf]], np.float32)}, b"1.0,NaN\nInfinity,-Infinity\n"),
        ({"y": np.array([0.1], np.float16)}, b"0.1\n"),
        ({"y": np.array([0.1, np.nan]).astype(ml_dtypes.bfloat16)}, b"0.100098\nNaN\n"),
        ({"y": np.array([3]).astype(ml_dtypes.int4)}, b"3\n"),
        ({"y": np.array([1.5]).astype(ml_dtypes.float8_e5m2)}, b"1.5\n"),
        ({"y": _strings(b"a", b"b,c", b'd"e', b"f\ng", b" h")}, b'a\n"b,c"\n"d""e"\n"f\ng"\n" h"\n'),
        ({"y": np.array(["é", "b"])}, "é\nb\n".encode()),
        ({"y": np.zeros((0, 3))}, b""),
        ({"y": np.zeros((0,)), "z": np.zeros((0, 2))}, b""),
        ({"y": np.zeros((2, 0))}, b"\n\n"),
        ({}, b""),
    ],
)
def test_answers_as_csv(outputs: dict[str, Array], expected: bytes) -> None:
    assert array_to_csv(outputs) == expected


@given(st.lists(st.floats(width=32)))
def test_float32_reads_back_as_itself(values: list[float]) -> None:
    array = np.array(values, np.float32)
    read = np.array([np.float32(line) for line in array_to_csv({"y": array}).split()], np.float32)
    assert np.array_equal(read, array, equal_nan=True)


def test_outputs_whose_rows_do_not_match_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="a has 2, b has 3"):
        array_to_csv({"b": np.zeros(3), "a": np.zeros(2)})


def test_complex_outputs_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="'y' is complex64"):
        array_to_csv({"y": np.zeros(1, np.complex64)})


@pytest.mark.parametrize(
    ("body", "rows"),
    [(b'a"' * 50_000, ["a" * 50_000]), (b' ""' * 50_000, [' "' * 0 + " " * 49_999])],
    ids=["text between", "blanks between"],
)
def test_a_field_of_endless_quotes_is_read_once(body: bytes, rows: list[str]) -> None:
    """Where each quote were compared with all before it, this would take minutes."""
    assert json.loads(csv_to_json(body)) == {"instances": rows}
