"""What the parts of a request take, found out on the real server: bodies of different rows, one at a time.

Guarantees: what is measured is a server as a user would start it. Assumes that nothing else runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock.bench.bodies import Body
from penstock.bench.measurement import Plan, measure
from penstock.bench.result import Result
from penstock.bench.target import Target
from penstock.bench.watch import Watch
from penstock.errors import PenstockError
from penstock.tune.server import Served, cpu_s, serving
from penstock.tune.setting import Setting
from penstock.tune.simulation import Costs

#: Rows of one request, which stand for a batch of so many.
_ROWS = (1, 8, 32, 128)
_SECONDS, _WARM_UP_S, _TIMEOUT_S = 0.4, 0.2, 60.0
#: A larger batch is not tried once one takes this long.
_LONG_S = 2.0

#: Arguments for a server with a setting, and requests of so many rows (none where a body is what it is).
Arguments = Callable[[Setting], Sequence[str]]
Bodies = Callable[[Target, int], Sequence[Body]]


class Probe:
    """Measures the parts, at a pace as `Measuring` has it; `done` counts the servers that were started."""

    def __init__(
        self, arguments: Arguments, find: Callable[[str], Target], bodies: Bodies, has_script: bool, pace: float
    ) -> None:
        self._arguments, self._find, self._bodies, self._has_script = arguments, find, bodies, has_script
        self._seconds, self._warm_up_s = _SECONDS * pace, _WARM_UP_S * pace
        self.done = 0

    def costs(self, engines: Sequence[str], cores: int, rows: int, told: Callable[[str], None]) -> Costs:
        """Raises PenstockError where no engine could be measured."""
        tables: dict[str, dict[int, Mapping[int, float]]] = {}
        gateway_s: list[float] = []
        client_s: list[float] = []
        failed: PenstockError | None = None
        for engine in engines:
            for threads in dict.fromkeys((1, cores)):
                told(f"probe: {engine}, {threads} thread{'' if threads == 1 else 's'}")
                setting = Setting(gateways=1, instances=1, engine=engine, intra_op=threads)
                self.done += 1
                try:
                    with serving(self._arguments(setting)) as served:
                        table, gateway, client = self._look(served, rows)
                except PenstockError as error:
                    failed = error
                    continue
                tables.setdefault(engine, {})[threads] = table
                gateway_s.append(gateway)
                client_s.append(client)
        if failed is not None and not tables:
            raise failed
        return Costs(cores, rows, min(gateway_s), min(client_s), tables)

    def _look(self, served: Served, rows: int) -> tuple[dict[int, float], float, float]:
        """Seconds by rows, and the CPU seconds of gateway and load generator for a request."""
        target = self._find(served.url)
        watch = Watch(target, served.pid)
        table: dict[int, float] = {}
        before = cpu_s(served.pid, "gateway")
        first = self._ask(target, self._bodies(target, rows), watch)
        spent = cpu_s(served.pid, "gateway") - before
        asked = first.requests * (self._seconds + self._warm_up_s) / self._seconds
        table[rows] = self._run_s(first)
        for count in _ROWS:
            if self._has_script or count == rows or max(table.values()) > _LONG_S:
                continue
            bodies = self._bodies(target, count)
            if not bodies:
                break
            try:
                table[count] = self._run_s(self._ask(target, bodies, watch))
            except PenstockError:
                break  # a model whose signature promises more than it takes
        return table, spent / asked, first.client.core_share / first.rate

    def _ask(self, target: Target, bodies: Sequence[Body], watch: Watch) -> Result:
        return measure(target, bodies, Plan(1, self._seconds, self._warm_up_s, _TIMEOUT_S), watch)

    @staticmethod
    def _run_s(result: Result) -> float:
        """What the model took, or its script with it."""
        stages = result.server.stages_us if result.server else {}
        return (stages.get("infer") or (result.latency.mean * 1e3 if result.latency else 0.0)) / 1e6
