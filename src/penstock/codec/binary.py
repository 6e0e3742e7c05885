"""Tensors as bytes: NumPy's `.npy` and `.npz` files, and the bare elements of application/octet-stream.

Guarantees: arrays that are read are in C order, aligned, of the machine's byte order, and may be read-only views of the
body. Sizes are compared with the body before anything of that size is allocated, and no pickle is ever opened.
"""

from __future__ import annotations

import functools
import io
import math
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from penstock.errors import InvalidArgument
from penstock.tensors import Array, DType, Signature, TensorSpec, dtype_of_array, dtype_of_name

Body = bytes | bytearray | memoryview

_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"
#: NumPy's own bound for headers that nobody vouches for.
_MAX_HEADER_BYTES = 10_000
_KEPT_HEADERS = 256
_HEADER_ITEM = re.compile(
    rb"""\s*(['"])(descr|fortran_order|shape)\1\s*:\s*"""
    rb"""(?:(['"])([<>|=]?[A-Za-z][A-Za-z0-9\[\]]*)\3|(True|False)|\(([0-9,L\s]*)\))\s*(,|(?=\}))"""
)
_MEMBERS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
#: Of fixed-width strings, which NumPy pads to the longest one.
_MAX_PADDED_BYTES = 1 << 28


def is_npz(body: Body) -> bool:
    """Whether the body is a zip file, which is what `numpy.savez` writes."""
    return bytes(body[:4]) == _ZIP_MAGIC


def decode_npy(body: Body) -> Array:
    """The array of a `.npy` file, format versions 1 to 3; text comes back as UTF-8 bytes.

    Raises InvalidArgument for what is no such file, is cut short, or holds what no tensor can.
    """
    header, start = _npy_header(body)
    dtype, fortran_order, shape = _described(header)
    data = memoryview(body)[start:]
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidArgument(
            f"The npy body has {len(data)} bytes after its header; shape {shape} of {dtype.str} needs {expected}"
        )
    try:
        flat = np.frombuffer(data, dtype) if expected else np.empty(0, dtype)
        array = flat.reshape(shape[::-1]).transpose() if fortran_order else flat.reshape(shape)
    except (ValueError, OverflowError, MemoryError):
        raise InvalidArgument(f"The npy body has a shape that no array can have: {shape}") from None
    return _native(array)


def decode_npz(body: Body, limit_bytes: int = 1 << 30) -> dict[str, Array]:
    """The arrays of a `.npz` file by name; unpacked they may have `limit_bytes` together.

    Raises InvalidArgument for what is no such file or too large, naming the member that is wrong.
    """
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > limit_bytes:
                raise InvalidArgument(f"The npz body has {total} bytes when unpacked; at most {limit_bytes} are allowed")
            for member in members:
                if member.compress_type not in _MEMBERS:
                    raise InvalidArgument(f"The npz body: '{member.filename}' is compressed otherwise than NumPy does")
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise InvalidArgument(f"The npz body has '{name}' twice")
                arrays[name] = _npz_member(name, archive.read(member))
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise InvalidArgument(f"The npz body is not a zip file that can be read: {error}") from None
    except RuntimeError:
        raise InvalidArgument("The npz body is encrypted") from None
    return arrays


def encode_npy(array: Array) -> list[bytes | memoryview]:
    """The `.npy` file of an array in two buffers: its header, and its elements where they are.

    Element types that NumPy itself lacks become the next wider ones that it has; strings become fixed-width bytes.
    Raises InvalidArgument for strings that fixed width would change.
    """
    plain = _plain(array)
    return [_header_of(plain.dtype.str, plain.shape), _elements(plain)]


