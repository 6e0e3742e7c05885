"""The supervisor's side of the zygotes: what is reported of processes that end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.process.messages import Exited, Forked, ZygoteReady
from tests.process.zygotes import World, world_of

KILLED = 9


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world_of(monkeypatch) as world:
        yield world


def fork(world: World, host: int, pid: int) -> None:
    world.zygote.say(Forked(host, pid))
    world.run_until(lambda: (host, pid) in world.forked)


def test_the_end_of_a_host_is_reported_unless_it_was_told_to_end(world: World) -> None:
    fork(world, 1, 101)
    fork(world, 2, 102)
    world.zygotes.expect_end(101)
    for pid in (101, 102):
        world.zygote.say(Exited(pid, KILLED))
    world.run_until(lambda: world.exited)
    assert world.exited == [(102, KILLED)]


def test_a_number_that_is_used_again_is_another_process(world: World) -> None:
    fork(world, 1, 101)
    world.zygotes.expect_end(101)
    world.zygote.say(Exited(101, 0))
    fork(world, 2, 101)
    world.zygote.say(Exited(101, KILLED))
    world.run_until(lambda: world.exited)
    assert world.exited == [(101, KILLED)]


def test_what_a_dead_zygote_never_told_is_forgotten_with_it(world: World) -> None:
    """Hosts that were told to end while it lived, and those that are told so later: nobody will say that they have ended."""
    fork(world, 1, 101)
    fork(world, 2, 102)
    world.zygotes.expect_end(101)
    world.zygote.die()
    world.run_until(lambda: world.started == 2)
    world.zygotes.expect_end(102)
    world.zygote.say(ZygoteReady("tensorflow", "2"))
    for pid in (101, 102):
        fork(world, pid, pid)
        world.zygote.say(Exited(pid, KILLED))
    world.run_until(lambda: len(world.exited) == 2)
    assert world.exited == [(101, KILLED), (102, KILLED)]
