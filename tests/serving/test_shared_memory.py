"""Regions of system shared memory: what may be opened, read and written, and what a client may do to them meanwhile."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.codec.oip_request import Place
from penstock.errors import InvalidArgument
from penstock.serving.shared_memory import FOLDER, Region, SharedMemory, check_region

pytestmark = pytest.mark.skipif(not Path(FOLDER).is_dir(), reason="shared memory is a folder on Linux only")


@pytest.fixture
def path() -> Iterator[Path]:
    """A shared memory object of 64 bytes that count up."""
    path = Path(FOLDER) / f"penstock-test-{secrets.token_hex(8)}"
    path.write_bytes(bytes(range(64)))
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def memory(path: Path) -> SharedMemory:
    memory = SharedMemory(1 << 20)
    memory.update([Region("r", path.name, 8, 16)])
    return memory


def test_a_place_is_counted_from_the_start_of_its_region(memory: SharedMemory, path: Path) -> None:
    assert memory.read(Place("r", 0, 16)) == bytes(range(8, 24))
    assert memory.read(Place("r", 4, 2)) == b"\x0c\x0d"
    memory.write(Place("r", 14, 2), b"ab")
    assert path.read_bytes()[20:26] == b"\x14\x15ab\x18\x19"
    assert memory.read(Place("r", 16, 0)) == b""


@pytest.mark.parametrize("place", [Place("r", 0, 17), Place("r", 16, 1), Place("r", 1 << 62, 1), Place("r", 0, 1 << 62)])
def test_nothing_outside_of_a_region_is_touched(memory: SharedMemory, path: Path, place: Place) -> None:
    with pytest.raises(InvalidArgument, match="outside of region 'r', which has 16"):
        memory.read(place)
    with pytest.raises(InvalidArgument, match="outside of region"):
        memory.write(place, bytes(17))
    assert path.read_bytes() == bytes(range(64))


def test_a_write_has_no_more_than_its_place(memory: SharedMemory, path: Path) -> None:
    memory.write(Place("r", 0, 2), b"abcdef")
    assert path.read_bytes()[8:12] == b"ab\x0a\x0b"


def test_a_region_that_is_unknown_is_refused(memory: SharedMemory) -> None:
    with pytest.raises(InvalidArgument, match="There is no shared memory region 'q'"):
        memory.read(Place("q", 0, 1))


def test_a_region_that_was_made_shorter_is_an_error_and_no_crash(memory: SharedMemory, path: Path) -> None:
    os.truncate(path, 10)
    with pytest.raises(InvalidArgument, match="has become shorter"):
        memory.read(Place("r", 0, 16))


def test_a_region_outlives_the_name_of_its_object(memory: SharedMemory, path: Path) -> None:
    path.unlink()
    assert memory.read(Place("r", 0, 1)) == b"\x08"


def test_tensors_have_a_bound(path: Path) -> None:
    memory = SharedMemory(8)
    memory.update([Region("r", path.name, 0, 64)])
    with pytest.raises(InvalidArgument, match="larger than the 8 that are allowed"):
        memory.read(Place("r", 0, 9))


def test_an_update_is_whole_and_closes_what_is_gone(memory: SharedMemory, path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    other = Region("other", "/" + path.name, 0, 64)
    memory.update([other])
    assert list(memory.regions) == ["other"]
    assert len(os.listdir("/proc/self/fd")) == before
    memory.update([other, Region("gone", "penstock-test-not-there", 0, 1)])
    assert list(memory.regions) == ["other"]
    memory.update([other._replace(size=8)])
    assert memory.regions["other"].size == 8
    memory.update([])
    assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.parametrize("key", ["", "/", ".", "..", "/..", "../etc/passwd", "/../etc/passwd", "a/b", "//a", "a\0b", "x" * 256])
def test_keys_that_lead_out_of_the_folder_are_refused(key: str) -> None:
    with pytest.raises(InvalidArgument, match="expected the name of an object"):
        check_region(Region("r", key, 0, 1))


@pytest.mark.parametrize("key", ["penstock-test-not-there", "\udc80"])
def test_an_object_that_is_not_there_is_refused(key: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be opened"):
        check_region(Region("r", key, 0, 1))


@pytest.mark.parametrize(("offset", "size"), [(0, 65), (64, 1), (1, 64), (0, 0), (-1, 1), (0, -1), (1 << 63, 1), (0, 1 << 70)])
def test_a_region_has_to_be_in_its_object(path: Path, offset: int, size: int) -> None:
    with pytest.raises(InvalidArgument):
        check_region(Region("r", path.name, offset, size))


def test_links_pipes_and_folders_are_no_shared_memory(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(InvalidArgument, match="cannot be opened"):
        check_region(Region("r", path.name, 0, 1))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InvalidArgument):
        check_region(Region("r", path.name, 0, 1))
    path.unlink()
    path.mkdir()
    try:
        with pytest.raises(InvalidArgument, match="cannot be opened"):
            check_region(Region("r", path.name, 0, 1))
    finally:
        path.rmdir()
