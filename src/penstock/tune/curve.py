"""What a setting does under load: closed loops with more and more connections, and the knee of the curve.

Pure: what was measured in, decisions out. The knee is the highest throughput whose latency is not yet exploding: with a goal
for latency, where the goal is just held; without, the step after which twice the connections bring hardly more answers, and so
twice the latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import NamedTuple

import msgspec

from penstock.bench.result import Latency, Result
from penstock.bench.slo import Slo

#: Connections of the first step, which shows what one request alone takes, and of the second; from there on twice as many.
_ALONE, _FIRST = 1, 4
_MOST_CONNECTIONS = 256
#: Twice the connections that bring less than this are beyond the knee.
_GAIN = 1.1
#: A curve that has not grown by this in two steps is not followed further.
_FLAT = 1.03
#: Against the most that the best one has given, from this many connections on: below this share there is no hope.
_HOPELESS, _HOPELESS_FROM = 0.6, 4


class Step(msgspec.Struct, frozen=True):
    """So many connections: answers per second, and what they cost. CPU is that of all the server's processes."""

    connections: int
    rate: float
    latency: Latency
    error_share: float
    cpu_us: float
    cores: float
    memory_bytes: int
    client_share: float
    client_limit: str


class Curve(msgspec.Struct, frozen=True):
    """The steps of a setting in order of connections. `ended` says why there are no more: empty for the usual end."""

    steps: list[Step]
    ended: str = ""


class Knee(NamedTuple):
    """The step, and the throughput there; between two steps where a goal was held at the one and missed at the other."""

    step: Step
    rate: float


def step_of(connections: int, result: Result) -> Step:
    """Raises ValueError for a result without an answer."""
    if result.latency is None:
        raise ValueError("nothing was answered")
    server = result.server
    return Step(
        connections,
        result.rate,
        result.latency,
        result.error_share,
        server.cpu_us_per_request if server else 0.0,
        server.cores if server else 0.0,
        server.memory_bytes if server else 0,
        result.client.core_share,
        result.client.limit,
    )


def next_connections(steps: Sequence[Step], slo: Slo | None) -> int | None:
    """The connections of the next step, None where the curve is complete."""
    if not steps:
        return _ALONE
    last = steps[-1]
    following = _FIRST if last.connections == _ALONE else last.connections * 2
    if following > _MOST_CONNECTIONS or (slo is not None and slo.miss(last)):
        return None
    if len(steps) >= 4 and last.rate < _FLAT * max(step.rate for step in steps[:-2]):
        return None
    return following


def is_hopeless(steps: Sequence[Step], best: Sequence[Step]) -> bool:
    """Whether a curve stays so far below that of the best setting that the rest of it need not be seen.

    It may still grow with its connections, up to as many as the best one had where it gave most.
    """
    last = steps[-1]
    top = max(best, key=lambda step: step.rate, default=None)
    if top is None or last.connections < _HOPELESS_FROM:
        return False
    return last.rate * max(1.0, top.connections / last.connections) < _HOPELESS * top.rate


def knee(steps: Sequence[Step], slo: Slo | None) -> Knee | None:
    """None where not even the first step is below it."""
    if slo is not None:
        return _knee_of_goal(steps, slo)
    best: Step | None = None
    for step in steps:
        if best is None or step.rate >= best.rate * (_GAIN if best.connections > _ALONE else 1.0):
            best = step
    return Knee(best, best.rate) if best else None


def _knee_of_goal(steps: Sequence[Step], slo: Slo) -> Knee | None:
    held: list[Step] = []
    missed: Step | None = None
    for step in steps:
        if slo.miss(step):
            missed = step
            break
        held.append(step)
    if not held:
        return None
    best = max(held, key=lambda step: step.rate)
    if missed is None or missed.rate <= best.rate or best is not held[-1]:
        return Knee(best, best.rate)
    return Knee(best, best.rate + (missed.rate - best.rate) * _part_held(best, missed, slo))


def _part_held(held: Step, missed: Step, slo: Slo) -> float:
    """How far between two steps the goal is held, as if latency grew evenly by ratio; of several goals, the first that fails."""
    parts = []
    for goal in slo.goals:
        low, high = goal.value(held), goal.value(missed)
        if high > goal.limit:
            parts.append(0.0 if low <= 0 or goal.metric == "errors" else log(goal.limit / low) / log(high / low))
    return min(parts, default=0.0)
