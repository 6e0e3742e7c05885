"""Which variant is quicker, on a machine that is not quiet: all in turn, round after round, and only what is beyond doubt counts.

Pure: times in, figures out. A round measures each contender once, one after the other, so that a machine which is slow for a
while is so for all. Ratios are taken within a round; their median and its interval (bootstrap over the rounds) decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from typing import NamedTuple

import numpy as np

from penstock.models.plan import Speed

_RESAMPLES = 2000
#: A variant must beat the one in front of it by this much before it takes its place: below it, nobody notices.
_MARGIN = 1.02


class Setting(NamedTuple):
    """`threads` within an operation, `callers` side by side."""

    threads: int
    callers: int


@dataclass(slots=True)
class Measured:
    """A contender's rounds: for each setting and batch, its median time of a call in ms, and rows per second."""

    p50_ms: dict[tuple[Setting, int], list[float]] = field(default_factory=dict)
    rows_per_s: dict[tuple[Setting, int], list[float]] = field(default_factory=dict)

    def add(self, setting: Setting, batch: int, times_s: Sequence[float], calls_per_s: float) -> None:
        self.p50_ms.setdefault((setting, batch), []).append(float(np.median(times_s)) * 1e3)
        self.rows_per_s.setdefault((setting, batch), []).append(calls_per_s * batch)

    def speeds(self) -> list[Speed]:
        """Over the rounds: medians and their intervals."""
        found = []
        for (setting, batch), times in self.p50_ms.items():
            low, high = interval(times)
            rate = float(np.median(self.rows_per_s[setting, batch]))
            found.append(Speed(setting.threads, setting.callers, batch, float(np.median(times)), low, high, rate))
        return found

    def latencies(self) -> list[float]:
        """Of each round, the time of one row alone with the setting that is quickest at it."""
        alone = {key: times for key, times in self.p50_ms.items() if key[1] == 1 and key[0].callers == 1}
        return min(alone.values(), key=lambda times: float(np.median(times)))

    def rates(self) -> list[float]:
        """Of each round, rows per second with the setting and the batch that give most."""
        return max(self.rows_per_s.values(), key=lambda rates: float(np.median(rates)))

    def best_setting(self) -> Setting:
        """The setting that gives most rows per second."""
        return max(self.rows_per_s, key=lambda key: float(np.median(self.rows_per_s[key])))[0]


class Ratio(NamedTuple):
    """How many times as quick, and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def speedup(measured: Measured, reference: Measured) -> Ratio:
    """The geometric mean of how much quicker one row is alone, and how many more rows the best batch gives."""
    pairs = zip(measured.latencies(), reference.latencies(), measured.rates(), reference.rates(), strict=True)
    logs = [(log(theirs / ours) + log(rate / their_rate)) / 2 for ours, theirs, rate, their_rate in pairs]
    low, high = interval(logs)
    return Ratio(exp(float(np.median(logs))), exp(low), exp(high))


def winner(measured: Mapping[str, Measured], first: str) -> str:
    """The quickest: `first` unless another is quicker beyond doubt; of two that are not told apart, the one named before."""
    best = first
    for name, one in measured.items():
        if name != best and speedup(one, measured[best]).low > _MARGIN:
            best = name
    return best


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median, by the bootstrap; the same for the same values."""
    if len(values) < 2:
        return values[0], values[0]
    random = np.random.default_rng(0)
    medians = np.median(random.choice(np.asarray(values), (_RESAMPLES, len(values))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)
