"""`penstock tune`, as a whole: probe, simulate, search, repeat what is close, ask what each option is worth, and see it hold.

Guarantees: the budget is kept to within one curve of each part. What was measured is in the journal, so that the same command
goes on after an interruption.
"""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Protocol

import msgspec

from penstock.bench.slo import Slo
from penstock.config import available_cores
from penstock.engine.engines import PACKAGES, installed_version
from penstock.errors import Unavailable
from penstock.models.plan import fingerprint, this_machine
from penstock.optimize.race import interval
from penstock.optimize.state import traces
from penstock.process.spreading import spread, spread_script
from penstock.savedmodel.layout import GRAPH_FILE
from penstock.tensors import Signature
from penstock.tune.curve import Knee, knee
from penstock.tune.journal import Journal, Point
from penstock.tune.measuring import Measuring
from penstock.tune.objective import Objective
from penstock.tune.probe import Probe
from penstock.tune.result import Figures, Tried, TuneResult, Worth
from penstock.tune.search import Search
from penstock.tune.setting import AUTO, NAMES, Setting, Subject, axes, grid, keep
from penstock.tune.simulation import Costs, predict_all
from penstock.tune.workload import Workload
from penstock.version import __version__

#: At most this part of the space is measured, and at least so many settings where it is small.
_PART, _FEW = 0.15, 4
#: Settings without a better one, after which the search is over; and by how much others must be better than the defaults.
_PATIENCE = 10
_BETTER = 1.02
#: Parts of the budget after which the search, the repeats, and the questions what options are worth are over.
_SEARCH_UNTIL, _REPEAT_UNTIL, _WORTH_UNTIL = 0.6, 0.82, 0.92
#: Settings that are repeated beside the defaults: the best, within this of the very best.
_CLOSE, _CONTENDERS = 0.88, 3
_ROUNDS = 5
#: With fewer nothing can be said beyond doubt.
FEWEST_ROUNDS = 2
#: From this budget on nothing is hurried; below it times are shorter, down to this part.
_AT_LEISURE_S, _QUICKEST = 180.0, 0.15


