"""Arrays to and from the tensors of a frame.

Guarantees: what is unpacked is checked against the size that its dtype and shape call for, because a host may be broken.
Numbers are not copied when they are unpacked: the array is a view of the frame, or of the arena, whose block stays as long.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from math import prod

import numpy as np

from penstock.errors import Internal, ResourceExhausted
from penstock.process.arena import Arena, ArenaView
from penstock.process.messages import WireTensor
from penstock.tensors import STRING_NUMBER, Array, dtype_of_array, dtype_of_number

#: Above this, shared memory costs less than two copies through the socket.
INLINE_BYTES = 32 << 10
UINT8_NUMBER = dtype_of_array(np.empty(0, np.uint8)).number


def pack(array: Array, arena: Arena) -> WireTensor:
    """`array` as a tensor of a frame, in `arena` when it is large.

    Raises ResourceExhausted when the arena has no room.
    """
    number = dtype_of_array(array).number
    if number == STRING_NUMBER:
        return _place(number, array.shape, np.frombuffer(_pack_strings(array), np.uint8), arena)
    if array.nbytes <= INLINE_BYTES:
        return WireTensor(number, array.shape, memoryview(array.tobytes()))
    return _place(number, array.shape, array, arena)


def _place(number: int, shape: tuple[int, ...], array: Array, arena: Arena) -> WireTensor:
    size = array.nbytes
    if size <= INLINE_BYTES:
        return WireTensor(number, shape, memoryview(array.tobytes()))
    offset = arena.allocate(size)
    if offset is None:
        raise ResourceExhausted(
            f"A tensor of {size} bytes does not fit into the shared memory that is left between two processes "
            f"({arena.size} bytes in all)."
        )
    arena.view(offset, size).view(array.dtype).reshape(array.shape)[...] = array
    return WireTensor(number, shape, memoryview(b""), offset, size)


def unpack(tensor: WireTensor, arena: ArenaView, release: Callable[[int], None] | None = None) -> Array:
    """The array of a tensor, read-only or a view. Raises Internal where sizes do not agree.

    `release` is called with the offset of the tensor's block when no array needs it any more.
    """
    array = _unpack(tensor, arena)
    if release is not None and tensor.offset >= 0:
        if array.base is None:
            release(tensor.offset)
        else:  # all arrays that are made of this one keep its base, and not itself
            weakref.finalize(array.base, release, tensor.offset).atexit = False
    return array


def _unpack(tensor: WireTensor, arena: ArenaView) -> Array:
    data = tensor.data if tensor.offset < 0 else arena.view(tensor.offset, tensor.size).data
    if tensor.dtype == STRING_NUMBER:
        return _unpack_strings(data, tensor.shape)
    dtype = dtype_of_number(tensor.dtype).numpy
    if len(data) != prod(tensor.shape) * dtype.itemsize:
        raise Internal(f"A tensor of shape {list(tensor.shape)} came with {len(data)} bytes.")
    return np.frombuffer(data, dtype).reshape(tensor.shape)


def _pack_strings(array: Array) -> bytes:
    items = [item if type(item) is bytes else _as_bytes(item) for item in array.ravel().tolist()]
    lengths = np.fromiter(map(len, items), np.uint32, len(items))
    return lengths.tobytes() + b"".join(items)


def _as_bytes(item: object) -> bytes:
    if isinstance(item, bytes):
        return bytes(item)
    return str(item).encode()


def _unpack_strings(data: memoryview, shape: tuple[int, ...]) -> Array:
    count = prod(shape)
    array = np.empty(count, np.object_)
    if len(data) < 4 * count:
        raise Internal(f"A string tensor of shape {list(shape)} came with {len(data)} bytes.")
    ends = 4 * count + np.cumsum(np.frombuffer(data[: 4 * count], np.uint32), dtype=np.int64)
    if len(data) != (ends[-1] if count else 0):
        raise Internal(f"A string tensor of shape {list(shape)} came with {len(data)} bytes.")
    text, at = bytes(data), 4 * count
    for index, end in enumerate(ends.tolist()):
        array[index] = text[at:end]
        at = end
    return array.reshape(shape)
