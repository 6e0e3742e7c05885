"""Arrays to TF_Tensors, and back.

Guarantees: a tensor made here owns its memory, so the graph may keep it (a variable that is assigned an input shares the
input's buffer) and the caller may change the array at once; unless the caller lends it (EngineOptions.borrows_inputs). An array
that comes back is independent of the graph too, or read-only where it shares the tensor's memory.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from penstock.engine.tensorflow_library import CData, Library, ffi
from penstock.engine.tensorflow_options import varint
from penstock.engine.tensorflow_status import Status
from penstock.errors import InvalidArgument, PenstockError, ResourceExhausted
from penstock.tensors import STRING_NUMBER, Array, DType

#: Outputs of this size are no longer copied. Measured: a copy costs 2 µs at 4 KiB, 3.4 at 64, 14 at 1024; a wrapper 2.
WRAP_BYTES = 64 * 1024

#: Inputs of this size are not copied where they may be borrowed: it is their memory that counts, not the time.
_BORROW_BYTES = 64 << 20
#: What TensorFlow wants of memory that is not its own; it would copy other memory itself.
_ALIGNMENT = 64

_DIMS = ffi.typeof("int64_t[]")
#: sizeof(TF_TString). A cell whose first byte has the low bits 00 holds size << 2 there, and up to 22 characters behind.
_CELL_BYTES = 24


@ffi.callback("deallocator")  # type: ignore[untyped-decorator]
def _leave(_data: CData, _size: int, _argument: CData) -> None:
    """Memory that was lent is its owner's to free."""


class Tensors:
    """Makes and reads the tensors of one loaded library. Thread-safe."""

    __slots__ = ("_allocate", "_borrow_bytes", "_core", "_data", "_dim", "_library", "_new", "_num_dims", "delete")

    def __init__(self, library: Library, *, borrows: bool = False) -> None:
        self._borrow_bytes = _BORROW_BYTES if borrows else 1 << 62
        self._new = library.framework.TF_NewTensor
        self._core = library.core
        self._library = library
        self._allocate = library.framework.TF_AllocateTensor
        self._data = library.framework.TF_TensorData
        self.delete = library.framework.TF_DeleteTensor
        self._dim = library.framework.TF_Dim
        self._num_dims = library.framework.TF_NumDims

    def make(self, array: Array, dtype: DType, name: str) -> CData:
        """A new TF_Tensor with the elements of `array`, the input `name`, whose dtype is `dtype`'s in native byte order.

        Raises InvalidArgument for elements of a string tensor that are no strings.
        """
        if dtype.number == STRING_NUMBER:
            return self._make_strings(array, name)
        size = array.nbytes
        if size >= self._borrow_bytes and array.flags.c_contiguous:
            data = ffi.from_buffer(array)
            if int(ffi.cast("uintptr_t", data)) % _ALIGNMENT == 0:
                return self._new(dtype.number, ffi.new(_DIMS, array.shape), array.ndim, data, size, _leave, ffi.NULL)
        tensor = self._allocate(dtype.number, ffi.new(_DIMS, array.shape), array.ndim, size)
        if not tensor:
            raise ResourceExhausted(f"no memory for input {name} of {size} bytes")
        if size:
            ffi.memmove(self._data(tensor), array if array.flags.c_contiguous else np.ascontiguousarray(array), size)
        return tensor

    def take(self, tensor: CData, dtype: DType) -> Array:
        """The elements of `tensor`, which is deleted, now or when the array is."""
        dim = self._dim
        shape = tuple([dim(tensor, index) for index in range(self._num_dims(tensor))])
        if dtype.number == STRING_NUMBER:
            array = self._read_strings(tensor, shape)
        elif math.prod(shape) * dtype.numpy.itemsize >= WRAP_BYTES:
            return self._wrap(tensor, shape, dtype)
        else:
            array = np.empty(shape, dtype.numpy)
            if array.nbytes:  # the data of an empty tensor may be anywhere
                ffi.memmove(array, self._data(tensor), array.nbytes)
        self.delete(tensor)
        return array

    def _wrap(self, tensor: CData, shape: tuple[int, ...], dtype: DType) -> Array:
        """An array over the tensor's memory. Read-only: it may be that of a constant or a variable of the graph."""
        owner = ffi.gc(self._data(tensor), lambda _: self.delete(tensor))
        array: Array = np.ndarray(shape, dtype.numpy, ffi.buffer(owner, math.prod(shape) * dtype.numpy.itemsize))
        array.flags.writeable = False
        return array

    def _make_strings(self, array: Array, name: str) -> CData:
        tensor = self._allocate(STRING_NUMBER, ffi.new(_DIMS, array.shape), array.ndim, 0)
        if array.size:
            self._own_strings(tensor, array.shape)
            cells = ffi.cast("TF_TString*", self._data(tensor))
            copy = self._core.TF_StringCopy
            try:
                for index, string in enumerate(array.reshape(-1).tolist()):
                    content = string.encode() if isinstance(string, str) else string
                    copy(cells + index, content, len(content))
            except (TypeError, ValueError):
                self.delete(tensor)
                kind = type(string).__name__
                raise InvalidArgument(f"input {name}: element {index} is {kind}, expected bytes or valid text") from None
        return tensor

    def _own_strings(self, tensor: CData, shape: tuple[int, ...]) -> None:
        """Gives `tensor` empty strings that it frees itself, wherever it ends up.

        TF_AllocateTensor's memory is freed without its strings; the tensor that takes its place belongs to TensorFlow.
        """
        proto = _empty_strings_proto(shape)
        content = ffi.from_buffer(proto)
        buffer = ffi.new("TF_Buffer*", {"data": content, "length": len(proto)})
        status = Status(self._library)
        self._core.TF_TensorFromProto(buffer, tensor, status.pointer)
        try:
            status.check()
        except PenstockError:
            self.delete(tensor)
            raise

    def _read_strings(self, tensor: CData, shape: tuple[int, ...]) -> Array:
        array = np.empty(math.prod(shape), object)
        if array.size:
            data = self._data(tensor)
            cells = ffi.cast("TF_TString*", data)
            raw = ffi.buffer(data, array.size * _CELL_BYTES)[:]
            pointer, size = self._core.TF_StringGetDataPointer, self._core.TF_StringGetSize
            for index in range(array.size):
                at = index * _CELL_BYTES
                head = raw[at]
                if head & 3 == 0:  # short strings lie in the cell: 110 ns instead of 530 through the C functions
                    array[index] = raw[at + 1 : at + 1 + (head >> 2)]
                else:
                    cell = cells + index
                    array[index] = ffi.buffer(pointer(cell), size(cell))[:]
        return array.reshape(shape)


@functools.lru_cache(maxsize=256)
def _empty_strings_proto(shape: tuple[int, ...]) -> bytes:
    """A TensorProto: dtype (1), shape (2, with dim 2 and its size 1), string_val (8): the last one stands for the rest."""
    sizes = b"".join([_field(2, b"\x08" + varint(size)) for size in shape])
    return b"\x08" + varint(STRING_NUMBER) + _field(2, sizes) + _field(8, b"")


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content
