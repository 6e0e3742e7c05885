"""Regions at the supervisor: who is told, and when whoever asked is answered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.errors import AlreadyExists, PenstockError, ResourceExhausted
from penstock.process.messages import Regions, decode_from_supervisor, encode
from penstock.process.shared_regions import MAX_REGIONS, SharedRegions
from penstock.serving.shared_memory import Region

REGION = Region("r", "/key", 4, 8)


class _Server:
    """Two gateways that listen; the test says what they know, and when a timer is due."""

    def __init__(self) -> None:
        self.told: list[Regions] = []
        self.timers: list[Callable[[], None]] = []
        self.answers: list[PenstockError | None] = []
        self.listening = [0, 1]
        self.regions = SharedRegions(lambda: self.listening, self.told.append, lambda delay_s, action: self.timers.append(action))

    def register(self, region: Region) -> None:
        self.regions.register(region, self.answers.append)


@pytest.fixture
def server() -> _Server:
    return _Server()


def test_whoever_registers_is_answered_when_all_gateways_know(server: _Server) -> None:
    server.register(REGION)
    assert server.told == [Regions(1, [REGION])]
    server.regions.known(0, 1)
    assert not server.answers
    server.regions.known(1, 1)
    assert server.answers == [None]
    server.timers[0]()
    assert server.answers == [None]


def test_a_gateway_that_says_nothing_holds_nobody_up(server: _Server) -> None:
    server.register(REGION)
    server.regions.known(0, 1)
    server.timers[0]()
    assert server.answers == [None]


def test_a_later_number_answers_for_the_earlier_ones(server: _Server) -> None:
    server.register(REGION)
    server.register(Region("q", "/key", 0, 1))
    for gateway in server.listening:
        server.regions.known(gateway, 2)
    assert server.answers == [None, None]


def test_a_name_is_taken_until_it_is_free_again(server: _Server) -> None:
    server.register(REGION)
    server.register(REGION._replace(key="/other"))
    assert isinstance(server.answers[-1], AlreadyExists)
    server.regions.unregister("r", server.answers.append)
    server.register(REGION._replace(key="/other"))
    assert server.told[-1].regions == [REGION._replace(key="/other")]


def test_all_are_taken_out_at_once_and_one_that_is_not_there_is_no_error(server: _Server) -> None:
    server.register(REGION)
    server.register(Region("q", "/key", 0, 1))
    server.regions.unregister("nobody", server.answers.append)
    assert len(server.told[-1].regions) == 2
    server.regions.unregister("", server.answers.append)
    assert server.told[-1].regions == []
    for timer in server.timers:
        timer()
    assert server.answers == [None] * 4


def test_the_number_of_regions_is_bounded(server: _Server) -> None:
    for number in range(MAX_REGIONS):
        server.register(Region(str(number), "/key", 0, 1))
    server.register(REGION)
    assert isinstance(server.answers[-1], ResourceExhausted)


def test_regions_travel_whole() -> None:
    message = Regions(3, [REGION])
    assert decode_from_supervisor(encode(message)) == message
