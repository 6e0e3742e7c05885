"""The files of a SavedModel's variables: whether all are there.

Assumes a checkpoint of TensorFlow's V2 format: `variables.index` is a sorted table (plain or compressed with snappy),
whose first record has an empty key and says how many shards there are; each is a file `variables.data-00000-of-00001`.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError

from penstock.errors import DataLoss, NotFound
from penstock.savedmodel.protos import BundleHeader

_TABLE_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES = 48


def check_variables(folder: Path) -> None:
    """Raises NotFound for the first missing file of `folder`, DataLoss for an index that cannot be read."""
    index = folder / "variables.index"
    if not folder.is_dir():
        raise NotFound(f"{folder}: the folder is missing, and the graph restores its variables from it")
    try:
        content = index.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{index}: the file is missing, and the graph restores its variables from it") from None
    except OSError as error:
        raise DataLoss(f"{index}: cannot be read: {error.strerror}") from error
    shards = _shard_count(content)
    if shards is None:
        raise DataLoss(f"{index}: not the index of a checkpoint, or truncated ({len(content)} bytes)")
    for number in range(shards):
        shard = folder / f"variables.data-{number:05}-of-{shards:05}"
        if not shard.is_file():
            raise NotFound(f"{shard}: the file is missing; the index names {shards} of these")


def _shard_count(index: bytes) -> int | None:
    """What the first record says: no shared key bytes, no key bytes, the length of the value, the value."""
    if len(index) < _FOOTER_BYTES or not index.endswith(_TABLE_MAGIC):
        return None
    record = index if index[0] == 0 else _first_literal(index)
    if record[:2] != b"\0\0" or len(record) < 3 or record[2] >= 0x80:
        return None
    try:
        header = BundleHeader.FromString(record[3 : 3 + record[2]])
    except DecodeError:
        return None
    return header.num_shards if header.num_shards > 0 else None


def _first_literal(block: bytes) -> bytes:
    """How a block compressed with snappy begins: its length, then always a run of bytes that are stored as they are.

    The first record lies in that run, because so few different bytes cannot repeat themselves.
    """
    start = 1
    while block[start - 1] >= 0x80:
        start += 1
    tag = block[start]
    if tag & 3 != 0:
        return b""
    length_bytes = max(0, (tag >> 2) - 59)
    return block[start + 1 + length_bytes :]


def folder_bytes(folder: Path) -> int:
    """The size of all files below `folder`; 0 where it is missing. Raises DataLoss where it cannot be read."""
    try:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except OSError as error:
        raise DataLoss(f"{folder}: cannot be read: {error.strerror}") from error
