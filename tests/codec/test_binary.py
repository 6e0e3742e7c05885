"""npy, npz and octet-stream: round trips with NumPy, and files that lie about themselves."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec.binary import (
    decode_npy,
    decode_npz,
    decode_octet_stream,
    encode_npy,
    encode_npz,
    encode_octet_stream,
    is_npz,
)
from penstock.codec.invocation import media_type
from penstock.errors import InvalidArgument, PenstockError
from penstock.tensors import Array, Signature, TensorSpec, dtype_of_name


def npy(array: Array, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, allow_pickle=False)
    return file.getvalue()


def file_of(header: str, data: bytes = b"", version: int = 1) -> bytes:
    width = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(width, len(header)) + header.encode() + data


def header_of(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"


def signature(shape: tuple[int | None, ...] | None, dtype: str = "float", *more: str) -> Signature:
    names = ("x", *more)
    return Signature("serving_default", {name: TensorSpec(name, dtype_of_name(dtype), shape) for name in names}, {})


ARRAYS: list[Array] = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(24, dtype=np.int64).reshape(2, 3, 4)),
    np.arange(5, dtype=">i4"),
    np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
    np.array(2.5),
    np.array([True, False]),
    np.zeros((0, 3), np.float16),
    np.zeros((3, 0), np.uint8),
    np.array([1 + 2j], np.complex64),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_is_read_as_numpy_reads_it(array: Array, version: tuple[int, int]) -> None:
    read = decode_npy(npy(array, version))
    assert read.shape == array.shape
    assert read.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(read, array)
    assert read.flags.c_contiguous
    assert read.flags.aligned


@pytest.mark.parametrize("array", [*ARRAYS, np.arange(12.0).reshape(3, 4)[:, ::2]], ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_npy_is_written_as_numpy_can_read_it(array: Array) -> None:
    read = np.load(io.BytesIO(b"".join(encode_npy(array))), allow_pickle=False)
    assert read.shape == array.shape
    assert np.array_equal(read, array)


def test_large_arrays_are_not_copied() -> None:
    array = np.arange(1000.0)
    body = npy(array)
    assert np.shares_memory(decode_npy(body), np.frombuffer(body, np.uint8))
    assert np.shares_memory(np.frombuffer(encode_npy(array)[1], np.uint8), array)
    octets = array.tobytes()
    read = decode_octet_stream(octets, signature((None,), "double"), {})
    assert np.shares_memory(read, np.frombuffer(octets, np.uint8))


@pytest.mark.parametrize("array", [np.array([b"ab", b"c"]), np.array([["é", "b"]])], ids=["S", "U"])
def test_fixed_width_strings_become_objects(array: Array) -> None:
    read = decode_npy(npy(array))
    assert read.dtype == object
    assert read.shape == array.shape
    assert read.reshape(-1)[0] in (b"ab", "é".encode())


@pytest.mark.parametrize("kind", ["S2", "<U2", ">U2", "?"])
def test_fortran_order_is_undone_for_every_type(kind: str) -> None:
    array = np.asfortranarray(np.array([["1", "2"], ["3", ""]]).astype(kind))
    read = decode_npy(npy(array))
    assert read.flags.c_contiguous
    assert read.tolist() == (array if kind == "?" else array.astype("S")).tolist()


def test_strings_are_written_with_fixed_width() -> None:
    array = np.array([[b"ab", b""]], object)
    read = np.load(io.BytesIO(b"".join(encode_npy(array))), allow_pickle=False)
    assert read.dtype == "S2"
    assert read.tolist() == array.tolist()


def test_strings_that_fixed_width_would_change_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="zero bytes"):
        encode_npy(np.array([b"a\0"], object))
    with pytest.raises(InvalidArgument, match="pads 1000 strings"):
        encode_npy(np.array([b"a" * 1_000_000] + [b""] * 999, object))


@pytest.mark.parametrize(
    ("kind", "wider"),
    [(ml_dtypes.bfloat16, np.float32), (ml_dtypes.float8_e5m2, np.float32), (ml_dtypes.int4, np.int8)],
)
def test_types_that_numpy_lacks_are_widened(kind: Any, wider: Any) -> None:
    read = np.load(io.BytesIO(b"".join(encode_npy(np.array([1, 2]).astype(kind)))))
    assert read.dtype == wider
    assert read.tolist() == [1, 2]


def test_truth_values_are_only_true_and_false() -> None:
    assert decode_npy(file_of(header_of("|b1", "(3,)"), b"\0\2\1")).view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "header",
    [
        "{'shape':(2,),'fortran_order':False,'descr':'<i2'}",
        '{"descr": "<i2", "fortran_order": False, "shape": (2L,)}  \n',
        "{'descr': '<i2', 'fortran_order': False, 'shape': (2 , ), }",
    ],
)
def test_headers_of_other_writers_are_read(header: str) -> None:
    assert decode_npy(file_of(header, b"\1\0\2\0")).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "does not start with"),
        (b"\x93NUMPY", "does not start with"),
        (b"PK\x03\x04", "does not start with"),
        (b"\x93NUMPY\x04\x00\x00\x00", "format version 4.0"),
        (b"\x93NUMPY\x01\x00\xff\x00{", "header of 255 bytes"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "header of 4294967295 bytes"),
        (file_of("{}"), "describes no array"),
        (file_of("[" * 9000), "describes no array"),
        (file_of("__import__('os')"), "describes no array"),
        (file_of(header_of("<f4", "(2,)") + "x"), "describes no array"),
        (file_of(header_of("<f4", "(2, 3 4)")), "describes no array"),
        (file_of(header_of("<f4", "(-1,)")), "describes no array"),
        (file_of(header_of("<f4", "(,,)")), "describes no array"),
        (file_of(header_of("<f4", f"({'9' * 5000},)")), "describes no array"),
        (file_of("{'descr': [('a','<f4')], 'fortran_order': False, 'shape': (1,)}"), "describes no array"),
        (file_of(header_of("<f4", "(2,)"), b"1234567"), r"7 bytes after its header; shape \(2,\) of <f4 needs 8"),
        (file_of(header_of("<f4", "(2,)"), b"123456789"), "9 bytes"),
        (file_of(header_of("<f4", "(4611686018427387904, 4)")), "needs 73786976294838206464"),
        (file_of(header_of("<f4", "(99999999999999999999, 0)")), "no array can have"),
        (file_of(header_of("<f4", "(4611686018427387904, 4611686018427387904, 0)")), "no array can have"),
        (file_of(header_of("<f4", "(" + "1," * 200 + ")"), b"1234"), "no array can have"),
        (file_of(header_of("|O", "(1,)"), b"12345678"), "pickled objects"),
        (file_of(header_of("<M8[ns]", "(1,)"), b"12345678"), "which no tensor has"),
        (file_of(header_of("|V4", "(1,)"), b"1234"), "which no tensor has"),
        (file_of(header_of("<q9", "(1,)"), b"1234"), "which no tensor has"),
        (file_of(header_of("|S0", "(1000000000000,)")), "have no size"),
        (file_of(header_of("<U1", "(1,)"), b"\xff\xff\xff\xff"), "not Unicode"),
    ],
    ids=lambda value: repr(value)[-50:],
)
def test_npy_files_that_are_wrong_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        decode_npy(body)


@given(st.binary(max_size=40), st.integers(0, 200), st.integers(0, 255))
def test_a_spoiled_npy_file_raises_nothing_else(tail: bytes, place: int, value: int) -> None:
    body = bytearray(npy(np.arange(4.0)) + tail)
    body[place % len(body)] = value
    try:
        decode_npy(bytes(body))
    except PenstockError:
        pass


def test_npz_round_trip() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, x=np.arange(3), y=np.array(["a"]))
    assert is_npz(file.getvalue())
    arrays = decode_npz(file.getvalue())
    assert arrays["x"].tolist() == [0, 1, 2]
    assert arrays["y"].tolist() == [b"a"]
    again = np.load(io.BytesIO(encode_npz(arrays)))
    assert {name: again[name].tolist() for name in again} == {"x": [0, 1, 2], "y": [b"a"]}


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros(1_000_000))
    with pytest.raises(InvalidArgument, match="8000128 bytes when unpacked; at most 1000000"):
        decode_npz(file.getvalue(), limit_bytes=1_000_000)


def test_a_member_that_unpacks_to_more_than_it_says_is_refused() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros(1_000_000))
    lie = file.getvalue().replace(struct.pack("<I", 8_000_128), struct.pack("<I", 1000))
    with pytest.raises(InvalidArgument, match="npz body"):
        decode_npz(lie, limit_bytes=1_000_000)


def test_npz_members_that_are_wrong_are_named() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"nothing")
    with pytest.raises(InvalidArgument, match="In the npz body, 'x': The body is not an npy file"):
        decode_npz(file.getvalue())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method: int) -> None:
    """Their decompressors in the standard library unpack without a bound."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x.npy", npy(np.zeros(2)))
    with pytest.raises(InvalidArgument, match="compressed otherwise"):
        decode_npz(file.getvalue())


