"""Which version answers, and what becomes of calls whose host is not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.errors import Code, PenstockError, Unavailable
from penstock.serving.call import WHOLE, Call, Results, common_rows
from penstock.serving.routes import Routes, Servable, State
from tests.serving.fakes import FakeCall, FakeHost, rows, signature


def _routes() -> Routes:
    """m has 1 (available), 2 (available), 3 (loading), 4 (failed); only_loading has 1."""
    routes = Routes()
    states = {1: State.AVAILABLE, 2: State.AVAILABLE, 3: State.LOADING, 4: State.END}
    for version, state in states.items():
        servable = routes.servable("m", version, lambda version=version: Servable("m", version))  # type: ignore[misc]
        servable.update(state, Unavailable("broken") if state is State.END else None)
    routes.models["m"].labels = {"stable": 1, "next": 3}
    routes.servable("only_loading", 1, lambda: Servable("only_loading", 1)).update(State.LOADING, None)
    return routes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("m",), 2),
        (("m", 1), 1),
        (("m", None, "stable"), 1),
    ],
    ids=["the highest that is available", "the one named", "the one with the label"],
)
def test_what_is_found(arguments: tuple[Any, ...], expected: int) -> None:
    assert _routes().find(*arguments).version == expected


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("x",), Code.NOT_FOUND, "Servable not found for request: Latest(x)"),
        (("m", 9), Code.NOT_FOUND, "Servable not found for request: Specific(m, 9)"),
        (("x", 9), Code.NOT_FOUND, "Servable not found for request: Specific(x, 9)"),
        (("m", None, "nope"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: nope"),
        (("m", None, "next"), Code.UNAVAILABLE, "Version 3 of model m is not available: its state is LOADING."),
        (("m", 4), Code.UNAVAILABLE, "Version 4 of model m is not being served: broken"),
        (("only_loading",), Code.UNAVAILABLE, "Version 1 of model only_loading is not available: its state is LOADING."),
    ],
)
def test_what_is_not_found_says_why(arguments: tuple[Any, ...], code: Code, text: str) -> None:
    with pytest.raises(PenstockError) as caught:
        _routes().find(*arguments)
    assert caught.value.code is code
    assert caught.value.message == text


def test_status_lists_versions_newest_first() -> None:
    assert [servable.version for servable in _routes().status("m")] == [4, 3, 2, 1]
    assert [servable.version for servable in _routes().status("m", label="stable")] == [1]
    for arguments, text in (
        (("x",), "Could not find any versions of model x"),
        (("m", 9), "Could not find version 9 of model m"),
    ):
        with pytest.raises(PenstockError, match=text):
            _routes().status(*arguments)


def _servable(*, is_stateful: bool = False, max_waiting: int = 2) -> Servable:
    servable = Servable("m", 1, is_stateful=is_stateful, max_waiting=max_waiting)
    servable.update(State.AVAILABLE, None)
    return servable


def _call(servable: Servable, ended: list[Call], deadline_ns: int = 1 << 62) -> Call:
    return FakeCall(servable, signature(), (rows(1),), deadline_ns, ended)


def test_calls_go_to_the_least_loaded_host() -> None:
    servable, hosts = _servable(), [FakeHost(), FakeHost()]
    for host in hosts:
        servable.attach(host)
    for _ in range(4):
        servable.submit(_call(servable, []))
    assert [host.load for host in hosts] == [2, 2]


def test_calls_wait_for_a_host_that_restarts_and_no_more_than_allowed() -> None:
    servable = _servable()
    calls = [_call(servable, []) for _ in range(2)]
    for call in calls:
        servable.submit(call)
    with pytest.raises(PenstockError, match="full"):
        servable.submit(_call(servable, []))
    host = FakeHost()
    servable.attach(host)
    assert host.calls == calls


def test_calls_that_wait_are_told_when_no_host_will_come() -> None:
    servable = _servable()
    ended: list[Call] = []
    servable.submit(_call(servable, ended))
    servable.update(State.END, Unavailable("given up"))
    assert [call.error and call.error.message for call in ended] == ["Version 1 of model m is not being served: given up"]


def test_a_call_whose_host_died_is_tried_once_more_and_only_once() -> None:
    servable = _servable()
    ended: list[Call] = []
    first, second = FakeHost(), FakeHost()
    servable.attach(first)
    call = _call(servable, ended)
    servable.submit(call)
    servable.detach(first, [call])
    servable.attach(second)
    assert second.calls == [call]
    servable.detach(second, [call])
    assert [call.error and call.error.code for call in ended] == [Code.UNAVAILABLE]


def test_a_call_to_a_stateful_model_is_never_tried_again() -> None:
    servable = _servable(is_stateful=True)
    ended: list[Call] = []
    host, other = FakeHost(), FakeHost()
    servable.attach(host)
    servable.attach(other)
    call = _call(servable, ended)
    servable.detach(host, [call])
    assert other.calls == []
    assert [call.error and call.error.code for call in ended] == [Code.UNAVAILABLE]


def test_waiting_calls_expire_at_their_deadline() -> None:
    servable = _servable()
    late, early = _call(servable, [], deadline_ns=10), _call(servable, [], deadline_ns=30)
    servable.submit(late)
    servable.submit(early)
    assert servable.expire(20) == [late]
    assert list(servable.waiting) == [early]


def test_a_call_ends_once() -> None:
    ended: list[Call] = []
    call = _call(_servable(), ended)
    call.finish(Results({}))
    call.fail(Unavailable("later"))
    call.finish(Results({}))
    assert ended == [call]
    assert call.error is None


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(3, 2)], 3),
        ([(3,), (3, 5)], 3),
        ([(3,), (2,)], WHOLE),
        ([()], WHOLE),
        ([(0, 4)], WHOLE),
        ([(3,), ()], WHOLE),
        ([], WHOLE),
    ],
)
def test_rows_are_the_first_dimension_that_all_inputs_share(shapes: list[tuple[int, ...]], expected: int) -> None:
    assert common_rows(tuple(np.zeros(shape, np.float32) for shape in shapes)) == expected
