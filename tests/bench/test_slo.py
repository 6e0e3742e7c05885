"""Goals are read as people write them, and the search finds the rate at which a server stops to hold them."""

from __future__ import annotations

import pytest

from penstock.bench.result import Client, Latency, Load, Result
from penstock.bench.slo import PRECISION, Goal, Trial, highest, next_rate, parse_slo
from penstock.errors import UsageError


def result(p99: float, errors: int = 0) -> Result:
    percentiles = {"50": p99 / 2, "75": p99 / 2, "90": p99, "95": p99, "99": p99, "99.9": p99, "99.99": p99}
    latency = Latency(p99 / 2, 0.1, p99 * 2, percentiles)
    load = Load(1, 1, 1, 0, "", "", [], 1)
    counted = {"HTTP 503": errors} if errors else {}
    return Result("", "", "", load, 1000, 1, 0, counted, "", 0, latency, [], {}, [], Client(0, 0), None)


@pytest.mark.parametrize(
    ("text", "goals"),
    [
        ("p99<50ms", [Goal("p99", 50), Goal("errors", 0.001)]),
        ("p50 < 800us, p99.9<=0.2s", [Goal("p50", 0.8), Goal("p99.9", 200), Goal("errors", 0.001)]),
        ("mean<5ms,errors<1%", [Goal("mean", 5), Goal("errors", 0.01)]),
    ],
)
def test_goals(text: str, goals: list[Goal]) -> None:
    assert [(one.metric, pytest.approx(one.limit)) for one in parse_slo(text).goals] == [tuple(goal) for goal in goals]


@pytest.mark.parametrize("text", ["", "p99", "p99<50", "p42<5ms", "p99>5ms", "fast", "errors<1"])
def test_what_is_no_goal_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--slo"):
        parse_slo(text)


def test_a_miss_says_what_was_found() -> None:
    slo = parse_slo("p99<50ms")
    assert slo.miss(result(49)) == ""
    assert slo.miss(result(51.5)) == "p99 51.5 ms"
    assert slo.miss(result(10, errors=100)) == "errors 9.09%"


@pytest.mark.parametrize("capacity", [3.0, 480.0, 10_000.0, 39_000.0])
@pytest.mark.parametrize("first", [5.0, 500.0, 20_000.0])
def test_the_search_ends_near_the_capacity(capacity: float, first: float) -> None:
    trials: list[Trial] = []
    while (rate := next_rate(trials, first)) is not None:
        trials.append(Trial(rate, rate <= capacity))
    assert capacity / (1 + PRECISION) <= highest(trials) <= capacity
    assert sum(trial.rate == highest(trials) for trial in trials) == 2, "seen to hold twice"


def test_a_rate_that_fails_when_it_is_tried_again_has_failed() -> None:
    trials = [Trial(100, True), Trial(104, False)]
    assert next_rate(trials, 100) == 100
    trials.append(Trial(100, False))
    assert next_rate(trials, 100) == 50


def test_where_nothing_holds_the_search_ends() -> None:
    trials: list[Trial] = []
    while (rate := next_rate(trials, 100)) is not None:
        trials.append(Trial(rate, False))
    assert highest(trials) == 0
    assert len(trials) < 12
