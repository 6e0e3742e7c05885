"""The supervisor's side of the processes that unpack: one report for each archive, whatever happens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import DeadlineExceeded, FailedPrecondition, Internal, PenstockError
from penstock.process.channel import FrameSocket
from penstock.process.messages import Unpacked, UnpackSpec, encode, error_message
from penstock.process.unpackings import Unpackings
from tests.process.zygotes import World, world_of

ARCHIVE = Path("/store/a.tar.gz")


class Unpacker:
    """What was reported, and the process of the last archive, from its own side."""

    def __init__(self, world: World, timeout_s: float = 60.0) -> None:
        self.reports: list[tuple[str, dict[int, Path] | str]] = []
        self.errors: list[PenstockError] = []
        self._world = world
        self._unpackings = Unpackings(world.loop, world.zygotes, self, timeout_s)

    def archive_unpacked(self, model: str, archive: Path, versions: dict[int, Path], root: Path) -> None:
        assert (archive, root) == (ARCHIVE, Path("/cache/x"))
        self.reports.append((model, versions))

    def archive_refused(self, model: str, error: PenstockError) -> None:
        self.errors.append(error)
        self.reports.append((model, error.message))

    def start(self) -> FrameSocket:
        """The socket that the process gets."""
        self._unpackings.start("a", ARCHIVE)
        self._world.run_until(lambda: self._world.zygote.heard() == [UnpackSpec("a", str(ARCHIVE))])
        return FrameSocket(socket.socket(fileno=self._world.zygote.control.fds.popleft()))

    def run_until_reported(self) -> None:
        self._world.run_until(lambda: self.reports)

    def end(self) -> None:
        self._unpackings.end()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world_of(monkeypatch) as world:
        yield world


def test_what_is_in_an_archive_is_reported_once(world: World) -> None:
    """Also when the process ends, as it does, and its time is over, as it will be."""
    unpacker = Unpacker(world, timeout_s=0.2)
    process = unpacker.start()
    process.send(encode(Unpacked({3: "/cache/x/3"}, "/cache/x", None)))
    process.close()
    unpacker.run_until_reported()
    is_late: list[bool] = []
    world.loop.after(0.3, lambda: is_late.append(True))
    world.run_until(lambda: is_late)
    assert unpacker.reports == [("a", {3: Path("/cache/x/3")})]


def test_why_an_archive_cannot_be_unpacked_is_reported(world: World) -> None:
    unpacker = Unpacker(world)
    process = unpacker.start()
    process.send(encode(Unpacked({}, "", error_message(FailedPrecondition("a link")))))
    unpacker.run_until_reported()
    assert unpacker.reports == [("a", "a link")]
    assert isinstance(unpacker.errors[0], FailedPrecondition)
    process.close()


def test_a_process_that_ends_before_it_is_done_is_an_error(world: World) -> None:
    unpacker = Unpacker(world)
    unpacker.start().close()
    unpacker.run_until_reported()
    assert unpacker.reports == [("a", "The process that unpacks a.tar.gz ended before it was done.")]
    assert isinstance(unpacker.errors[0], Internal)


def test_a_process_that_takes_too_long_is_given_up(world: World) -> None:
    unpacker = Unpacker(world, timeout_s=0.05)
    process = unpacker.start()
    unpacker.run_until_reported()
    assert unpacker.reports == [("a", "a.tar.gz was not unpacked within 0.05 s.")]
    assert isinstance(unpacker.errors[0], DeadlineExceeded)
    process.close()


def test_the_end_of_the_server_is_nobodys_error(world: World) -> None:
    unpacker = Unpacker(world, timeout_s=0.05)
    process = unpacker.start()
    unpacker.end()
    process.close()
    is_late: list[bool] = []
    world.loop.after(0.1, lambda: is_late.append(True))
    world.run_until(lambda: is_late)
    assert unpacker.reports == []
