"""What a run of `benchmarks.tuning` measured, as data, and the bars that it must reach: one function over the results."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.results import Results
from benchmarks.works import Bar
from penstock.tune.result import TuneResult
from penstock.tune.setting import Setting

#: How the settings are called that are compared in turn.
TUNED, GRID, AUTO, POOR = "tuned", "grid", "auto", "poor"
_MINUTES = 10.0


@dataclass
class Tuned:
    """One model, at a commit. grid: what the objective made of every setting of the space. settings: those that are compared, by
    name.

    rounds: by name, the objective's value in each round. ended: when it was found, in seconds since the epoch. replayed: the
    throughput at the reported knee's connections, and the minutes that had passed since.
    """

    commit: str
    result: TuneResult
    ended: float
    grid: list[tuple[Setting, float]] = field(default_factory=list)
    settings: dict[str, Setting] = field(default_factory=dict)
    rounds: dict[str, list[float]] = field(default_factory=dict)
    replayed: list[float] = field(default_factory=list)
    replayed_after_min: float = 0.0

    def as_served(self, name: str) -> Setting | None:
        """The setting of a name, with what the server decides by itself in place of what is left to it."""
        setting = self.settings.get(name)
        if setting is None or setting.gateways:
            return setting
        return self.result.defaults

    def value(self, name: str) -> float | None:
        values = self.rounds.get(name)
        return statistics.median(values) if values else None

    def ratio(self, name: str, other: str) -> float | None:
        """The median of the ratios within each round; 1 where both are the same setting."""
        if self.as_served(name) is not None and self.as_served(name) == self.as_served(other):
            return 1.0
        pairs = zip(self.rounds.get(name, []), self.rounds.get(other, []), strict=False)
        ratios = [one / two for one, two in pairs if two]
        return statistics.median(ratios) if ratios else None


@dataclass
class TuningResults:
    """run: date, commit, machine, versions and failures. engine: images per second by way, a figure for each round."""

    run: Results
    models: dict[str, Tuned] = field(default_factory=dict)
    engine: dict[str, list[float]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def read(path: Path) -> TuningResults:
    """The results in a file that `TuningResults.write` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=TuningResults)


#: By model, what tuned settings must be worth against the poor start.
FROM_POOR = {"mobilenet": 2.0, "perceptron": 3.0}
#: By way of asking, what part of the engine alone must be served.
OF_ENGINE = {"binary": 0.95, "json": 0.70}


def bars(results: TuningResults) -> list[Bar]:
    found: list[Bar] = []
    for name, one in results.models.items():
        result = one.result
        found.append(_bar(name, "tuned against the best of the grid", one.ratio(TUNED, GRID), 0.95, operator.ge, "≥ {:.0%}"))
        part = result.measured / result.grid
        found.append(_bar(name, "settings that were measured, of the grid's", part, 0.15, operator.le, "≤ {:.0%}"))
        minutes = result.seconds / 60
        found.append(_bar(name, "minutes that it took", minutes, _MINUTES, operator.le, "≤ {:.0f} min", "{:.1f} min"))
        found.append(_bar(name, "`auto` against tuned", one.ratio(AUTO, TUNED), 0.85, operator.ge, "≥ {:.0%}"))
        if name in FROM_POOR:
            ratio = one.ratio(TUNED, POOR)
            found.append(_bar(name, "tuned against a poor start", ratio, FROM_POOR[name], operator.ge, "≥ {:.0f}×", "{:.2f}×"))
        if one.replayed:
            again = statistics.median(one.replayed) / result.best.rate
            what = f"the knee, replayed {one.replayed_after_min:.0f} minutes later, apart by"
            found.append(_bar(name, what, max(again, 1 / again) - 1, 0.10, operator.le, "≤ {:.0%}"))
    for way, share in OF_ENGINE.items():
        values = [results.engine.get(key) for key in (way, "engine")]
        if all(values):
            served, engine = (statistics.median(one) for one in values if one)
            found.append(_bar("mobilenet", f"{way}, against the engine alone", served / engine, share, operator.ge, "≥ {:.0%}"))
    return found


def _bar(
    work: str,
    what: str,
    value: float | None,
    limit: float,
    holds: Callable[[float, float], bool],
    required: str,
    shown: str = "{:.1%}",
) -> Bar:
    if value is None:
        return Bar(work, what, required.format(limit), "not measured", None)
    return Bar(work, what, required.format(limit), shown.format(value), holds(value, limit))
