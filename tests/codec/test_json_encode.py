"""Arrays as JSON: every element type, every shape, and what JSON has no words for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from penstock.codec.json_encode import encode_array, encode_each, encode_error
from penstock.errors import InvalidArgument
from penstock.tensors import DTYPES, Array, DType

BUILT_IN = [dtype for dtype in DTYPES if dtype.numpy.isbuiltin == 1 and dtype.numpy.kind in "biuf"]
FROM_ML_DTYPES = [dtype for dtype in DTYPES if dtype.numpy.isbuiltin == 2]


@pytest.mark.parametrize("dtype", BUILT_IN, ids=lambda dtype: dtype.name)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_number_reads_back_as_itself(dtype: DType, data: st.DataObject) -> None:
    array = data.draw(npst.arrays(dtype.numpy, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
    decoded = np.array(json.loads(encode_array(array)), dtype.numpy)
    np.testing.assert_array_equal(decoded.reshape(array.shape), array)


@pytest.mark.parametrize("dtype", FROM_ML_DTYPES, ids=lambda dtype: dtype.name)
def test_small_types_are_written_as_numbers(dtype: DType) -> None:
    array = np.array([[1, 2], [4, 0]]).astype(dtype.numpy)
    assert json.loads(encode_array(array)) == [[1, 2], [4, 0]]


def test_floats_have_the_shortest_digits_of_their_type() -> None:
    values = [9000000, 999999, 0.5, 0.0003, 0.00003, 555557.5, 0.2]
    assert json.loads(encode_array(np.array(values, np.float32))) == values
    assert encode_array(np.array(0.2, np.float32)) == b"0.2"
    assert encode_array(np.array([3.0], np.float32)) == b"[3.0]"


def test_nan_and_infinities_are_bare_tokens() -> None:
    array = np.array([[np.nan, np.inf], [3, -np.inf]], np.float32)
    assert encode_array(array) == b"[[NaN,Infinity],[3.0,-Infinity]]"
    assert encode_array(array.astype(np.float16)) == b"[[NaN,Infinity],[3.0,-Infinity]]"
    assert encode_array(np.array(np.nan)) == b"NaN"


@pytest.mark.parametrize(
    "array",
    [np.arange(6).reshape(2, 3).T, np.arange(12)[::2], np.arange(3, dtype=">f4"), np.arange(3, dtype=">i8")],
    ids=["transposed", "strided", "big-endian float", "big-endian int"],
)
def test_the_layout_in_memory_does_not_matter(array: Array) -> None:
    assert json.loads(encode_array(array)) == array.tolist()


def test_strings_are_text_or_base64_by_the_name_of_the_output() -> None:
    array = np.array([[b"a", b"\xff"]], np.object_)
    assert encode_array(array, "text") == '[["a","\ufffd"]]'.encode()
    assert encode_array(array, "image_bytes") == b'[[{"b64":"YQ=="},{"b64":"/w=="}]]'
    assert encode_array(np.array(b"a", np.object_)) == b'"a"'
    assert encode_array(np.array(["é", "b"])) == '["é","b"]'.encode()
    assert encode_array(np.array([b"x"]), "_bytes") == b'[{"b64":"eA=="}]'


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 2), (0, 0)])
@pytest.mark.parametrize("kind", [np.float32, np.object_])
def test_empty_arrays_keep_their_outer_shape(shape: tuple[int, ...], kind: Any) -> None:
    assert json.loads(encode_array(np.empty(shape, kind))) == np.empty(shape).tolist()


@pytest.mark.parametrize(("kind", "name"), [(np.complex64, "complex64"), (np.complex128, "complex128")])
def test_complex_numbers_have_no_json(kind: Any, name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^Failed to write JSON value for tensor type: {name}$"):
        encode_array(np.zeros(2, kind))


def test_the_parts_along_the_first_dimension_are_those_of_the_whole() -> None:
    deep = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    empty = np.empty((2, 0, 3))
    texts = np.array([b"a],[", b"b"], np.object_)
    for array in (np.array([[1.0, np.nan], [2, 3]]), texts, np.array([1, 2]), deep, deep[:1], empty, np.array([[True]])):
        assert b"[" + b",".join(encode_each(array)) + b"]" == encode_array(array)


def test_errors_are_objects_with_one_key() -> None:
    assert json.loads(encode_error('Bad key: "key"')) == {"error": 'Bad key: "key"'}
    assert json.loads(encode_error("broken \udcff text")) == {"error": "broken \ufffd text"}
