"""The cap of a batch grows while there is time, and gives way when there is none."""

from __future__ import annotations

import pytest

from penstock.serving.latency_target import LatencyTarget


def settled(target: LatencyTarget, row_s: float, runs: int = 400) -> list[int]:
    """Full batches whose rows take so long each: the caps at the end."""
    caps = []
    for _ in range(runs):
        target.note(target.cap, row_s * target.cap)
        caps.append(target.cap)
    return caps[-50:]


@pytest.mark.parametrize("fitting", [1, 3, 10, 50])
def test_the_cap_stays_near_what_fits_twice_into_the_time(fitting: int) -> None:
    caps = settled(LatencyTarget(0.1, 128), 0.05 / (fitting + 0.5))
    assert max(caps) <= fitting + 1
    assert sum(caps) / len(caps) >= 0.75 * fitting


def test_the_cap_is_never_above_the_option_nor_below_one() -> None:
    assert set(settled(LatencyTarget(10.0, 16), 0.001)) == {16}
    assert set(settled(LatencyTarget(0.001, 16), 0.1)) == {1}


def test_batches_that_are_not_full_do_not_raise_it() -> None:
    target = LatencyTarget(1.0, 128)
    before = target.cap
    for _ in range(100):
        assert not target.note(1, 0.001)
    assert target.cap == before


def test_it_follows_a_model_that_has_become_slow() -> None:
    target = LatencyTarget(0.1, 128)
    settled(target, 0.001)
    assert target.cap > 30
    settled(target, 0.01)
    assert target.cap <= 6
