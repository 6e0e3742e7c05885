"""Elements of the Open Inference Protocol as bytes, and the classification extension."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, serialize_byte_tensor

from penstock.codec.oip_classification import classify
from penstock.codec.oip_tensor import (
    DATATYPES,
    array_of_bytes,
    bytes_of_array,
    checked_shape,
    datatype_of,
    datatype_of_array,
    dtype_of_datatype,
)
from penstock.errors import InvalidArgument, PenstockError
from penstock.tensors import DTYPES, Array, dtype_of_name


def strings(*items: bytes) -> Array:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array


def test_datatypes_are_those_of_tritons_client() -> None:
    for name, dtype in DATATYPES.items():
        assert np_to_triton_dtype(dtype.numpy) == name
        assert datatype_of(dtype) == name
        assert datatype_of_array(np.empty(0, dtype.numpy)) == name
    assert len(DATATYPES) == 14


def test_what_the_protocol_lacks_has_tensorflows_name_and_no_tensors() -> None:
    assert datatype_of(dtype_of_name("complex64")) == "COMPLEX64"
    with pytest.raises(InvalidArgument, match="no tensors of type complex64"):
        datatype_of_array(np.empty(0, np.complex64))


@pytest.mark.parametrize("name", [name for name in DATATYPES if name != "BYTES"])
def test_numbers_are_read_where_they_lie(name: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(DATATYPES[name].numpy)
    data = b"x" + bytes_of_array(array)
    read = array_of_bytes(memoryview(data)[1:], DATATYPES[name], (2, 3), "it")
    assert read.dtype == array.dtype
    assert read.tolist() == array.tolist()
    if name != "BOOL":
        assert np.shares_memory(read, np.frombuffer(data, np.uint8))


def test_any_byte_but_zero_is_true() -> None:
    assert array_of_bytes(b"\0\1\x80", DATATYPES["BOOL"], (3,), "it").view(np.uint8).tolist() == [0, 1, 1]


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_strings_are_written_and_read_as_tritons_client_does(items: list[bytes]) -> None:
    array = strings(*items)
    data = bytes_of_array(array)
    assert data == (serialize_byte_tensor(array).item() if items else b"")
    assert deserialize_bytes_tensor(data).tolist() == items
    assert array_of_bytes(data, DATATYPES["BYTES"], (len(items),), "it").tolist() == items


def test_text_is_written_as_utf8() -> None:
    assert bytes_of_array(np.array(["é"], np.object_)) == b"\2\0\0\0\xc3\xa9"


@pytest.mark.parametrize(
    ("data", "shape", "message"),
    [
        (b"", (1,), "1 strings with their lengths need 4 bytes or more, got 0"),
        (b"", (1 << 40,), "need"),
        (b"\1\0\0\0", (1,), "not that long"),
        (b"\0\0\0\0x", (1,), "not that long"),
        (b"\xff\xff\xff\xff" + b"x" * 8, (2,), "not that long"),
        (b"\1\0\0\0a" * 2, (1,), "not that long"),
    ],
)
def test_strings_that_do_not_fit_are_refused(data: bytes, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        array_of_bytes(data, DATATYPES["BYTES"], shape, "Input 'x'")


@given(st.binary(max_size=40), st.integers(0, 5))
def test_broken_strings_raise_nothing_else(data: bytes, count: int) -> None:
    try:
        array_of_bytes(data, DATATYPES["BYTES"], (count,), "it")
    except PenstockError:
        pass


def test_a_wrong_number_of_bytes_is_refused_before_anything_is_made() -> None:
    with pytest.raises(InvalidArgument, match=r"Input 'x': expected 4294967296 bytes for FP32 of shape \[32768, 32768\], got 3"):
        array_of_bytes(b"abc", DATATYPES["FP32"], (1 << 15, 1 << 15), "Input 'x'")


def test_an_empty_tensor_has_its_shape() -> None:
    assert array_of_bytes(b"", DATATYPES["FP32"], (0, 3), "it").shape == (0, 3)
    assert array_of_bytes(b"", DATATYPES["BYTES"], (2, 0), "it").shape == (2, 0)


@pytest.mark.parametrize(
    "shape", [[-1], [1.5], [1.0], ["2"], [True], [None], [1 << 62, 4], [1 << 64], [0, 1 << 64], [0, 1 << 61], [1] * 33, [[]]]
)
def test_shapes_that_no_tensor_can_have_are_refused(shape: list[Any]) -> None:
    assert checked_shape([1], "it") == (1,)
    with pytest.raises(InvalidArgument, match="Input 'x': shape"):
        checked_shape(shape, "Input 'x'")


@pytest.mark.parametrize("shape", [[], [0], [2, 3], [0, 1 << 40]])
def test_other_shapes_are_taken(shape: list[int]) -> None:
    assert checked_shape(shape, "it") == tuple(shape)


@pytest.mark.parametrize("name", ["", "float", "fp32", None, 5, [], {}, "X" * 1000])
def test_unknown_datatypes_are_refused(name: object) -> None:
    with pytest.raises(InvalidArgument, match=r"Input 'x': datatype .* is not one of BF16, BOOL") as caught:
        dtype_of_datatype(name, "Input 'x'")
    assert len(caught.value.message) < 250


def test_classes_are_the_largest_values_first() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.5]], np.float32)
    classes = classify(scores, 2, "y", has_rows=True)
    assert classes.tolist() == [[b"0.700000:1", b"0.200000:2"], [b"0.500000:0", b"0.500000:2"]]


def test_an_output_without_rows_is_one() -> None:
    assert classify(np.array([3, -4, 5], np.int64), 2, "y", has_rows=False).tolist() == [b"5:2", b"3:0"]
    assert classify(np.array(2.5), 3, "y", has_rows=True).tolist() == [b"2.500000:0"]


def test_rows_of_numbers_have_one_class_each() -> None:
    assert classify(np.array([1.0, 2.0]), 5, "y", has_rows=True).tolist() == [[b"1.000000:0"], [b"2.000000:0"]]


def test_what_is_not_a_number_comes_last() -> None:
    values = np.array([np.nan, -np.inf, 1.0, np.inf])
    assert classify(values, 3, "y", has_rows=False).tolist() == [b"inf:3", b"1.000000:2", b"nan:0"]


@pytest.mark.parametrize("dtype", [one for one in DTYPES if one.numpy.kind not in "Obc"], ids=lambda one: str(one.name))
def test_every_type_with_an_order_has_classes(dtype: Any) -> None:
    classes = classify(np.array([1, 3, 2]).astype(dtype.numpy), 1, "y", has_rows=False)
    assert classes.tolist()[0].endswith(b":1")


def test_unsigned_numbers_are_not_mistaken_for_negative_ones() -> None:
    top = np.array([0, (1 << 64) - 1, 1], np.uint64)
    assert classify(top, 1, "y", has_rows=False).tolist() == [b"18446744073709551615:1"]


@pytest.mark.parametrize(("shape", "has_rows", "found"), [((0, 3), True, (0, 3)), ((2, 0), True, (2, 0)), ((0,), False, (0,))])
def test_empty_outputs_have_no_classes(shape: tuple[int, ...], has_rows: bool, found: tuple[int, ...]) -> None:
    classes = classify(np.empty(shape, np.float32), 3, "y", has_rows=has_rows)
    assert classes.size == 0
    assert classes.ndim == len(found)


@pytest.mark.parametrize("array", [np.array([True]), strings(b"a"), np.array([1j])])
def test_elements_without_an_order_are_refused(array: Array) -> None:
    with pytest.raises(InvalidArgument):
        classify(array, 1, "y", has_rows=False)


def test_bfloat16_is_written_as_it_is() -> None:
    assert bytes_of_array(np.array([1.0]).astype(ml_dtypes.bfloat16)) == b"\x80\x3f"
