"""The quicker variant runs while deadlines are at risk, and no longer than that."""

from __future__ import annotations

import pytest

from penstock.serving.latency_table import LatencyTable
from penstock.serving.variant_switch import Due, VariantSwitch

MS = 1_000_000
#: 10 ms a row, up to four rows in a batch.
TABLE = {1: 0.010, 2: 0.020, 4: 0.030, 8: 0.060}


def switch() -> VariantSwitch:
    return VariantSwitch(LatencyTable(128, TABLE))


@pytest.mark.parametrize(
    ("waiting", "is_quick"),
    [
        ([], False),
        ([Due(1, 100 * MS)], False),
        ([Due(1, 11 * MS)], True),
        ([Due(1, 1000 * MS)] * 4, False),
        ([Due(1, 100 * MS)] * 12, True),
        ([Due(1, 1000 * MS)] * 12, False),
        ([Due(4, 1000 * MS), Due(1, 65 * MS)], True),
        ([Due(1, -5 * MS)], True),
    ],
    ids=["idle", "early", "late", "a batch", "a queue", "a queue with time", "the last one is short of time", "over"],
)
def test_the_quicker_one_runs_when_time_is_short(waiting: list[Due], is_quick: bool) -> None:
    assert switch().choose(waiting, 0) is is_quick


def test_it_goes_back_when_there_has_been_time_for_a_while() -> None:
    one = switch()
    assert one.choose([Due(1, 11 * MS)], 0)
    choices = [one.choose([Due(1, 1000 * MS)], 0) for _ in range(20)]
    assert choices == [True] * 15 + [False] * 5


def test_a_load_at_the_edge_does_not_make_it_change_with_every_batch() -> None:
    one = switch()
    edge = [[Due(1, 11 * MS)], [Due(1, 1000 * MS)], [Due(1, 15 * MS)]] * 20
    assert all(one.choose(waiting, 0) for waiting in edge)


def test_without_a_table_nothing_is_at_risk() -> None:
    assert VariantSwitch(LatencyTable(128, {})).choose([Due(1, 1)], 0) is False
