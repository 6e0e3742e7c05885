"""What is sought, as one number of a curve: more is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from penstock.bench.slo import Slo
from penstock.errors import UsageError
from penstock.tune.curve import Step, knee

_HOUR_S = 3600.0
_MILLION = 1e6


class Objective(NamedTuple):
    """`value` of a curve's steps under a goal for latency (None: the knee decides); 0 where nothing holds it."""

    name: str
    meaning: str
    value: Callable[[Sequence[Step], Slo | None], float]


def _throughput(steps: Sequence[Step], slo: Slo | None) -> float:
    found = knee(steps, slo)
    return found.rate if found else 0.0


def _latency(steps: Sequence[Step], slo: Slo | None) -> float:
    """Of one request alone: the more of them fit into a second, the quicker it is."""
    if not steps or (slo is not None and slo.miss(steps[0])):
        return 0.0
    return 1e3 / steps[0].latency.p50


def _cost(steps: Sequence[Step], slo: Slo | None) -> float:
    found = knee(steps, slo)
    return 1e6 / found.step.cpu_us if found and found.step.cpu_us else 0.0


OBJECTIVES = {
    one.name: one
    for one in (
        Objective("throughput", "most answers per second at the knee", _throughput),
        Objective("latency", "the shortest median of a request that is alone", _latency),
        Objective("cost", "the least CPU time for an answer at the knee", _cost),
    )
}


def objective(name: str) -> Objective:
    """Raises UsageError."""
    if name not in OBJECTIVES:
        raise UsageError(f"--objective {name}: expected {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def per_million(price_per_hour: float, rate: float) -> float:
    """What a million answers cost on a machine of this price that gives so many per second."""
    return price_per_hour / _HOUR_S / rate * _MILLION if rate else float("inf")
