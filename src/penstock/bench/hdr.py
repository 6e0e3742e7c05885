"""Percentiles as HdrHistogram prints them (`.hgrm`), which its plotter and others' tools read.

A line for each step towards 100 %: the value in milliseconds, its percentile, how many answers took no longer, and 1 / (1 -
percentile). Steps halve with the distance, five to each half, as in HdrHistogram's own tools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import floor, log2

_TICKS_PER_HALF = 5
_HEADER = f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n"


def hgrm(histogram: Sequence[tuple[float, int]]) -> str:
    """The distribution of a result's histogram: latencies in milliseconds, ascending, and how often each came."""
    total = sum(count for _, count in histogram)
    if not total:
        return _HEADER
    lines = [_HEADER]
    mean = sum(value * count for value, count in histogram) / total
    deviation = (sum((value - mean) ** 2 * count for value, count in histogram) / total) ** 0.5
    for share in _shares(total):
        value, within = _at(histogram, share, total)
        rest = f" {1 / (1 - share):14.2f}" if share < 1 else ""
        lines.append(f"{value:12.3f} {share:2.12f} {within:10d}{rest}\n")
    lines += [
        f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]\n",
        f"#[Max     = {histogram[-1][0]:12.3f}, Total count    = {total:12d}]\n",
        f"#[Buckets = {len(histogram):12d}, SubBuckets     = {1:12d}]\n",
    ]
    return "".join(lines)


def _shares(total: int) -> Iterator[float]:
    """From 0 to 1, in steps that become smaller, until a step is less than one answer."""
    share = 0.0
    while share < 1 and (1 - share) * total >= 1:
        yield share
        halves = floor(log2(1 / (1 - share))) + 1
        share += 1 / (_TICKS_PER_HALF * 2**halves)
    yield 1.0


def _at(histogram: Sequence[tuple[float, int]], share: float, total: int) -> tuple[float, int]:
    """The latency that this share took no longer than, and how many that are."""
    within = 0
    for value, count in histogram:
        within += count
        if within >= share * total and within:
            return value, within
    return histogram[-1][0], total
