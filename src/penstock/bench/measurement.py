"""One run: a load on a target, from the first connection to the result."""

from __future__ import annotations

import datetime
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.bench.bodies import Body, header_fields, request
from penstock.bench.driver import Driver, Open
from penstock.bench.grpc import Calls, GrpcConnection
from penstock.bench.http1 import Http1Connection
from penstock.bench.record import Record, Window
from penstock.bench.result import Client, Latency, Load, Result, Server, histogram_of, latency_of, second_of
from penstock.bench.schedule import Phase, arrivals
from penstock.bench.target import Target
from penstock.bench.watch import Reading, Watch
from penstock.errors import InvalidArgument, Unavailable
from penstock.version import __version__
from penstock.wire import nghttp2

#: From this share of a core on the load generator is what is measured.
_FULL_CORE = 0.9
#: Sent later than this share of the 99th percentile, open-loop requests say too much of the client.
_LATE_SHARE = 0.25
_ORDER = 4096
_MAX_NAMES = 100
_TOLD_EVERY_NS = 1_000_000_000

#: Called once a second with the seconds gone, all in all, and what was answered in the last one: how many, and their record.
Progress = Callable[[float, float, Record, int], None]


@dataclass(frozen=True)
class Plan:
    """How a target is loaded: a closed loop, or an open one where there are `phases`."""

    connections: int
    seconds: float
    warm_up_s: float
    timeout_s: float
    phases: tuple[Phase, ...] = ()
    profile: str = ""
    is_poisson: bool = True
    zipf: float = 0.0
    seed: int = 0
    headers: tuple[str, ...] = ()
    #: Calls of gRPC that one connection may have under way.
    streams: int = 1


def measure(target: Target, bodies: Sequence[Body], plan: Plan, watch: Watch, progress: Progress | None = None) -> Result:
    """Loads the target as planned. Raises Unavailable where nobody listens, InvalidArgument where no request was answered."""
    requests = [request(target, body, plan.headers) for body in bodies]
    record = Record()
    driver = Driver(
        target.address(),
        _opener(target, plan),
        requests,
        order(len(bodies), plan.zipf, plan.seed),
        plan.connections,
        plan.timeout_s,
        record,
    )
    driver.connect()
    stages = watch.stages()
    clock = _Clock(plan, watch, record, progress)
    gc.collect()
    gc.disable()  # there are no cycles to be found, and the next request would wait for the search
    try:
        begin_ns, end_ns = driver.run(plan.warm_up_s + plan.seconds, _due(plan), clock.tick)
        clock.stop()
        after = watch.read()
    finally:
        gc.enable()
        driver.close()
    window = Window(record, begin_ns + int(plan.warm_up_s * 1e9), end_ns, by_due=bool(plan.phases))
    if not window.requests:
        said = ", ".join(f"{count} × {kind}" for kind, count in window.errors.items()) or "nothing was answered in time"
        raise InvalidArgument(
            f"{target.url}: no request was answered: {said}{f'; the first: {record.example}' if record.example else ''}"
        )
    latencies_ms = window.latencies_ms()
    latency = latency_of(latencies_ms)
    return Result(
        url=target.url,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        penstock=__version__,
        load=_load(plan, bodies, requests),
        requests=window.requests,
        rate=window.requests / window.seconds,
        offered=sum(phase.requests for phase in plan.phases) / plan.seconds if plan.phases else 0.0,
        errors=window.errors,
        example=record.example,
        waited=driver.waited,
        latency=latency,
        histogram=histogram_of(latencies_ms),
        by_body=_by_body(window, bodies),
        seconds=[second_of(one) for one in window.seconds_of()],
        client=_client(clock.core_share, driver.lag_ns, latency),
        server=_server(clock, stages, after, window.requests) if watch.knows_processes or after.stages else None,
    )


