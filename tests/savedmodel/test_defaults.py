"""TensorProtos as arrays, in all the ways in which elements can be stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.savedmodel.defaults import array_of_proto
from penstock.savedmodel.protos import message_class
from penstock.tensors import DTYPES, DType

TensorProto = message_class("penstock.savedmodel.TensorProto")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (2, 3), (0, 2)], ids=str)
def test_arrays_are_those_that_tensorflow_makes(tf: Any, dtype: DType, shape: tuple[int, ...]) -> None:
    from tensorflow.core.framework import tensor_pb2

    if dtype.is_string:
        values: Any = np.full(shape, b"a\0b", np.object_)
    else:
        values = np.resize(np.array([1, 0, 1, 3], np.float32), shape).astype(dtype.numpy)
    try:
        serialized = tf.make_tensor_proto(values, dtype=dtype.number, shape=shape).SerializeToString()
    except TypeError:
        pytest.skip(f"TensorFlow's Python cannot store {dtype.name} itself")
    array = array_of_proto(TensorProto.FromString(serialized))
    assert array.dtype == dtype.numpy
    np.testing.assert_array_equal(array, tf.make_ndarray(tensor_pb2.TensorProto.FromString(serialized)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"dtype": 1, "float_val": [0.5, 2.0]}, np.array([0.5, 2.0, 2.0], np.float32)),
        ({"dtype": 1}, np.zeros(3, np.float32)),
        ({"dtype": 7, "string_val": [b"a"]}, np.array([b"a"] * 3, np.object_)),
        ({"dtype": 7}, np.array([b""] * 3, np.object_)),
        ({"dtype": 19, "half_val": [0x3C00]}, np.ones(3, np.float16)),
        ({"dtype": 8, "scomplex_val": [1, 2]}, np.full(3, 1 + 2j, np.complex64)),
        ({"dtype": 23, "uint64_val": [2**64 - 1]}, np.full(3, 2**64 - 1, np.uint64)),
        ({"dtype": 10, "bool_val": [True, False]}, np.array([True, False, False])),
    ],
)
def test_last_element_stands_for_the_rest(text: dict[str, Any], expected: Any) -> None:
    proto = TensorProto(**text)
    proto.tensor_shape.dim.add(size=3)
    array = array_of_proto(proto)
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)
    assert not array.flags.writeable


@pytest.mark.parametrize(
    ("sizes", "message"),
    [([1 << 40, 1 << 40], "more than"), ([-1], "negative size"), ([1], "asks for 1"), ([3, 0], "asks for 0")],
)
def test_shapes_that_do_not_fit_are_refused(sizes: list[int], message: str) -> None:
    proto = TensorProto(dtype=3, int_val=[1, 2])
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(ValueError, match=message):
        array_of_proto(proto)
