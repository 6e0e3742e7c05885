"""Measures settings: a server for each, asked by closed loops for a curve, and by an open loop for what users would see.

Guarantees: every figure is that of the real server; what was measured is in the journal before the next begins, and is not
measured again. A setting with which the server does not start, or answer, has a curve without steps that says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstock.bench.bodies import Body
from penstock.bench.measurement import Plan, measure
from penstock.bench.result import Result
from penstock.bench.schedule import Phase
from penstock.bench.slo import Slo
from penstock.bench.target import Target
from penstock.bench.watch import Watch
from penstock.errors import PenstockError
from penstock.tensors import Signature
from penstock.tune.curve import Curve, Step, is_hopeless, knee, next_connections, step_of
from penstock.tune.journal import Journal, Point
from penstock.tune.result import Offered
from penstock.tune.server import serving
from penstock.tune.setting import Setting
from penstock.tune.workload import Workload

#: Seconds of a step: more where answers are few, since percentiles need them.
_STEP_S, _LONGEST_STEP_S, _ANSWERS = 0.8, 3.0, 400
_REPEAT_S, _OFFERED_S = 1.5, 2.5
_FIRST_WARM_UP_S, _WARM_UP_S, _TIMEOUT_S = 0.6, 0.2, 60.0
#: Parts of the knee that are asked by an open loop, and the connections that it has.
_SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
_OPEN_CONNECTIONS = 256
#: Without a goal, latency has exploded where the p99 is so many times that of the lightest load.
_EXPLODED = 4.0
_HOPELESS = "hopeless"


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is measured: what it is asked, and how it is watched."""

    target: Target
    bodies: list[Body]
    watch: Watch

    def ask(self, plan: Plan) -> Result:
        return measure(self.target, self.bodies, plan, self.watch)


class Measuring:
    """Measures one model with settings. `common` is a file of options that all of them have, or empty.

    `pace` is what times are multiplied with: below 1 where there is little time, and figures are coarser.
    """

    def __init__(
        self,
        path: str,
        workload: Workload,
        signatures: Mapping[str, Signature],
        slo: Slo | None,
        common: str,
        journal: Journal,
        pace: float = 1.0,
    ) -> None:
        self._path, self._workload, self._signatures, self._slo = path, workload, signatures, slo
        self._common = ["--config", common] if common else []
        self._journal = journal
        self._pace = pace
        #: What is asked, in words, once something was.
        self.asked = ""

    def arguments(self, setting: Setting) -> list[str]:
        """What `penstock serve` is started with."""
        return [self._path, "--name", self._workload.model, *self._common, *setting.flags()]

    def bodies(self, target: Target, rows: int) -> list[Body]:
        """Requests of so many rows; none where the user's are what they are."""
        return self._workload.bodies(target, self._signatures, 0 if rows == self._workload.rows else rows)

    def curve(self, setting: Setting, best: Sequence[Step] = ()) -> Point:
        """The whole curve of a setting, as far as it is worth it beside the `best` so far."""

        def steps(served: Served) -> Iterator[Step | str]:
            taken: list[Step] = []
            while (connections := next_connections(taken, self._slo)) is not None:
                seconds = min(_LONGEST_STEP_S, max(_STEP_S, _ANSWERS / taken[-1].rate)) if taken else _STEP_S
                plan = self._plan(connections, seconds, _WARM_UP_S if taken else _FIRST_WARM_UP_S)
                taken.append(step_of(connections, served.ask(plan)))
                yield taken[-1]
                if is_hopeless(taken, best):
                    yield _HOPELESS

        return self._measured(setting, "search", 0, steps)

    def again(self, setting: Setting, like: Sequence[Step], why: str, number: int = 0) -> Point:
        """One request alone, and the steps around the knee of a curve that is `like` it."""
        found = knee(like, self._slo)
        middle = found.step.connections if found else 1

        def steps(served: Served) -> Iterator[Step | str]:
            for connections in sorted({1, max(1, middle // 2), middle, middle * 2}):
                yield step_of(connections, served.ask(self._plan(connections, _REPEAT_S, _FIRST_WARM_UP_S)))

        return self._measured(setting, why, number, steps)

    def offered(self, setting: Setting, knee_rate: float, told: Callable[[str], None]) -> list[Offered]:
        """Requests that come by themselves, at parts of what the closed loop reached, until they come too quickly."""
        found: list[Offered] = []
        if not knee_rate:  # not even one request at a time holds the goal
            return found
        try:
            with serving(self.arguments(setting)) as server:
                served = self._served(server.url, server.pid)
                for share in _SHARES:
                    rate = knee_rate * share
                    told(f"open loop at {share:.0%} of the knee, {rate:,.0f}/s")
                    seconds, warm_up_s = _OFFERED_S * self._pace, _FIRST_WARM_UP_S * self._pace
                    phases = (Phase(rate, rate, seconds),)
                    result = served.ask(Plan(_OPEN_CONNECTIONS, seconds, warm_up_s, _TIMEOUT_S, phases, f"{rate:.6g}"))
                    if result.latency is None:
                        break
                    holds = self._holds(result, found[0] if found else None)
                    limit = "" if holds else result.client.limit
                    found.append(Offered(rate, share, result.latency, result.error_share, holds, limit))
                    if not holds:
                        break
        except PenstockError as error:
            told(f"open loop: {error.message}")
        return found

    def _plan(self, connections: int, seconds: float, warm_up_s: float) -> Plan:
        return Plan(connections, seconds * self._pace, warm_up_s * self._pace, _TIMEOUT_S)

    def _holds(self, result: Result, lightest: Offered | None) -> bool:
        if self._slo is not None:
            return not self._slo.miss(result)
        assert result.latency is not None
        return not result.errors and (lightest is None or result.latency.p99 < _EXPLODED * lightest.latency.p99)

    def _measured(self, setting: Setting, why: str, number: int, steps: Callable[[Served], Iterator[Step | str]]) -> Point:
        """What an interrupted run has of it, or what is measured now; a text in place of a step ends it."""
        found = self._journal.find(setting, why, number)
        if found is not None:
            return found
        begin = time.monotonic()
        taken: list[Step] = []
        ended = ""
        try:
            with serving(self.arguments(setting)) as server:
                for step in steps(self._served(server.url, server.pid)):
                    if isinstance(step, str):
                        ended = step
                        break
                    taken.append(step)
        except PenstockError as error:
            ended = error.message
        point = Point(setting, Curve(taken, ended), why, number, time.monotonic() - begin)
        # What kept a server from starting may have been mended by the next run.
        if taken:
            self._journal.add(point)
        return point

    def _served(self, url: str, pid: int) -> Served:
        target = self._workload.target(url)
        bodies = self._workload.bodies(target, self._signatures)
        self.asked = self._workload.describe(target, bodies)
        return Served(target, bodies, Watch(target, pid))
