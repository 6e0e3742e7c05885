"""The cap of a batch follows what batches take."""

from __future__ import annotations

import pytest

from penstock.serving.latency_table import LatencyTable


def served(table: LatencyTable, runs: int, **_: object) -> None:
    """Runs of 1 to 32 rows: up to four rows each one is cheaper, beyond that it costs the same."""
    for number in range(runs):
        rows = 1 << number % 6
        table.note(rows, 0.010 + rows * 0.010 if rows <= 4 else rows * 0.0125)


def test_nothing_is_capped_before_anything_is_known() -> None:
    assert LatencyTable(128, {}).cap == 128


def test_batches_grow_while_rows_become_cheaper() -> None:
    table = LatencyTable(128, {1: 0.001, 16: 0.002, 64: 0.004})
    assert table.cap == 128


def test_a_plan_s_table_caps_from_the_start() -> None:
    assert LatencyTable(128, {1: 0.010, 4: 0.028, 16: 0.113, 64: 0.450}).cap == 4


def test_the_cap_is_found_while_serving() -> None:
    table = LatencyTable(128, {})
    served(table, 640)
    assert table.cap == 4


def test_the_cap_is_never_above_the_option() -> None:
    assert LatencyTable(8, {1: 0.010, 16: 0.020, 64: 0.2}).cap == 8


def test_a_capped_size_is_tried_again() -> None:
    table = LatencyTable(128, {1: 0.010, 4: 0.028, 16: 0.113})
    caps = set()
    for _ in range(64 * 40):
        table.note(4, 0.028)
        caps.add(table.cap)
    assert caps == {4, 128}


def test_the_table_follows_a_machine_that_has_changed() -> None:
    table = LatencyTable(128, {1: 0.010, 4: 0.028, 16: 0.113})
    for number in range(64 * 200):
        rows = (4, 16)[number % 2]
        table.note(rows, 0.028 if rows == 4 else 0.056)
    assert table.cap == 128


def test_what_was_not_seen_is_told_by_what_was() -> None:
    table = LatencyTable(128, {})
    assert table.seconds(1) is None
    table.note(3, 0.003)
    assert table.seconds(4) == 0.004
    assert table.seconds(100) == pytest.approx(0.1)
    assert table.seconds(1) == 0.004
