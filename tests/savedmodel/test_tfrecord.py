"""TFRecord files: checksums by known vectors, records by our own writer and by TensorFlow's."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.errors import DataLoss
from penstock.savedmodel import tfrecord
from penstock.savedmodel.tfrecord import crc32c, masked_crc32c, read_records


def crc32c_bit_by_bit(data: bytes) -> int:
    """The definition: the register shifted once for each bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def as_records(*records: bytes) -> bytes:
    """The records as TFRecord stores them, with the checksums by definition."""
    content = b""
    for record in records:
        for part in (struct.pack("<Q", len(record)), record):
            crc = crc32c_bit_by_bit(part)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
            content += part + struct.pack("<I", masked)
    return content


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.tfrecord"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0x00000000),
        (b"a", 0xC1D04330),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_the_vectors_of_rfc_3720_come_out(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@given(st.binary(max_size=200))
@example(bytes(5))
def test_the_checksum_is_that_of_the_definition(data: bytes) -> None:
    assert crc32c(data) == crc32c_bit_by_bit(data)


@pytest.mark.parametrize("size", [63, 64, 65, 127, 128, 1000])
def test_data_of_several_blocks_has_the_same_checksum(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "_BLOCK", 64)
    data = bytes(range(256)) * 4
    assert crc32c(data[:size]) == crc32c_bit_by_bit(data[:size])


def test_a_full_block_is_one_with_the_next() -> None:
    """The checksum of 2^20 + 3 zeros: a register of ones, moved on by definition."""
    assert crc32c(bytes((1 << 20) + 3)) == crc32c_bit_by_bit(bytes((1 << 20) + 3))


def test_the_mask_is_a_rotation_and_a_constant() -> None:
    crc = crc32c(b"foo")
    assert masked_crc32c(b"foo") != crc
    rotated = (masked_crc32c(b"foo") - 0xA282EAD8) % 2**32
    assert (rotated >> 17 | rotated << 15) % 2**32 == crc


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, records: list[bytes]) -> None:
    file = tmp_path_factory.getbasetemp() / "given.tfrecord"
    file.write_bytes(as_records(*records))
    assert list(read_records(file)) == records


def test_what_tensorflow_writes_is_read(tf: Any, file: Path) -> None:
    records = [b"", b"one", bytes(range(256)) * 5000]
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    assert list(read_records(file)) == records
    file.write_bytes(as_records(*records[:2]))
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(file))] == records[:2]


@pytest.mark.parametrize("missing", range(1, len(as_records(b"second"))))
def test_a_file_that_ends_in_a_record_is_truncated(file: Path, missing: int) -> None:
    file.write_bytes(as_records(b"first", b"second")[:-missing])
    records = read_records(file)
    assert next(records) == b"first"
    with pytest.raises(DataLoss, match="truncated record at byte 21"):
        next(records)


@pytest.mark.parametrize("position", range(len(as_records(b"second"))))
def test_a_changed_byte_is_found(file: Path, position: int) -> None:
    content = bytearray(as_records(b"first", b"second"))
    content[21 + position] ^= 0x10
    file.write_bytes(content)
    records = read_records(file)
    assert next(records) == b"first"
    with pytest.raises(DataLoss, match=f"{file}: corrupted record at byte 21"):
        next(records)


def test_a_length_beyond_the_file_reads_nothing(file: Path) -> None:
    """Even one whose checksum is right."""
    length = struct.pack("<Q", 1 << 62)
    crc = crc32c_bit_by_bit(length)
    file.write_bytes(length + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32) + b"data")
    with pytest.raises(DataLoss, match="truncated record at byte 0: it has 4611686018427387904 bytes"):
        list(read_records(file))


def test_an_empty_file_has_no_records(file: Path) -> None:
    file.touch()
    assert list(read_records(file)) == []
