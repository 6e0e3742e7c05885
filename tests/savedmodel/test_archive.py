"""Unpacking: what is in an archive and nothing more, nowhere else, and all of it or nothing."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.savedmodel import archive as module
from penstock.savedmodel.archive import unpack


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info


def write_archive(path: Path, *files: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files:
            tar.addfile(member(name, content), io.BytesIO(content))
    return path


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_content_comes_out_as_it_went_in(tmp_path: Path) -> None:
    files = {"1/saved_model.pb": b"graph", "1/variables/variables.index": b"x" * 3000, "./code/inference.py": b""}
    folder = unpack(write_archive(tmp_path / "m.tar.gz", *files.items()), tmp_path / "cache")
    assert everything_in(folder) == {name.removeprefix("./"): content for name, content in files.items()}


def test_same_content_is_unpacked_once(tmp_path: Path) -> None:
    first = write_archive(tmp_path / "a.tar.gz", ("1/f", b"x"))
    folder = unpack(first, tmp_path / "cache")
    (folder / "marker").touch()
    copy = tmp_path / "b.tar.gz"
    copy.write_bytes(first.read_bytes())
    assert unpack(copy, tmp_path / "cache") == folder
    assert (folder / "marker").exists()
    assert unpack(write_archive(first, ("1/f", b"y")), tmp_path / "cache") != folder


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (member("../outside"), r"'\.\./outside' leads out"),
        (member("a/../../outside"), "leads out"),
        (member("/outside"), "'/outside' leads out"),
        (member("..", kind=tarfile.DIRTYPE), "leads out"),
        (member("link", kind=tarfile.SYMTYPE, link="/etc"), "'link' is a link"),
        (member("link", kind=tarfile.LNKTYPE, link="1/f"), "'link' is a link"),
        (member("pipe", kind=tarfile.FIFOTYPE), "neither a file nor a folder"),
        (member("device", kind=tarfile.CHRTYPE), "neither a file nor a folder"),
        (member("device", kind=tarfile.BLKTYPE), "neither a file nor a folder"),
    ],
)
def test_unsafe_members_are_refused_and_leave_nothing(tmp_path: Path, info: tarfile.TarInfo, message: str) -> None:
    path, cache = tmp_path / "m.tar.gz", tmp_path / "cache"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member("1/f"))
        tar.addfile(info)
        tar.addfile(member("link/passwd"))
    with pytest.raises(UsageError, match=f"m\\.tar\\.gz: .*{message}"):
        unpack(path, cache)
    assert list(cache.iterdir()) == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "m.tar.gz"]


def test_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be unpacked"):
        unpack(write_archive(tmp_path / "m.tar.gz", ("a", b"x"), ("a/b", b"x")), tmp_path / "cache")


def test_bounds_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_archive(tmp_path / "m.tar.gz", *((f"f{number}", b"x" * 100_000) for number in range(5)))
    monkeypatch.setattr(module, "MAX_MEMBERS", 4)
    with pytest.raises(UsageError, match="more than 4 files"):
        unpack(path, tmp_path / "cache")
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_BYTES", 300_000)
    with pytest.raises(UsageError, match="more than"):
        unpack(path, tmp_path / "cache")


def test_headers_that_claim_gigabytes_are_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("bomb")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    path = tmp_path / "m.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    with pytest.raises(UsageError, match="a header of"):
        unpack(path, tmp_path / "cache")


def test_zeros_after_the_last_file_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    path = tmp_path / "m.tar.gz"
    path.write_bytes(gzip.compress(bytes(4 << 20)))
    with pytest.raises(UsageError, match="after the last file"):
        unpack(path, tmp_path / "cache")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"\x1f\x8b", b"\x1f\x8b" + b"x" * 600, b"x" * 600])
def test_what_is_no_archive_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.tar.gz").write_bytes(content)
    with pytest.raises(UsageError, match=r"m\.tar\.gz: cannot be unpacked"):
        unpack(tmp_path / "m.tar.gz", tmp_path / "cache")


def test_missing_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be unpacked"):
        unpack(tmp_path / "none.tar", tmp_path / "cache")


def test_truncated_archives_are_never_taken_for_whole(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "m.tar.gz", ("1/saved_model.pb", bytes(range(256)) * 8), ("1/other", b"x" * 512))
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, 5):
        path.write_bytes(whole[:size])
        with pytest.raises(UsageError):
            unpack(path, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_changed_bytes_raise_nothing_else_and_stay_inside(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("1/saved_model.pb", "1/" + "long" * 60, "1/ünïcode"):
            tar.addfile(member(name, b"12345"), io.BytesIO(b"12345"))
    whole = buffer.getvalue()[:5120]
    path, cache = tmp_path / "inner" / "m.tar", tmp_path / "inner" / "cache"
    path.parent.mkdir()

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6))
    def check(changes: list[tuple[int, int]]) -> None:
        data = bytearray(whole)
        for position, value in changes:
            data[position] = value
        path.write_bytes(data)
        try:
            unpack(path, cache)
        except UsageError:
            pass
        assert [file.name for file in tmp_path.iterdir()] == ["inner"]

    check()