def encode_npz(outputs: Mapping[str, Array]) -> bytes:
    """The `.npz` file of several arrays, stored without compression."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in outputs.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), b"".join(encode_npy(array)))
    return file.getvalue()


def decode_octet_stream(body: Body, signature: Signature, parameters: Mapping[str, str]) -> Array:
    """The array whose elements the body is, little-endian and in C order; for a string input the body is one element.

    `parameters` are those of the content type: `dtype` (else the input's) and `shape` (else the input's, with the one
    size that is unknown computed). Raises InvalidArgument saying how many bytes were expected.
    """
    if len(signature.inputs) != 1:
        names = ", ".join(signature.inputs) or "none"
        raise InvalidArgument(f"application/octet-stream is for signatures with one input; {signature.name} has: {names}")
    spec = next(iter(signature.inputs.values()))
    dtype = _named_dtype(parameters["dtype"]) if "dtype" in parameters else spec.dtype
    sizes = _shape_parameter(parameters["shape"]) if "shape" in parameters else spec.shape
    try:
        if dtype.is_string:
            text = np.empty(_shape_of_one(sizes, spec), object)  # np.full would drop trailing zero bytes
            text.fill(bytes(body))
            return text
        little = dtype.numpy.newbyteorder("<") if dtype.numpy.isbuiltin == 1 else dtype.numpy
        shape = _shape_of_many(len(body), dtype, sizes, spec)
        return _native((np.frombuffer(body, little) if len(body) else np.empty(0, little)).reshape(shape))
    except (ValueError, OverflowError):
        raise InvalidArgument(f"Input '{spec.name}' has a shape that no array can have: {sizes}") from None


def encode_octet_stream(outputs: Mapping[str, Array]) -> tuple[list[bytes | memoryview], str]:
    """The elements of the single output, little-endian and in C order, and the content type with its dtype and shape.

    Raises InvalidArgument for several outputs, and for several strings.
    """
    if len(outputs) != 1:
        names = ", ".join(sorted(outputs)) or "none"
        raise InvalidArgument(f"application/octet-stream is for one output; there are: {names}")
    ((name, array),) = outputs.items()
    kind = dtype_of_array(array)
    if kind.is_string and array.size != 1:
        raise InvalidArgument(f"Output '{name}' has {array.size} strings; application/octet-stream can carry one")
    label = "string" if kind.is_string else kind.numpy.name
    content_type = f'application/octet-stream; dtype={label}; shape="{",".join(map(str, array.shape))}"'
    if kind.is_string:
        element = array.reshape(-1)[0]
        return [element.encode() if isinstance(element, str) else bytes(element)], content_type
    return [_elements(array)], content_type


def _npy_header(body: Body) -> tuple[bytes, int]:
    """The header's text, and where the elements start."""
    start = bytes(body[:8])
    if not start.startswith(_MAGIC) or len(start) < 8:
        raise InvalidArgument("The body is not an npy file: it does not start with \\x93NUMPY and a version")
    if start[6] not in (1, 2, 3):
        raise InvalidArgument(f"The npy body has format version {start[6]}.{start[7]}; 1, 2 and 3 can be read")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(body[8 : 8 + width], "little")
    end = 8 + width + length
    if length > _MAX_HEADER_BYTES or end > len(body):
        raise InvalidArgument(f"The npy body has a header of {length} bytes; it is cut short, or it is no header")
    return bytes(body[8 + width : end]), end


@functools.lru_cache(_KEPT_HEADERS)
def _described(header: bytes) -> tuple[np.dtype[np.generic], bool, tuple[int, ...]]:
    """dtype, whether in Fortran's order, shape. Remembered: a client sends the same header again and again."""
    header = header.strip()
    items: dict[bytes, tuple[bytes, bytes, bytes]] = {}
    at = 1
    while item := _HEADER_ITEM.match(header, at):
        items[item[2]] = (item[4], item[5], item[6])
        at = item.end()
    try:
        descr, order, shape = items[b"descr"][0], items[b"fortran_order"][1], items[b"shape"][2]
        if header[:1] != b"{" or header[at:].strip() != b"}" or None in (descr, order, shape):
            raise ValueError
        sizes = tuple(int(size.strip(b"L \t")) for size in shape.rstrip(b", \t").split(b",")) if shape.strip() else ()
    except (KeyError, ValueError):
        raise InvalidArgument("The npy body has a header that describes no array of numbers or strings") from None
    if any(size > sys.maxsize for size in sizes):
        raise InvalidArgument(f"The npy body has a shape that no array can have: {sizes}")
    return _npy_dtype(descr.decode()), order == b"True", sizes


