"""Arrays of every kind survive the way to another process; what is damaged is refused."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import PenstockError
from penstock.process.arena import Arena, create_arena
from penstock.process.messages import WireTensor
from penstock.process.tensor_frames import INLINE_BYTES, pack, unpack
from penstock.tensors import DTYPES, Array, DType

_ARENA = Arena(create_arena(1 << 24))


def _values(dtype: DType, shape: tuple[int, ...]) -> Array:
    count = prod(shape)
    if dtype.is_string:
        array = np.empty(count, np.object_)
        array[:] = [b"\x00" * (index % 5) + b"%d" % index for index in range(count)]
        return array.reshape(shape)
    return (np.arange(count) % 7).astype(dtype.numpy).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (4, 5, 6), (300, 300)], ids=str)
def test_arrays_of_every_dtype_and_size_come_back_equal(dtype: DType, shape: tuple[int, ...]) -> None:
    array = _values(dtype, shape)
    tensor = pack(array, _ARENA)
    back = unpack(tensor, _ARENA)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()
    _ARENA.release(tensor.offset)
    assert _ARENA.used_blocks == 0


def test_small_tensors_travel_in_the_frame_and_large_ones_in_shared_memory() -> None:
    assert pack(np.zeros(INLINE_BYTES, np.uint8), _ARENA).offset == -1
    tensor = pack(np.zeros(INLINE_BYTES + 1, np.uint8), _ARENA)
    assert tensor.offset >= 0
    assert len(tensor.data) == 0
    _ARENA.release(tensor.offset)


def test_an_array_that_is_not_contiguous_is_packed_in_c_order() -> None:
    array = np.arange(60000, dtype=np.float32).reshape(200, 300).T[::2]
    tensor = pack(array, _ARENA)
    assert np.array_equal(unpack(tensor, _ARENA), array)
    _ARENA.release(tensor.offset)


def test_text_is_sent_as_utf_8() -> None:
    assert unpack(pack(np.array(["ä", "b"], np.object_), _ARENA), _ARENA).tolist() == ["ä".encode(), b"b"]


def test_a_tensor_that_does_not_fit_is_an_error_that_says_so() -> None:
    arena = Arena(create_arena(1 << 16))
    with pytest.raises(PenstockError, match="does not fit"):
        pack(np.zeros(1 << 17, np.uint8), arena)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([dtype.number for dtype in DTYPES]),
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
    st.binary(max_size=100),
    st.integers(-1, 1 << 25),
    st.integers(-1, 1 << 25),
)
def test_a_damaged_tensor_is_refused_or_read_and_nothing_else(
    number: int, shape: tuple[int, ...], data: bytes, offset: int, size: int
) -> None:
    try:
        array = unpack(WireTensor(number, shape, memoryview(data), offset, size), _ARENA)
    except (PenstockError, ValueError):
        return
    assert array.shape == shape
