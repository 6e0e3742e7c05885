"""Arrays in the element type that an input takes: numbers keep their values, and nothing becomes what it is not."""

from __future__ import annotations

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from penstock.codec.convert import convert
from penstock.errors import InvalidArgument
from penstock.tensors import DTYPES, Array, TensorSpec, dtype_of_name

NUMBERS = [dtype for dtype in DTYPES if not dtype.is_string]


def spec(name: str) -> TensorSpec:
    return TensorSpec("x", dtype_of_name(name), None)


def strings(*values: Any) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_what_fits_already_is_not_copied() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert convert(array, spec("float")) is array


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">i8", "<f2", "?"])
def test_any_order_of_bytes_and_elements_becomes_the_machines(kind: str) -> None:
    for array in (np.ones((3, 4), kind).T, np.ones((4, 4), kind)[:, ::2], np.array(1, kind), np.zeros((0, 3), kind)):
        converted = convert(array, spec("float"))
        assert converted.dtype == np.float32
        assert converted.dtype.isnative
        assert converted.shape == array.shape
        assert converted.flags.c_contiguous
        assert np.array_equal(converted, array)


def test_elements_between_words_are_moved() -> None:
    array = np.frombuffer(b"\0" + np.array([1, 2], np.float32).tobytes(), np.float32, offset=1)
    converted = convert(array, spec("float"))
    assert converted.flags.aligned
    assert converted.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        *[("int64", name) for name in ("int8", "uint8", "uint64", "int4", "half", "bfloat16", "double", "complex64")],
        *[("uint64", name) for name in ("int32", "uint4", "float")],
        *[("float64", name) for name in ("float", "half", "bfloat16", "float8_e5m2", "complex128")],
        *[("bool", name) for name in ("uint8", "int64", "float", "int4")],
        *[("complex128", "complex64"), ("int4", "uint8"), ("uint4", "int4"), ("bfloat16", "float"), ("float16", "bfloat16")],
    ],
)
def test_numbers_become_numbers_that_hold_them(source: str, wanted: str) -> None:
    array = np.array([0, 1, 1]).astype(getattr(ml_dtypes, source, source))
    converted = convert(array, spec(wanted))
    assert converted.dtype == spec(wanted).dtype.numpy
    assert converted.astype(np.complex64).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("array", "wanted", "got"),
    [
        (np.array([1.0]), "int32", "float64"),
        (np.array([1.0], np.float32), "int4", "float32"),
        (np.array([1.0], np.float32), "bool", "float32"),
        (np.array([1.0]).astype(ml_dtypes.bfloat16), "int64", "bfloat16"),
        (np.array([1]), "bool", "int64"),
        (np.array([1]).astype(ml_dtypes.int4), "bool", "int4"),
        (np.array([1j]), "float", "complex128"),
        (np.array([1j]), "bfloat16", "complex128"),
        (np.array([300, -3]), "int8", "int64 with numbers from -3 to 300"),
        (np.array([-1]), "uint64", "int64 with numbers from -1 to -1"),
        (np.array([2**63], np.uint64), "int64", f"uint64 with numbers from {2**63} to {2**63}"),
        (np.array([15]).astype(ml_dtypes.uint4), "int4", "uint4 with numbers from 15 to 15"),
        (np.array(["1"]), "float", "<U1"),
        (strings(b"1"), "float", "object"),
        (np.array(["2020-01-01"], "M8[D]"), "int64", "datetime64[D]"),
        (np.zeros(1, [("a", np.int32)]), "int32", "[('a', '<i4')]"),
    ],
)
def test_numbers_that_would_not_be_the_same_are_refused(array: Array, wanted: str, got: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        convert(array, spec(wanted), " from somebody")
    assert caught.value.message == f"Input x from somebody: expected {wanted}, got {got}."


def test_a_float_that_is_too_large_becomes_infinite_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert convert(np.array([1e300, -1e300, 1e-300]), spec("float")).tolist() == [np.inf, -np.inf, 0]
        assert convert(np.array([1e300]), spec("bfloat16")).astype(float).tolist() == [np.inf]
        assert np.isnan(convert(np.array([np.nan]), spec("half"))[0])


@pytest.mark.parametrize(
    "array",
    [
        np.array([["grün", "b"]]),
        np.char.encode(np.array([["grün", "b"]]), "utf-8"),
        np.array([["grün", "b"]], object),
        np.array([["grün", "b"]]).astype(np.dtypes.StringDType())
        if hasattr(np.dtypes, "StringDType")
        else np.array([["grün", "b"]]),
    ],
    ids=["text", "bytes", "objects", "string"],
)
def test_text_of_every_kind_becomes_bytes(array: Array) -> None:
    converted = convert(array, spec("string"))
    assert converted.dtype == object
    assert converted.tolist() == [["grün".encode(), b"b"]]


def test_strings_keep_every_byte() -> None:
    values = [b"", b"\0\0", b"\xff" * 1000]
    assert convert(strings(*values), spec("string")).tolist() == values
    assert convert(np.array(b"one", object), spec("string")).shape == ()


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.array([1]), "int64"),
        (np.array([b"a", 1], object), "int"),
        (np.array(["a", None], object), "NoneType"),
        (np.array(["\ud800"]), "text that is not Unicode"),
        (np.array([0x110000], np.uint32).view("U1"), "text that is not Unicode"),
    ],
)
def test_what_is_no_string_is_not_made_one(array: Array, got: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        convert(array, spec("string"))
    assert caught.value.message == f"Input x: expected strings, got {got}."


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_an_empty_array_is_one_of_any_type(dtype: Any) -> None:
    converted = convert(np.asarray([[]]), TensorSpec("x", dtype, None))
    assert (converted.dtype, converted.shape) == (dtype.numpy, (1, 0))


@given(
    npst.arrays(
        st.sampled_from(["i1", "u1", ">i2", "<u4", "i8", "u8", "?", "f2", ">f4", "f8", "c8"]), npst.array_shapes(min_dims=0)
    ),
    st.sampled_from(NUMBERS),
)
def test_numbers_are_refused_or_kept(array: Array, dtype: Any) -> None:
    """Whole numbers exactly where the type that is taken is whole, too."""
    try:
        converted = convert(array, TensorSpec("x", dtype, None))
    except InvalidArgument:
        return
    assert (converted.dtype, converted.shape) == (dtype.numpy, array.shape)
    assert converted.flags.c_contiguous
    if array.dtype.kind in "iu" and dtype.name.startswith(("int", "uint")):
        assert converted.astype(object).tolist() == array.tolist()
