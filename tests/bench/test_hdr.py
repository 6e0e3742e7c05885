"""The distribution reads as HdrHistogram's own."""

from __future__ import annotations

import re

from penstock.bench.hdr import hgrm

LINE = re.compile(r" *(\d+\.\d{3}) (\d\.\d{12}) +(\d+)(?: +(\d+\.\d\d))?")


def read(text: str) -> list[tuple[float, float, int]]:
    lines = [line for line in text.splitlines()[2:] if not line.startswith("#")]
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    return [(float(one[1]), float(one[2]), int(one[3])) for one in found if one]


def test_percentiles_grow_from_the_lowest_to_the_highest() -> None:
    lines = read(hgrm([(float(value), 10) for value in range(1, 1001)]))
    assert lines[0] == (1.0, 0.0, 10)
    assert lines[-1] == (1000.0, 1.0, 10_000)
    assert next(value for value, share, _ in lines if share >= 0.5) == 500.0
    assert all(value >= share * 1000 for value, share, _ in lines)
    shares = [share for _, share, _ in lines]
    assert shares == sorted(shares)
    assert max(share for share in shares if share < 1) > 0.9998


def test_what_is_behind_the_lines_is_right() -> None:
    text = hgrm([(1.0, 1), (3.0, 1)])
    assert "#[Mean    =        2.000, StdDeviation   =        1.000]" in text
    assert "#[Max     =        3.000, Total count    =            2]" in text


def test_nothing_has_no_lines() -> None:
    assert read(hgrm([])) == []
