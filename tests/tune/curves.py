"""Curves as they would be measured, for tests of what is decided by them."""

from __future__ import annotations

from penstock.bench.result import Latency
from penstock.tune.curve import Step


def step(connections: int, rate: float, p99: float = 0.0, errors: float = 0.0, cpu_us: float = 100.0) -> Step:
    """`p99` in ms; without one, what Little's law makes of the rate."""
    p99 = p99 or 2e3 * connections / rate
    percentiles = {"50": p99 / 2, "75": p99 / 2, "90": p99, "95": p99, "99": p99, "99.9": p99, "99.99": p99}
    latency = Latency(p99 / 2, 0.1, p99 * 2, percentiles)
    return Step(connections, rate, latency, errors, cpu_us, 1.0, 1 << 20, 0.1, "")


def saturating(most: float, alone_ms: float, connections: tuple[int, ...] = (1, 4, 8, 16, 32, 64)) -> list[Step]:
    """A server that gives no more than `most` answers a second."""
    return [step(count, min(most, count * 1e3 / alone_ms)) for count in connections]