class _Clock:
    """What is looked at while a load runs: the end of the warm-up, and the second that is told. `core_share` is the client's."""

    def __init__(self, plan: Plan, watch: Watch, record: Record, progress: Progress | None) -> None:
        self._plan, self._watch, self._record, self._progress = plan, watch, record, progress
        self._begin_ns = self._told_ns = time.perf_counter_ns()
        self._told = 0
        self._begin_client_s = 0.0
        self.begin_s = self.begin_cpu_s = 0.0
        self.core_share = 0.0

    def tick(self, now_ns: int) -> None:
        gone_s = (now_ns - self._begin_ns) / 1e9
        if not self.begin_s and gone_s >= self._plan.warm_up_s:
            self.begin_s, self.begin_cpu_s = self._watch.cpu()
            self._begin_client_s = time.process_time()
        if self._progress is not None and now_ns - self._told_ns >= _TOLD_EVERY_NS:
            self._progress(gone_s, self._plan.warm_up_s + self._plan.seconds, self._record, self._told)
            self._told_ns, self._told = now_ns, len(self._record)

    def stop(self) -> None:
        seconds = time.monotonic() - self.begin_s
        self.core_share = (time.process_time() - self._begin_client_s) / max(seconds, 1e-9)


def _load(plan: Plan, bodies: Sequence[Body], requests: Sequence[bytes]) -> Load:
    return Load(
        plan.connections,
        plan.streams,
        plan.seconds,
        plan.warm_up_s,
        plan.profile,
        ("poisson" if plan.is_poisson else "constant") if plan.phases else "",
        [body.name for body in bodies][:_MAX_NAMES],
        round(sum(map(len, requests)) / len(requests)),
    )


def _by_body(window: Window, bodies: Sequence[Body]) -> dict[str, Latency]:
    """Of each body, where there are several."""
    found = {body.name: latency_of(window.latencies_ms(which)) for which, body in enumerate(bodies)} if len(bodies) > 1 else {}
    return {name: latency for name, latency in found.items() if latency is not None}


def _opener(target: Target, plan: Plan) -> Open:
    """Makes the connections of what the target speaks. Raises Unavailable where there is no libnghttp2 for gRPC."""
    if not target.is_grpc:
        return Http1Connection
    try:
        nghttp2.load()
    except nghttp2.NotThere as error:
        raise Unavailable(str(error)) from None
    scheme = "https" if target.address().tls else "http"
    calls = Calls(target.path, target.host, header_fields(plan.headers), scheme)
    return lambda sock, events: GrpcConnection(sock, events, calls, plan.streams)


def order(count: int, zipf: float, seed: int) -> list[int]:
    """Which body each request has: in turn, or drawn so that the n-th has 1 / n^zipf of the first one's requests."""
    if count == 1:
        return [0]
    if not zipf:
        return list(range(count))
    weights = 1.0 / np.arange(1, count + 1) ** zipf
    drawn: list[int] = np.random.default_rng(seed).choice(count, _ORDER, p=weights / weights.sum()).tolist()
    return drawn


def _due(plan: Plan) -> Iterator[int] | None:
    """The schedule: the first rate of the profile warms up."""
    if not plan.phases:
        return None
    first = plan.phases[0]
    warm_up = (Phase(first.begin_rate or first.end_rate, first.begin_rate or first.end_rate, plan.warm_up_s),)
    return arrivals((*(warm_up if plan.warm_up_s else ()), *plan.phases), is_poisson=plan.is_poisson, seed=plan.seed)


def _client(core_share: float, lag_ns: Sequence[int], latency: Latency | None) -> Client:
    lag_p99 = float(np.percentile(np.array(lag_ns), 99)) / 1e6 if lag_ns else 0.0
    return Client(core_share, lag_p99, _limit(core_share, lag_p99, latency.p99 if latency else 0.0))


def _limit(share: float, lag_p99: float, p99: float) -> str:
    """Why the figures are the client's and not the server's, empty where they are not."""
    if share >= _FULL_CORE:
        return f"the load generator took {share:.0%} of a core: it could not send more"
    if lag_p99 > _LATE_SHARE * p99:
        return f"1 % of the requests were sent {lag_p99:.3g} ms late, with the server waiting: latencies are too high by that"
    return ""


def _server(clock: _Clock, stages_before: Mapping[str, tuple[float, int]], after: Reading, requests: int) -> Server:
    spent = after.cpu_s - clock.begin_cpu_s
    stages: dict[str, float] = {}
    for stage, (total, count) in after.stages.items():
        total_before, count_before = stages_before.get(stage, (0.0, 0))
        if count > count_before:
            stages[stage] = (total - total_before) / (count - count_before) * 1e6
    cores = spent / max(after.at_s - clock.begin_s, 1e-9)
    return Server(spent / requests * 1e6, cores, after.memory_bytes, after.processes, stages)
