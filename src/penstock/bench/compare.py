"""Whether two runs differ for real: 95 % intervals of their ratio, drawn from the seconds that each run had.

A second is what is drawn again and again (a bootstrap): requests of the same moment are slow together, so single requests would
claim more than is known. What changed between the runs besides the server, the intervals cannot know: repeat both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from penstock.bench.result import Result, Second
from penstock.errors import UsageError

_MIN_SECONDS = 5
_DRAWS = 4000


class Difference(NamedTuple):
    """A figure of two runs; `ratio` is the second's to the first's, `low` and `high` bound it with 95 %."""

    what: str
    unit: str
    first: float
    second: float
    ratio: float
    low: float
    high: float
    more_is_better: bool

    @property
    def is_real(self) -> bool:
        return self.low > 1 or self.high < 1

    @property
    def verdict(self) -> str:
        if not self.is_real:
            return "no difference that these runs could show"
        return "better" if (self.ratio > 1) == self.more_is_better else "worse"


def compare(first: Result, second: Result) -> list[Difference]:
    """Throughput, median and 99th percentile. Raises UsageError where a run is too short to say anything."""
    for result in (first, second):
        if len(result.seconds) < _MIN_SECONDS:
            raise UsageError(
                f"{result.url} of {result.date}: {len(result.seconds)} seconds; {_MIN_SECONDS} are the least to compare"
            )
    figures: Sequence[tuple[str, str, Callable[[Second], float], bool]] = (
        ("throughput", "requests/s", lambda one: float(one.requests), True),
        ("p50", "ms", lambda one: one.p50, False),
        ("p99", "ms", lambda one: one.p99, False),
    )
    return [_difference(what, unit, first, second, of, more_is_better) for what, unit, of, more_is_better in figures]


def _difference(
    what: str, unit: str, first: Result, second: Result, of: Callable[[Second], float], more_is_better: bool
) -> Difference:
    random = np.random.default_rng(0)
    values = [np.array([of(one) for one in result.seconds if one.requests or what == "throughput"]) for result in (first, second)]
    means = [_draws(value, random) for value in values]
    middle = [float(value.mean()) if value.size else 0.0 for value in values]
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.nan_to_num(np.percentile(means[1] / means[0], (2.5, 97.5)), nan=0.0)
    ratio = middle[1] / middle[0] if middle[0] else 0.0
    return Difference(what, unit, middle[0], middle[1], ratio, float(low), float(high), more_is_better)


def _draws(values: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Means of the values, drawn with replacement."""
    if not values.size:
        return np.zeros(_DRAWS)
    means: npt.NDArray[np.float64] = values[random.integers(0, values.size, (_DRAWS, values.size))].mean(axis=1)
    return means
