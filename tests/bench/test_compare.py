"""A difference is real when it is larger than what the seconds of a run differ by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.bench.compare import compare
from penstock.bench.result import Client, Load, Result, Second
from penstock.errors import UsageError


def run(rate: float, p50: float, seed: int, seconds: int = 20, spread: float = 0.05) -> Result:
    random = np.random.default_rng(seed)
    noise = random.normal(1, spread, (seconds, 3))
    found = [Second(int(rate * one), p50 * other, 3 * p50 * third) for one, other, third in noise]
    return Result(
        "url", "date", "1", Load(1, 1, seconds, 0, "", "", [], 1), 1, rate, 0, {}, "", 0, None, [], {}, found, Client(0, 0), None
    )


def test_twice_the_throughput_is_real() -> None:
    throughput, p50, p99 = compare(run(1000, 4, 1), run(2000, 2, 2))
    assert (throughput.verdict, p50.verdict, p99.verdict) == ("better", "better", "better")
    assert throughput.low < throughput.ratio < throughput.high
    assert throughput.ratio == pytest.approx(2, rel=0.1)


def test_a_slower_server_is_worse() -> None:
    assert [one.verdict for one in compare(run(1000, 2, 1), run(800, 3, 2))] == ["worse", "worse", "worse"]


def test_noise_is_rarely_taken_for_a_difference() -> None:
    wrong = sum(one.is_real for seed in range(40) for one in compare(run(1000, 4, seed), run(1000, 4, seed + 1000)))
    assert wrong <= 18, "of 120 intervals of 95 %, about 6 miss"


def test_a_short_run_says_nothing() -> None:
    with pytest.raises(UsageError, match="3 seconds"):
        compare(run(1000, 4, 1), run(1000, 4, 1, seconds=3))
