"""Back-off as a table."""

from __future__ import annotations

import pytest

from penstock.process.restart import restart_delay


@pytest.mark.parametrize(
    ("ends", "now", "delay"),
    [
        ([100.0], 100.0, 0.0),
        ([99.0, 100.0], 100.0, 0.1),
        ([98.0, 99.0, 100.0], 100.0, 0.25),
        ([0.0, 1.0, 2.0, 100.0], 100.0, 0.0),
        ([float(second) for second in range(41, 101)], 100.0, 10.0),
    ],
    ids=["the first time: at once", "again: a little", "and again: more", "old ends are forgotten", "bounded"],
)
def test_the_delay_grows_with_recent_ends(ends: list[float], now: float, delay: float) -> None:
    assert restart_delay(ends, now) == delay
