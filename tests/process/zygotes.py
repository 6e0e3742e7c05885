"""Zygotes that fork nothing: a test is at the other end of their sockets."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from penstock.config import ServeOptions
from penstock.process.channel import FrameSocket, frame_pair
from penstock.process.control_loop import ControlLoop
from penstock.process.messages import ZygoteReady, decode_from_supervisor, encode
from penstock.process.zygote_process import Lifeline, ZygoteProcess
from penstock.process.zygotes import Home, ZygoteEvents, Zygotes


class Zygote:
    """One of them, from the side of its process."""

    def __init__(self) -> None:
        ours, theirs = frame_pair()
        self.control = FrameSocket(theirs)
        self.process = ZygoteProcess(subprocess.Popen(["true"]), FrameSocket(ours), "tensorflow")

    def say(self, message: msgspec.Struct) -> None:
        self.control.send(encode(message))

    def heard(self) -> list[msgspec.Struct]:
        """What it was told since the last time; descriptors that came along are in `control.fds`."""
        return [decode_from_supervisor(frame) for frame in self.control.receive_with_fds()]

    def die(self) -> None:
        self.control.close()


class World:
    """The zygotes of a server and its loop. `zygote` is the one that was started last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = ControlLoop()
        self.forked: list[tuple[int, int]] = []
        self.exited: list[tuple[int, int]] = []
        self.missing: list[tuple[Home, str]] = []
        self.started = 0
        self._lifeline = Lifeline()
        monkeypatch.setattr("penstock.process.zygotes.start_zygote", lambda *_: self._start())
        events = ZygoteEvents(
            lambda host, pid: self.forked.append((host, pid)),
            lambda pid, status: self.exited.append((pid, status)),
            lambda home, reason: self.missing.append((home, reason)),
        )
        self.zygotes = Zygotes(self.loop, ServeOptions(), self._lifeline, self._start(), events)
        self.zygote.say(ZygoteReady("tensorflow", "2"))

    def _start(self) -> ZygoteProcess:
        self.zygote = Zygote()
        self.started += 1
        return self.zygote.process

    def run_until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Turns of the loop until something is so."""
        until = time.monotonic() + timeout_s
        self.loop.after(timeout_s, lambda: None)
        while not condition():
            assert time.monotonic() < until, f"not within {timeout_s:g} s"
            self.loop.turn()

    def close(self) -> None:
        self.zygote.die()
        self.zygotes.end()
        self.loop.forget()


@contextmanager
def world_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(monkeypatch)
    try:
        yield world
    finally:
        world.close()
