"""A goal for latency, and the search for the highest rate at which a server holds it.

The search is a function of what was tried: it can be tested as a table, and the clock and the server are the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple, Protocol

from penstock.bench.result import PERCENTILES, Latency
from penstock.errors import UsageError

_GOAL = re.compile(r"(mean|max|p\d+(?:\.\d+)?)<=?(\d+(?:\.\d+)?)(us|µs|ms|s)|(errors)<=?(\d+(?:\.\d+)?)%")
_SCALE_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
#: Errors that a goal which does not speak of them allows.
_ERROR_SHARE = 0.001
#: How near the highest rate that held and the lowest that did not have to be.
PRECISION = 0.05
_STEP = 2.0
_LOWEST_RATE = 0.5
_MAX_TRIALS = 30


class Answered(Protocol):
    """What a goal is held against: a result, or a part of one."""

    @property
    def latency(self) -> Latency | None: ...

    @property
    def error_share(self) -> float: ...


class Goal(NamedTuple):
    """`metric` is mean, max, p50 … or errors; `limit` is milliseconds, or a share of the requests."""

    metric: str
    limit: float

    def value(self, result: Answered) -> float:
        if self.metric == "errors":
            return result.error_share
        latency = result.latency
        if latency is None:
            return float("inf")
        if self.metric in ("mean", "max"):
            return latency.mean if self.metric == "mean" else latency.high
        return latency.percentiles[self.metric[1:]]


class Slo(NamedTuple):
    """What has to hold: all of `goals`."""

    text: str
    goals: tuple[Goal, ...]

    def miss(self, result: Answered) -> str:
        """What does not hold, empty where all does."""
        for goal in self.goals:
            value = goal.value(result)
            if value > goal.limit:
                found = f"{value:.2%}" if goal.metric == "errors" else f"{value:.3g} ms"
                return f"{goal.metric} {found}"
        return ""


def parse_slo(text: str) -> Slo:
    """`p99<50ms`, or several with commas between them; `errors<1%` allows more errors than one in a thousand.

    Raises UsageError.
    """
    goals = []
    for part in text.replace(" ", "").split(","):
        match = _GOAL.fullmatch(part)
        if match is None:
            raise UsageError(f"--slo {text}: {part or 'nothing'} is no goal; expected p99<50ms, mean<5ms or errors<1%")
        if match[4]:
            goals.append(Goal("errors", float(match[5]) / 100))
            continue
        metric = match[1]
        if metric[0] == "p" and f"{float(metric[1:]):g}" not in {f"{number:g}" for number in PERCENTILES}:
            raise UsageError(f"--slo {text}: {metric} is not among {', '.join(f'p{number:g}' for number in PERCENTILES)}")
        goals.append(Goal(f"p{float(metric[1:]):g}" if metric[0] == "p" else metric, float(match[2]) * _SCALE_MS[match[3]]))
    if all(goal.metric != "errors" for goal in goals):
        goals.append(Goal("errors", _ERROR_SHARE))
    return Slo(text, tuple(goals))


class Trial(NamedTuple):
    """A rate that was tried, and whether the goal held."""

    rate: float
    holds: bool


def next_rate(trials: Sequence[Trial], first: float) -> float | None:
    """The rate to try next, None when the highest that holds is known within PRECISION.

    That one has been seen to hold twice, as machines are noisy; a rate that failed once has failed.
    """
    if len(trials) >= _MAX_TRIALS:
        return None
    if not trials:
        return first
    failed = min((one.rate for one in trials if not one.holds), default=float("inf"))
    held = [one.rate for one in trials if one.holds and one.rate < failed]
    best = max(held, default=0.0)
    if not held:
        return failed / 2 if failed / 2 >= _LOWEST_RATE else None
    if failed == float("inf"):
        return best * _STEP
    if failed / best > 1 + PRECISION:
        return sqrt(failed * best)
    return best if held.count(best) < 2 else None


def highest(trials: Sequence[Trial]) -> float:
    """The highest rate that held, below any that did not; 0 where none did."""
    failed = min((one.rate for one in trials if not one.holds), default=float("inf"))
    return max((one.rate for one in trials if one.holds and one.rate < failed), default=0.0)
