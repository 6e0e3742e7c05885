"""Processes and threads of a version follow what its rows take, and the cores that there are for it."""

from __future__ import annotations

import pytest

from penstock.process.spreading import spread, spread_script


@pytest.mark.parametrize(
    ("cores", "found"),
    [(0, None), (1, None), (2, (2, 1)), (4, (2, 2)), (6, (2, 3)), (8, (4, 2)), (16, (4, 4)), (32, (8, 4)), (64, (8, 8))],
)
def test_a_slow_model_shares_the_cores(cores: int, found: tuple[int, int] | None) -> None:
    assert spread(0.010, cores) == found


def test_a_quick_model_stays_as_it_is() -> None:
    assert spread(0.0005, 8) is None
    assert spread(0.0, 8) is None, "what is not known is not slow"


@pytest.mark.parametrize(("cores", "processes"), [(0, 1), (1, 1), (2, 2), (4, 2), (8, 4), (64, 32)])
def test_a_busy_script_gets_half_of_the_cores(cores: int, processes: int) -> None:
    assert spread_script(cores) == processes