@functools.lru_cache(_KEPT_HEADERS)
def _header_of(descr: str, shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _npy_dtype(descr: str) -> np.dtype[np.generic]:
    try:
        dtype = np.dtype(descr)
        dtype_of_array(np.empty(0, dtype))
    except (TypeError, ValueError, KeyError):
        raise InvalidArgument(f"The npy body has elements of type {descr}, which no tensor has") from None
    if dtype.hasobject:
        raise InvalidArgument("The npy body holds pickled objects, which are never opened")
    if dtype.itemsize == 0:
        raise InvalidArgument(f"The npy body has elements of type {descr}, which have no size")
    return dtype


def _npz_member(name: str, data: bytes) -> Array:
    try:
        return decode_npy(data)
    except InvalidArgument as error:
        raise InvalidArgument(f"In the npz body, '{name}': {error.message}") from None


def _native(array: Array) -> Array:
    """In C order, aligned, of the machine's byte order; copied only where it is not so already."""
    plain = np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
    if plain.dtype.kind == "b":
        return np.not_equal(plain.view(np.uint8), 0)
    if plain.dtype.kind == "S":
        return plain.astype(object)
    if plain.dtype.kind == "U":
        return _utf8(plain)
    return plain


def _utf8(array: Array) -> Array:
    try:
        # NumPy makes strings of any 32 bits, and Python fails in ways of its own over those that are no characters.
        if array.size and array.reshape(-1).view(np.uint32).max() > sys.maxunicode:
            raise ValueError
        encoded = np.empty(array.size, object)
        encoded[:] = [text.encode() for text in array.reshape(-1).tolist()]
    except ValueError:
        raise InvalidArgument("The npy body has text that is not Unicode") from None
    return encoded.reshape(array.shape)


def _plain(array: Array) -> Array:
    """The array with an element type that NumPy can read without other libraries, in C order."""
    kind = dtype_of_array(array)
    if kind.is_string:
        return _fixed_width(array)
    if kind.numpy.isbuiltin != 1:
        array = array.astype(np.int8 if kind.name == "int4" else np.uint8 if kind.name == "uint4" else np.float32)
    return np.require(array, requirements=["C"])


def _fixed_width(array: Array) -> Array:
    values = [value.encode() if isinstance(value, str) else bytes(value) for value in array.reshape(-1).tolist()]
    if any(value.endswith(b"\0") for value in values):
        raise InvalidArgument("npy drops the zero bytes at the end of strings; ask for application/json")
    width = max(map(len, values), default=0) or 1
    if width * len(values) > _MAX_PADDED_BYTES:
        raise InvalidArgument(f"npy pads {len(values)} strings to {width} bytes each; ask for application/json")
    return np.array(values, dtype=f"S{width}").reshape(array.shape)


def _elements(array: Array) -> memoryview:
    """The bytes of the elements, little-endian and in C order, without a copy where they lie so."""
    if sys.byteorder == "big":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.require(array, requirements=["C"]).reshape(-1).view(np.uint8).data


def _named_dtype(name: str) -> DType:
    try:
        return dtype_of_name(name.lower())
    except KeyError:
        pass
    try:
        if not re.fullmatch(r"[<|=]?[a-z]\w*", name, re.ASCII):
            raise ValueError
        return dtype_of_array(np.empty(0, np.dtype(name)))
    except (TypeError, ValueError, KeyError):
        raise InvalidArgument(f"The content type has dtype={name}, which no tensor has; float32 is one") from None


def _shape_parameter(text: str) -> tuple[int | None, ...]:
    if not text.strip():
        return ()
    if not re.fullmatch(r"\s*(?:\d{1,18}|-1)\s*(?:,\s*(?:\d{1,18}|-1)\s*)*,?\s*", text, re.ASCII):
        raise InvalidArgument(f"The content type has shape={text}; expected sizes with commas, as in shape=1,224,224,3")
    sizes = (int(size) for size in text.split(",") if size.strip())
    return tuple(None if size < 0 else size for size in sizes)


def _shape_of_one(sizes: tuple[int | None, ...] | None, spec: TensorSpec) -> tuple[int, ...]:
    shape = tuple(1 if size is None else size for size in sizes or ())
    if math.prod(shape) != 1:
        raise InvalidArgument(f"Input '{spec.name}' is string: the body is one element, and the shape {shape} is of more")
    return shape


def _shape_of_many(length: int, dtype: DType, sizes: tuple[int | None, ...] | None, spec: TensorSpec) -> tuple[int, ...]:
    """`sizes` with the one that is unknown computed from the number of bytes."""
    if sizes is None or sizes.count(None) > 1:
        raise InvalidArgument(
            f"Input '{spec.name}' has shape {spec.shape_text()}, and one unknown size at most can be computed: say the "
            "shape, as in Content-Type: application/octet-stream; shape=1,224,224,3"
        )
    known = math.prod(size for size in sizes if size is not None) * dtype.numpy.itemsize
    text = ", ".join("?" if size is None else str(size) for size in sizes)
    where = f"Input '{spec.name}' is {dtype.name} of shape [{text}]"
    if None not in sizes:
        if length != known:
            raise InvalidArgument(f"{where}: expected {known} bytes, the body has {length}")
        return tuple(size for size in sizes if size is not None)
    if length % known if known else length:
        raise InvalidArgument(f"{where}: expected a multiple of {known} bytes, the body has {length}")
    return tuple((length // known if known else 0) if size is None else size for size in sizes)
