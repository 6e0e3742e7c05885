"""Requests of an open loop are due as the profile says, whatever becomes of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from penstock.bench.schedule import Phase, arrivals, parse_profile
from penstock.errors import UsageError


def _constant(*phases: Phase) -> list[int]:
    return list(arrivals(phases, is_poisson=False))


def test_a_constant_rate_is_even() -> None:
    assert _constant(Phase(4, 4, 1)) == [250_000_000, 500_000_000, 750_000_000, 1_000_000_000]


def test_steps_follow_each_other() -> None:
    due = np.array(_constant(Phase(100, 100, 2), Phase(1000, 1000, 1), Phase(100, 100, 2))) / 1e9
    assert [int(((due > begin) & (due <= begin + 1)).sum()) for begin in range(5)] == [100, 100, 1000, 100, 100]


@pytest.mark.parametrize(("begin", "end"), [(0, 1000), (1000, 0), (200, 800)])
def test_a_ramp_changes_evenly(begin: int, end: int) -> None:
    due = np.array(_constant(Phase(begin, end, 10))) / 1e9
    assert abs(len(due) - (begin + end) * 5) <= 1
    counts = np.histogram(due, bins=10, range=(0, 10))[0]
    middles = begin + (end - begin) * (np.arange(10) + 0.5) / 10
    assert np.abs(counts - middles).max() <= 2


def test_poisson_arrivals_have_the_rate_and_are_not_even() -> None:
    due = np.fromiter(arrivals([Phase(5000, 5000, 10)], is_poisson=True, seed=3), np.int64)
    assert abs(len(due) - 50_000) < 3 * 50_000**0.5, "three standard deviations"
    gaps = np.diff(due) / 1e9
    assert 0.9 < gaps.std() / gaps.mean() < 1.1  # of an exponential distribution: one
    assert (np.diff(due) >= 0).all()


def test_the_same_seed_gives_the_same_arrivals() -> None:
    first, second, other = (
        list(itertools.islice(arrivals([Phase(100, 100, 60)], is_poisson=True, seed=seed), 500)) for seed in (1, 1, 2)
    )
    assert first == second != other


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        ("500", [(500, 500, 10)]),
        ("0.5", [(0.5, 0.5, 10)]),
        ("100..2000", [(100, 2000, 10)]),
        ("100,200,400", [(100, 100, 10), (200, 200, 10), (400, 400, 10)]),
        ("200:5, 3000:2s, 200:5", [(200, 200, 5), (3000, 3000, 2), (200, 200, 5)]),
        ("0..100:60", [(0, 100, 60)]),
    ],
)
def test_profiles(text: str, phases: list[tuple[float, float, float]]) -> None:
    assert list(parse_profile(text, 10)) == phases


@pytest.mark.parametrize("text", ["", "fast", "-5", "100,,200", "0", "1..", "100:0", "1e9"])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--rate"):
        parse_profile(text, 10)