@given(st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_a_spoiled_npz_file_raises_nothing_else(place: int, value: int, cut: bool) -> None:
    body = bytearray(encode_npz({"x": np.arange(4.0), "y": np.arange(2)}))
    place %= len(body)
    body[place] = value
    try:
        decode_npz(bytes(body[:place] if cut else body), limit_bytes=10_000)
    except PenstockError:
        pass


@pytest.mark.parametrize(
    ("shape", "parameters", "found"),
    [
        ((None, 3), {}, (2, 3)),
        ((2, 3), {}, (2, 3)),
        ((None,), {}, (6,)),
        ((2, None), {}, (2, 3)),
        (None, {"shape": "3,2"}, (3, 2)),
        ((None, None), {"shape": "1, 6,"}, (1, 6)),
        ((None, None), {"shape": "-1,2"}, (3, 2)),
        ((None,), {"dtype": "float32"}, (6,)),
        ((None,), {"dtype": "float"}, (6,)),
        ((None,), {"dtype": "<f4"}, (6,)),
    ],
)
def test_octets_take_their_shape_from_the_signature_or_the_content_type(
    shape: tuple[int | None, ...] | None, parameters: dict[str, str], found: tuple[int, ...]
) -> None:
    data = np.arange(6, dtype="<f4")
    array = decode_octet_stream(data.tobytes(), signature(shape), parameters)
    assert array.dtype == np.float32
    assert array.shape == found
    assert array.reshape(-1).tolist() == data.tolist()


def test_the_dtype_of_the_content_type_is_that_of_the_array() -> None:
    assert decode_octet_stream(b"\0\x80", signature((None,)), {"dtype": "bfloat16"}).dtype == ml_dtypes.bfloat16
    assert decode_octet_stream(b"\1\2", signature((None,)), {"dtype": "uint8"}).tolist() == [1, 2]
    assert decode_octet_stream(b"\7\0", signature((None,), "bool"), {}).view(np.uint8).tolist() == [1, 0]


@pytest.mark.parametrize(("shape", "found"), [((None,), (1,)), ((), ()), (None, ()), ((None, 1), (1, 1))])
def test_for_a_string_input_the_body_is_one_element(shape: tuple[int | None, ...] | None, found: tuple[int, ...]) -> None:
    array = decode_octet_stream(b"\xff\xd8 jpeg", signature(shape, "string"), {})
    assert array.shape == found
    assert array.reshape(-1).tolist() == [b"\xff\xd8 jpeg"]


def test_an_empty_body_is_an_empty_batch() -> None:
    assert decode_octet_stream(b"", signature((None, 3)), {}).shape == (0, 3)


@pytest.mark.parametrize(
    ("given_signature", "parameters", "message"),
    [
        (
            signature((None, 4)),
            {},
            r"'x' is float of shape \[\?, 4\]: expected a multiple of 16 bytes, the body has 24",
        ),
        (signature((2, 2)), {}, r"'x' is float of shape \[2, 2\]: expected 16 bytes, the body has 24"),
        (signature((None,)), {"dtype": "int64", "shape": "2"}, r"int64 of shape \[2\]: expected 16 bytes"),
        (signature((None, 0)), {}, "expected a multiple of 0 bytes"),
        (signature((None, None)), {}, "say the shape"),
        (signature(None), {}, "unknown rank"),
        (signature((None,), "float", "y"), {}, "has: x, y"),
        (signature((None,)), {"shape": "2,x"}, "expected sizes with commas"),
        (signature((None,)), {"shape": "999999999999999999999"}, "expected sizes with commas"),
        (signature((None,)), {"shape": "999999999999999999,999999999999999999"}, "the body has 24"),
        (signature((None,)), {"shape": "6" + ",1" * 100}, "no array can have"),
        (signature((None,)), {"dtype": "datetime64"}, "which no tensor has"),
        (signature((None,)), {"dtype": "i4,f4"}, "which no tensor has"),
        (signature((None,)), {"dtype": ">f4"}, "which no tensor has"),
        (signature((2,), "string"), {}, "the body is one element"),
    ],
)
def test_octets_that_do_not_fit_are_refused(given_signature: Signature, parameters: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        decode_octet_stream(bytes(24), given_signature, parameters)


@pytest.mark.parametrize(
    ("array", "content_type"),
    [
        (np.arange(6, dtype=np.float32).reshape(2, 3), 'application/octet-stream; dtype=float32; shape="2,3"'),
        (np.asfortranarray(np.arange(6).reshape(2, 3)), 'application/octet-stream; dtype=int64; shape="2,3"'),
        (np.array(1.5), 'application/octet-stream; dtype=float64; shape=""'),
        (np.zeros((0, 2), bool), 'application/octet-stream; dtype=bool; shape="0,2"'),
        (np.array([1]).astype(ml_dtypes.bfloat16), 'application/octet-stream; dtype=bfloat16; shape="1"'),
        (np.array([b"png"], object), 'application/octet-stream; dtype=string; shape="1"'),
    ],
)
def test_octets_say_what_they_are_and_are_read_back(array: Array, content_type: str) -> None:
    buffers, label = encode_octet_stream({"y": array})
    assert label == content_type
    read = decode_octet_stream(b"".join(buffers), signature(None), media_type(label)[1])
    assert read.dtype == array.dtype
    assert read.shape == array.shape
    assert read.tolist() == array.tolist()


def test_octets_are_for_one_output() -> None:
    with pytest.raises(InvalidArgument, match="there are: a, b"):
        encode_octet_stream({"b": np.zeros(1), "a": np.zeros(1)})
    with pytest.raises(InvalidArgument, match="2 strings"):
        encode_octet_stream({"y": np.array([b"a", b"b"], object)})
