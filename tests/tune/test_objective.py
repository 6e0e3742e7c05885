"""What is sought, as a number: more is better, and 0 where the goal is not held."""

from __future__ import annotations

import pytest

from penstock.bench.slo import parse_slo
from penstock.errors import UsageError
from penstock.tune.objective import objective, per_million
from tests.tune.curves import saturating, step

CURVE = saturating(1000.0, 10.0)


def test_throughput_is_that_of_the_knee() -> None:
    assert objective("throughput").value(CURVE, None) == 1000.0
    assert objective("throughput").value(CURVE, parse_slo("p99<1us")) == 0.0


def test_latency_is_that_of_a_request_alone() -> None:
    quick, slow = [step(1, 100.0, p99=2.0)], [step(1, 100.0, p99=4.0), step(4, 9000.0, p99=4.0)]
    assert objective("latency").value(quick, None) == 2 * objective("latency").value(slow, None)
    assert objective("latency").value(slow, parse_slo("p99<3ms")) == 0.0


def test_cost_is_the_cpu_time_of_an_answer() -> None:
    frugal, busy = [step(4, 100.0, cpu_us=50.0)], [step(4, 900.0, cpu_us=100.0)]
    assert objective("cost").value(frugal, None) == 2 * objective("cost").value(busy, None)


def test_what_nobody_can_seek_is_refused() -> None:
    with pytest.raises(UsageError, match="--objective beauty"):
        objective("beauty")


def test_a_million_answers_cost_what_the_machine_costs_meanwhile() -> None:
    assert per_million(3.6, 1000.0) == pytest.approx(1.0)
    assert per_million(3.6, 0.0) == float("inf")
