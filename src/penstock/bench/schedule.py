"""When requests are due. In an open loop the schedule knows nothing of the server: one that stalls cannot hide it.

A profile is phases of a rate, or of a rate that changes evenly. Arrivals are those of a process with the rate 1, evenly or as
Poisson has them, on a clock that runs as fast as the rate is: so every profile is exact, ramps too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from penstock.errors import UsageError

_BLOCK = 4096
_NUMBER = r"(\d+(?:\.\d+)?)"
_PHASE = re.compile(rf"{_NUMBER}(?:\.\.{_NUMBER})?(?::{_NUMBER}s?)?")


class Phase(NamedTuple):
    """A stretch of a profile: from one rate to another, in requests per second."""

    begin_rate: float
    end_rate: float
    seconds: float

    @property
    def requests(self) -> float:
        """How many are due in it, on average."""
        return (self.begin_rate + self.end_rate) / 2 * self.seconds

    def seconds_until(self, requests: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """When so many have been due, from the phase's begin."""
        slope = (self.end_rate - self.begin_rate) / self.seconds
        if not slope:
            return requests / self.begin_rate
        under = np.maximum(self.begin_rate**2 + 2 * slope * requests, 0.0)
        return (np.sqrt(under) - self.begin_rate) / slope


def parse_profile(text: str, seconds: float) -> tuple[Phase, ...]:
    """`500`, a ramp `100..2000`, steps `100,200,400`; `:SECONDS` behind one says how long it lasts, else it is `seconds`.

    A spike is three steps: `200:10,3000:2,200:10`. Raises UsageError.
    """
    phases = []
    for part in text.replace(" ", "").split(","):
        match = _PHASE.fullmatch(part)
        if match is None:
            raise UsageError(f"--rate {text}: {part or 'nothing'} is no rate; expected 500, 100..2000 or 100:10,500:5")
        begin = float(match[1])
        phase = Phase(begin, float(match[2]) if match[2] else begin, float(match[3]) if match[3] else seconds)
        if not phase.requests:
            raise UsageError(f"--rate {text}: {part} asks for nothing")
        phases.append(phase)
    return tuple(phases)


def arrivals(phases: Sequence[Phase], *, is_poisson: bool, seed: int = 0) -> Iterator[int]:
    """The nanoseconds after the begin at which requests are due, in order."""
    random = np.random.default_rng(seed)
    drawn = 0.0
    rest: npt.NDArray[np.float64] = np.empty(0)
    before = begin_s = 0.0
    for phase in phases:
        end = before + phase.requests
        while True:
            if not rest.size:
                rest = drawn + np.cumsum(random.exponential(size=_BLOCK) if is_poisson else np.ones(_BLOCK))
                drawn = float(rest[-1])
            count = int(np.searchsorted(rest, end, side="right"))
            if count:
                due_s = begin_s + phase.seconds_until(rest[:count] - before)
                yield from (due_s * 1e9).astype(np.int64).tolist()
                rest = rest[count:]
            if rest.size:
                break
        before, begin_s = end, begin_s + phase.seconds
