"""The quicker one wins when that is beyond doubt, however noisy the machine is."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.optimize.race import Measured, Setting, interval, speedup, winner

ONE, ALL, MANY = Setting(1, 1), Setting(2, 1), Setting(1, 2)


def measured(seconds: float, rounds: int = 7, noise: float = 0.0, seed: int = 0) -> Measured:
    """A contender that takes so long for a row, and half of it for each row of a batch of four; each round is as noisy."""
    random = np.random.default_rng(seed)
    found = Measured()
    for _ in range(rounds):
        for batch, share in ((1, 1.0), (4, 2.0)):
            time = seconds * share * (1 + noise * random.random())
            found.add(ONE, batch, [time] * 3, 1 / time)
    return found


def test_times_are_medians_in_milliseconds() -> None:
    found = Measured()
    found.add(ONE, 4, [0.001, 0.002, 0.050], 400.0)
    (speed,) = found.speeds()
    assert (speed.threads, speed.callers, speed.batch) == (1, 1, 4)
    assert (speed.p50_ms, speed.low_ms, speed.high_ms, speed.rows_per_s) == (2.0, 2.0, 2.0, 1600.0)


def test_the_figures_of_one_row_and_of_the_best_batch_are_those_of_the_best_settings() -> None:
    found = Measured()
    for _ in range(3):
        found.add(ONE, 1, [0.004], 250.0)
        found.add(ALL, 1, [0.002], 500.0)
        found.add(MANY, 1, [0.001], 900.0)  # several callers: not the time of a row alone
        found.add(ALL, 16, [0.010], 100.0)
        found.add(MANY, 16, [0.012], 160.0)
    assert found.latencies() == [2.0] * 3
    assert found.rates() == [2560.0] * 3
    assert found.best_setting() == MANY


def test_the_speedup_is_the_geometric_mean_of_latency_and_throughput() -> None:
    reference, quick = Measured(), Measured()
    for _ in range(5):
        reference.add(ONE, 1, [0.008], 125.0)
        quick.add(ONE, 1, [0.002], 125.0 * 9)
    assert speedup(quick, reference).value == pytest.approx(6)
    assert speedup(reference, reference) == pytest.approx((1, 1, 1))


def test_a_machine_that_is_slow_for_a_while_is_slow_for_all() -> None:
    """Ratios are taken within a round."""
    quick, slow = Measured(), Measured()
    for load in (1, 1, 10, 1, 3, 1, 7):
        for one, time in ((quick, 0.002), (slow, 0.004)):
            one.add(ONE, 1, [time * load], 1 / (time * load))
    assert speedup(quick, slow) == pytest.approx((2, 2, 2))


def test_an_interval_holds_the_median_and_is_the_same_again() -> None:
    values = [3.0, 1.0, 2.0, 10.0, 2.5]
    low, high = interval(values)
    assert low <= 2.5 <= high
    assert (low, high) == interval(values)
    assert interval([4.0]) == (4.0, 4.0)
    assert interval([4.0, 4.0, 4.0]) == (4.0, 4.0)


def test_a_wider_spread_has_a_wider_interval() -> None:
    narrow, wide = interval([1.0, 1.01, 0.99, 1.0, 1.02]), interval([1.0, 1.5, 0.5, 1.2, 0.8])
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def steady(*factors: float) -> Measured:
    """A contender that takes 1 ms, times the factor of each round."""
    found = Measured()
    for factor in factors:
        for batch, share in ((1, 1.0), (4, 2.0)):
            time = 0.001 * share * factor
            found.add(ONE, batch, [time] * 3, 1 / time)
    return found


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({}, "tensorflow"),
        ({"a": steady(2, 2, 2)}, "tensorflow"),
        ({"a": steady(0.99, 0.99, 0.99)}, "tensorflow"),
        ({"a": steady(0.3, 0.4, 1.5)}, "tensorflow"),
        ({"a": steady(0.5, 0.4, 0.3)}, "a"),
        ({"a": steady(0.5, 0.5, 0.5), "b": steady(0.3, 0.3, 0.3)}, "b"),
        ({"a": steady(0.3, 0.3, 0.3), "b": steady(0.5, 0.5, 0.5)}, "a"),
        ({"a": steady(0.3, 0.3, 0.3), "b": steady(0.297, 0.297, 0.297)}, "a"),
        ({"a": steady(0.5, 0.5, 0.5), "b": steady(0.3, 0.6, 0.3)}, "a"),
        ({"a": steady(0.5, 0.9, 0.4), "b": steady(0.4, 0.7, 0.3)}, "b"),
    ],
    ids=[
        *("alone", "slower", "unnoticed", "in doubt", "quicker", "second", "first", "not told apart", "second in doubt"),
        "noise that both had",
    ],
)
def test_only_what_is_quicker_beyond_doubt_takes_another_s_place(others: dict[str, Measured], expected: str) -> None:
    assert winner({"tensorflow": steady(1, 1, 1), **others}, "tensorflow") == expected


def test_noise_alone_makes_no_winner() -> None:
    """The same contender twice, on a machine whose calls take up to half as long again, over many races."""
    won = 0
    for seed in range(100):
        one, two = measured(0.002, noise=0.5, seed=2 * seed), measured(0.002, noise=0.5, seed=2 * seed + 1)
        won += winner({"one": one, "two": two}, "one") == "two"
    assert won <= 10


def test_a_real_difference_is_found_in_noise() -> None:
    for seed in range(20):
        slow, quick = measured(0.003, noise=0.3, seed=2 * seed), measured(0.0015, noise=0.3, seed=2 * seed + 1)
        assert winner({"slow": slow, "quick": quick}, "slow") == "quick"
