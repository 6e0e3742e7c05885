"""A curve is followed as far as it says something, and its knee is found."""

from __future__ import annotations

import pytest

from penstock.bench.slo import parse_slo
from penstock.tune.curve import Step, is_hopeless, knee, next_connections
from tests.tune.curves import saturating, step


def followed(measure: dict[int, Step], slo: str = "") -> list[int]:
    goal = parse_slo(slo) if slo else None
    steps: list[Step] = []
    while (connections := next_connections(steps, goal)) is not None:
        steps.append(measure[connections])
    return [one.connections for one in steps]


def test_a_curve_begins_with_one_request_alone_and_ends_when_it_is_flat() -> None:
    flat = {count: step(count, min(1000.0, count * 100)) for count in (1, 4, 8, 16, 32, 64, 128, 256)}
    assert followed(flat) == [1, 4, 8, 16, 32, 64]


def test_a_curve_that_grows_is_followed_to_the_end() -> None:
    growing = {count: step(count, count * 100.0) for count in (1, 4, 8, 16, 32, 64, 128, 256)}
    assert followed(growing) == list(growing)


def test_a_curve_ends_where_the_goal_is_missed() -> None:
    growing = {count: step(count, 1000.0 * count, p99=float(count)) for count in (1, 4, 8, 16, 32)}
    assert followed(growing, "p99<10ms") == [1, 4, 8, 16]


def test_without_a_goal_the_knee_is_before_the_flat_part() -> None:
    found = knee(saturating(1000.0, 10.0), None)
    assert found is not None
    assert (found.step.connections, found.rate) == (16, 1000.0)


def test_one_request_alone_may_be_the_most() -> None:
    found = knee([step(1, 1000.0), step(4, 900.0), step(8, 950.0)], None)
    assert found is not None
    assert found.step.connections == 1


def test_with_a_goal_the_knee_is_where_it_is_just_held() -> None:
    steps = [step(8, 1000.0, p99=5.0), step(16, 1800.0, p99=20.0)]
    found = knee(steps, parse_slo("p99<10ms"))
    assert found is not None
    assert found.step.connections == 8
    assert found.rate == pytest.approx(1400.0), "half way, by ratio of latencies"


def test_errors_are_no_part_of_a_way() -> None:
    found = knee([step(8, 1000.0, p99=5.0), step(16, 1800.0, p99=5.0, errors=0.5)], parse_slo("p99<10ms"))
    assert found is not None
    assert found.rate == 1000.0


def test_a_throughput_that_has_fallen_when_the_goal_is_missed_counts_for_nothing() -> None:
    found = knee([step(8, 1000.0, p99=5.0), step(16, 700.0, p99=50.0)], parse_slo("p99<10ms"))
    assert found is not None
    assert found.rate == 1000.0


def test_where_nothing_holds_there_is_no_knee() -> None:
    assert knee([step(1, 10.0, p99=100.0)], parse_slo("p99<10ms")) is None
    assert knee([], None) is None


def test_a_curve_far_below_the_best_is_hopeless() -> None:
    best = saturating(1000.0, 10.0)
    assert is_hopeless(saturating(500.0, 10.0)[:4], best)
    assert not is_hopeless(saturating(700.0, 10.0)[:4], best)
    assert not is_hopeless(saturating(10.0, 10.0)[:1], best), "one request alone says little"
    assert not is_hopeless(saturating(10.0, 10.0), [])


def test_a_curve_that_may_still_grow_is_not_hopeless() -> None:
    best = saturating(1000.0, 10.0)
    patient = [step(count, count * 50.0) for count in (1, 4, 8, 16, 32)]
    assert not is_hopeless(patient[:3], best), "with 16 connections it may have 800"
    slow = [step(count, count * 30.0) for count in (1, 4, 8)]
    assert is_hopeless(slow, best)