class Watcher(Protocol):
    """Whoever is told how far it is."""

    def step(self, text: str) -> None: ...

    def point(self, point: Point, found: Knee | None, number: int, of: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """What is tuned, and for what. `config` is a file of options that all settings have in common, or empty.

    `defaults` is what the server decides by itself. `fixed` are options, among those that are tuned, whose value is given.
    `files`: what figures depend on beside the model.
    """

    path: str
    name: str
    version: Path
    workload: Workload
    subject: Subject
    signatures: Mapping[str, Signature]
    defaults: Setting
    out: Path
    objective: Objective
    slo: Slo | None = None
    budget_s: float = 600.0
    config: str = ""
    price_per_hour: float = 0.0
    fixed: Mapping[str, int | str] = field(default_factory=dict)
    files: Sequence[Path] = ()


class Tuner:
    """One model on its way to its settings."""

    def __init__(self, options: TuneOptions, watcher: Watcher) -> None:
        """Raises UsageError where the folder for results cannot be written."""
        self._options, self._watcher = options, watcher
        self._cores = available_cores()
        self._space = keep(axes(options.subject, self._cores), options.fixed)
        self._auto = msgspec.structs.replace(AUTO, **options.fixed)
        self._defaults = msgspec.structs.replace(options.defaults, **options.fixed)
        self._grid = grid(self._space)
        self._journal = Journal(options.out, self._question())
        self._pace = min(1.0, max(_QUICKEST, options.budget_s / _AT_LEISURE_S))
        self._measuring = Measuring(
            options.path, options.workload, options.signatures, options.slo, options.config, self._journal, self._pace
        )
        self._begin_s = 0.0

    def run(self) -> TuneResult:
        """Raises PenstockError where the server does not start with its defaults, or does not answer."""
        options, measuring = self._options, self._measuring
        self._begin_s = time.monotonic()
        auto = measuring.curve(self._auto)
        if not auto.curve.steps:
            raise Unavailable(f"{options.path}: {auto.curve.ended}")
        self._tell(auto, 0)
        probe = Probe(measuring.arguments, options.workload.target, measuring.bodies, options.subject.has_script, self._pace)
        costs = probe.costs(options.subject.engines, self._cores, options.workload.rows, self._watcher.step)
        self._defaults = self._decided(costs)
        search = Search(self._space, self._predict(costs), self._defaults)
        curves = self._search(search, auto)
        repeats = self._repeat(self._contenders(search), curves)
        winner = self._winner(repeats)
        worth = self._worth(winner, repeats[winner], curves[winner])
        best = self._figures(repeats[winner])
        gain, low, high = (one if isfinite(one) else None for one in self._gain(repeats[winner], repeats[self._auto]))
        return TuneResult(
            made=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            penstock=__version__,
            model=options.name,
            path=options.path,
            asked=measuring.asked,
            machine=this_machine(),
            versions={engine: installed_version(engine) for engine in PACKAGES if installed_version(engine)},
            slo=options.slo.text if options.slo else "",
            objective=options.objective.name,
            budget_s=options.budget_s,
            space={axis.name: list(axis.values) for axis in self._space},
            grid=len(self._grid),
            worth_measuring=len(search.worth),
            probes=probe.done,
            rounds=len(repeats[winner]),
            defaults=self._defaults,
            winner=winner,
            is_default=winner == self._auto,
            auto=self._figures(repeats[self._auto]),
            best=best,
            gain=gain,
            gain_low=low,
            gain_high=high,
            offered=measuring.offered(winner, best.rate, self._watcher.step),
            worth=worth,
            tried=[self._tried(setting, point, search) for setting, point in curves.items() if setting != self._auto],
            auto_steps=auto.curve.steps,
            price_per_hour=options.price_per_hour,
            rows=options.workload.rows,
            seconds=time.monotonic() - self._begin_s,
        )

    # The parts of a run

    @property
    def _limit(self) -> int:
        """How many settings may be measured."""
        return min(len(self._grid), max(_FEW, int(_PART * len(self._grid))))

    def _search(self, search: Search, auto: Point) -> dict[Setting, Point]:
        """The curves of the settings that were worth it, the defaults' among them."""
        curves = {self._auto: auto}
        if self._defaults in search.worth:  # it is measured, by the name of the server's own decisions
            curves[self._defaults] = auto
            search.tell(self._defaults, self._value(auto))
        best, best_value, without = auto, self._value(auto), 0
        while without < _PATIENCE and len(search.measured) < self._limit:
            if search.measured and not self._has_time(_SEARCH_UNTIL):
                break
            setting = search.ask()
            if setting is None:
                break
            point = curves[setting] = self._measuring.curve(setting, best.curve.steps)
            value = self._value(point)
            search.tell(setting, value)
            self._tell(point, len(search.measured))
            without = 0 if value > best_value * _BETTER else without + 1
            if value > best_value:
                best, best_value = point, value
        return curves

    def _contenders(self, search: Search) -> list[Setting]:
        """The defaults, and the best of the search."""
        others = [setting for setting in search.measured if setting != self._defaults]
        ordered = sorted(others, key=lambda setting: -search.measured[setting])
        top = max(search.measured.values(), default=0.0)
        return [self._auto, *(one for one in ordered[:_CONTENDERS] if search.measured[one] > _CLOSE * top)]

    def _repeat(self, contenders: Sequence[Setting], curves: Mapping[Setting, Point]) -> dict[Setting, list[Point]]:
        """Each in turn, around its knee, round after round: a machine that is slow for a while is so for all."""
        found: dict[Setting, list[Point]] = {setting: [] for setting in contenders}
        for number in range(1, _ROUNDS + 1):
            if number > 1 and not self._has_time(_REPEAT_UNTIL):
                break
            self._watcher.step(f"repeat {number} of {_ROUNDS}: {len(contenders)} settings in turn")
            for setting in contenders:
                found[setting].append(self._measuring.again(setting, curves[setting].curve.steps, "repeat", number))
        return found

    def _winner(self, repeats: Mapping[Setting, Sequence[Point]]) -> Setting:
        """The defaults, unless another is better beyond doubt; of those that are, the best. One round is no proof."""
        if len(repeats[self._auto]) < FEWEST_ROUNDS:
            return self._auto
        gains = {setting: self._gain(points, repeats[self._auto]) for setting, points in repeats.items() if setting != self._auto}
        better = [setting for setting, (_, low, _) in gains.items() if low > _BETTER]
        return max(better, key=lambda setting: gains[setting][0], default=self._auto)

    def _worth(self, winner: Setting, rounds: Sequence[Point], curve: Point) -> list[Worth]:
        """The winner with one option after the other as it is by default."""
        reached = median(map(self._value, rounds))
        found = []
        for name, value in ({} if winner == self._auto else winner.differences(self._defaults)).items():
            if not self._has_time(_WORTH_UNTIL):
                break
            default = getattr(self._defaults, name)
            self._watcher.step(f"what {name} = {value} is worth")
            without = self._value(self._measuring.again(winner.with_value(name, default), curve.curve.steps, "worth"))
            if without:
                found.append(Worth(name, value, default, reached / without))
        return sorted(found, key=lambda one: -one.ratio)

    # Figures

    def _value(self, point: Point) -> float:
        """What is sought, as a number: more is better, 0 is nothing."""
        return self._options.objective.value(point.curve.steps, self._options.slo)

    def _predict(self, costs: Costs) -> dict[Setting, float]:
        """For the whole space; engines that could not be probed are left out of it."""
        self._watcher.step(f"simulate {len(self._grid)} settings")
        goals = self._options.slo.goals if self._options.slo else ()
        limit_s = min((goal.limit / 1e3 for goal in goals if goal.metric.startswith("p")), default=0.0)
        return predict_all([setting for setting in self._grid if setting.engine in costs.batch_s], costs, limit_s)

    def _decided(self, costs: Costs) -> Setting:
        """What the server decides by itself, when it has seen what a row takes."""
        setting, subject = self._defaults, self._options.subject
        known = subject.has_plan or subject.is_stateful or {"instances", "intra_op"} & self._options.fixed.keys()
        if known or setting.engine not in costs.batch_s:
            return setting
        if subject.has_script:  # which is busy at the knee
            return msgspec.structs.replace(setting, instances=spread_script(self._cores))
        decided = spread(costs.run_s(setting.engine, setting.intra_op, 1), self._cores)
        if decided is None:
            return setting
        return msgspec.structs.replace(setting, instances=decided.instances, intra_op=decided.threads)

    def _gain(self, rounds: Sequence[Point], reference: Sequence[Point]) -> tuple[float, float, float]:
        """How many times as good, with the bounds of its interval: ratios within each round; inf where `reference` is nothing."""
        pairs = zip(map(self._value, rounds), map(self._value, reference), strict=True)
        ratios = [value / other for value, other in pairs if other]
        if ratios:
            return (median(ratios), *interval(ratios))
        return (float("inf"),) * 3 if any(map(self._value, rounds)) else (1.0, 1.0, 1.0)

    def _figures(self, rounds: Sequence[Point]) -> Figures:
        """At the knee; where not even one request at a time holds the goal, at that, with a throughput of 0."""
        slo = self._options.slo
        knees = [found for point in rounds if (found := knee(point.curve.steps, slo)) is not None]
        knees = knees or [Knee(point.curve.steps[0], 0.0) for point in rounds if point.curve.steps]
        if not knees:
            raise Unavailable(f"{self._options.path}: {rounds[-1].curve.ended}")
        rates = [one.rate for one in knees]
        step = sorted(knees, key=lambda one: one.rate)[len(knees) // 2].step
        return Figures(
            step.connections,
            median(rates),
            *interval(rates),
            step.latency,
            step.cpu_us,
            step.cores,
            step.memory_bytes,
            step.client_limit,
        )

    def _tried(self, setting: Setting, point: Point, search: Search) -> Tried:
        return Tried(setting, search.predicted(setting), self._value(point), point.curve.ended, point.curve.steps)

    def _tell(self, point: Point, number: int) -> None:
        self._watcher.point(point, knee(point.curve.steps, self._options.slo), number, self._limit)

    def _has_time(self, part: float) -> bool:
        return time.monotonic() - self._begin_s < part * self._options.budget_s

    def _question(self) -> str:
        """What the figures depend on: a run with the same goes on where another was."""
        options, version = self._options, self._options.version
        told = (
            fingerprint(version) if (version / GRAPH_FILE).is_file() else traces(version),
            options.workload,
            *map(traces, options.files),
            options.slo,
            options.objective.name,
            self._space,
            this_machine(),
            __version__,
            {engine: installed_version(engine) for engine in PACKAGES},
            NAMES,
        )
        return hashlib.sha256(repr(told).encode()).hexdigest()[:24]
