"""A loop stays awake as long as it was told, and sleeps then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from penstock.process import busy_poll
from penstock.process.busy_poll import BusyPoll


class Loop:
    """What is to be called in the next turn, and a clock that a turn moves on by a millisecond."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.now = 100.0

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        self.now += 0.001
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    found = Loop()
    monkeypatch.setattr(busy_poll, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def turns_awake(loop: Loop) -> int:
    count = 0
    while loop.calls:
        assert len(loop.calls) == 1, "one call keeps it awake, however often it was touched"
        loop.turn()
        count += 1
        assert count < 1000
    return count


def polling(loop: Loop, seconds: float) -> BusyPoll:
    return BusyPoll(cast(asyncio.AbstractEventLoop, loop), seconds)


def test_it_sleeps_until_something_comes(loop: Loop) -> None:
    polling(loop, 0.01)
    assert turns_awake(loop) == 0


def test_it_stays_awake_for_its_time_and_sleeps_then(loop: Loop) -> None:
    poll = polling(loop, 0.0105)
    poll.touch()
    assert turns_awake(loop) == 11
    poll.touch()
    assert turns_awake(loop) == 11


def test_what_comes_meanwhile_begins_the_time_anew(loop: Loop) -> None:
    poll = polling(loop, 0.0105)
    poll.touch()
    for _ in range(5):
        loop.turn()
    poll.touch()
    poll.touch()
    assert turns_awake(loop) == 11
