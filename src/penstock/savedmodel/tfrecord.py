"""TFRecord files: records one after another, each guarded by checksums.

    length, 8 bytes | masked CRC-32C of the length, 4 bytes | data | masked CRC-32C of the data, 4 bytes

All numbers are little-endian. Guarantees: a record is handed out only when both checksums are right; what is read at
once is never more than the file holds, whatever length a record claims. Assumes a file that is not compressed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from penstock.errors import DataLoss

_Words = npt.NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, lowest bit first
_MASK_DELTA = 0xA282EAD8
_BLOCK = 1 << 20
_HEADER_BYTES = 12
_FOOTER_BYTES = 4


def read_records(file: Path) -> Iterator[bytes]:
    """The data of each record, in order. Raises DataLoss, which names the byte where the bad record starts, and OSError."""
    with file.open("rb") as stream:
        left = os.fstat(stream.fileno()).st_size
        offset = 0
        while header := stream.read(_HEADER_BYTES):
            where = f"record at byte {offset}"
            if len(header) < _HEADER_BYTES:
                raise DataLoss(f"{file}: truncated {where}")
            if not _is_intact(header[:8], header[8:]):
                raise DataLoss(f"{file}: corrupted {where}")
            length = int.from_bytes(header[:8], "little")
            size = _HEADER_BYTES + length + _FOOTER_BYTES
            if size > left:
                raise DataLoss(f"{file}: truncated {where}: it has {length} bytes, the file ends before")
            yield _read_data(stream, length, f"{file}: corrupted {where}")
            left -= size
            offset += size


def _read_data(stream: BinaryIO, length: int, message: str) -> bytes:
    data = stream.read(length)
    if not _is_intact(data, stream.read(_FOOTER_BYTES)):
        raise DataLoss(message)
    return data


def _is_intact(data: bytes, checksum: bytes) -> bool:
    return masked_crc32c(data) == int.from_bytes(checksum, "little")


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C as records store it: rotated and shifted, because a CRC over data that holds its own CRC is weak."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFF_FFFF


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of `data`, some 350 MB a second.

    Two halves can be taken by themselves: the register after both is the one after the first, moved on over as many
    zeros as the second has bytes, XOR the one after the second. So neighbours are joined pairwise, all at once, until
    one is left. Zeros in front change nothing, as the register begins with zero; `_prefix` turns it into the ones that
    the checksum begins with.
    """
    start = len(data) % _BLOCK
    padding = bytes(-start % 4)
    register = _fold(np.frombuffer(padding + _prefix() + data[:start], "<u4").astype(np.uint32))
    for position in range(start, len(data), _BLOCK):
        words = np.frombuffer(data, "<u4", _BLOCK // 4, position).astype(np.uint32)
        words[0] ^= np.uint32(register)
        register = _fold(words)
    return register ^ 0xFFFF_FFFF


def _fold(words: _Words) -> int:
    """The register after these words, begun with zero."""
    level = 0
    while len(words) > 1:
        if len(words) % 2:
            words = np.concatenate((np.zeros(1, np.uint32), words))
        words = _advance(words[0::2], level) ^ words[1::2]
        level += 1
    return int(_advance(words, 0)[0])


def _advance(registers: _Words, level: int) -> _Words:
    """Each register after 4 · 2^level bytes of zero."""
    tables = _tables(level)
    lower = tables[0][registers & 0xFF] ^ tables[1][registers >> 8 & 0xFF]
    upper = tables[2][registers >> 16 & 0xFF] ^ tables[3][registers >> 24]
    moved: _Words = lower ^ upper
    return moved


@functools.cache
def _tables(level: int) -> _Words:
    """[4, 256]: what each value of each byte of a register contributes to it 4 · 2^level bytes of zero later."""
    if level > 0:
        return _advance(_advance(_byte_values(), level - 1), level - 1)
    registers = _byte_values()
    for _ in range(32):
        registers = registers >> 1 ^ (registers & 1) * np.uint32(_POLYNOMIAL)
    return registers


def _byte_values() -> _Words:
    shifts = np.arange(0, 32, 8, dtype=np.uint32)
    return np.arange(256, dtype=np.uint32) << shifts[:, np.newaxis]


@functools.cache
def _prefix() -> bytes:
    """The four bytes that take the register from zero to all ones: 32 steps back from there."""
    register = 0xFFFF_FFFF
    for _ in range(32):
        register = (register ^ _POLYNOMIAL) << 1 | 1 if register >> 31 else register << 1
    return register.to_bytes(4, "little")
