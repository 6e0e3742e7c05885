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
from penstock.bench.result import Client, Load, Result, Server, histogram_of, latency_of, second_of
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
    before: Reading | None = None
    told = [0, 0]
    warm_ns = begun_ns = time.perf_counter_ns()
    client_s = 0.0
    whole_s = plan.warm_up_s + plan.seconds

    def tick(now_ns: int) -> None:
        nonlocal before, client_s
        if before is None and now_ns >= warm_ns:
            before, client_s = watch.read(is_short=True), time.process_time()
        if progress is not None and now_ns - told[0] >= _TOLD_EVERY_NS:
            progress((now_ns - begun_ns) / 1e9, whole_s, record, told[1])
            told[:] = now_ns, len(record)

    gc.collect()
    gc.disable()  # there are no cycles to be found, and the next request would wait for the search
    try:
        stages_before = watch.read().stages
        begun_ns = time.perf_counter_ns()
        warm_ns = begun_ns + int(plan.warm_up_s * 1e9)
        told[0] = begun_ns
        begin_ns, end_ns = driver.run(whole_s, _due(plan), tick)
        client_end_s, after = time.process_time(), watch.read()
    finally:
        gc.enable()
        driver.close()
    window = Window(record, begin_ns + int(plan.warm_up_s * 1e9), end_ns, by_due=bool(plan.phases))
    if not window.requests:
        said = ", ".join(f"{count} × {kind}" for kind, count in window.errors.items()) or "nothing was answered in time"
        raise InvalidArgument(
            f"{target.url}: no request was answered: {said}{f'; the first: {record.example}' if record.example else ''}"
        )
    before = before or after
    latency = latency_of(window.latencies_ms())
    lags = np.array(driver.lag_ns, np.int64) / 1e6
    share = (client_end_s - client_s) / max(after.at_s - before.at_s, 1e-9)
    lag_p99 = float(np.percentile(lags, 99)) if lags.size else 0.0
    by_body = {}
    if len(bodies) > 1:
        for which, body in enumerate(bodies):
            found = latency_of(window.latencies_ms(which))
            if found is not None:
                by_body[body.name] = found
    return Result(
        url=target.url,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        penstock=__version__,
        load=Load(
            plan.connections,
            plan.streams,
            plan.seconds,
            plan.warm_up_s,
            plan.profile,
            ("poisson" if plan.is_poisson else "constant") if plan.phases else "",
            [body.name for body in bodies][:100],
            round(sum(map(len, requests)) / len(requests)),
        ),
        requests=window.requests,
        rate=window.requests / window.seconds,
        offered=sum(phase.requests for phase in plan.phases) / plan.seconds if plan.phases else 0.0,
        errors=window.errors,
        example=record.example,
        waited=driver.waited,
        latency=latency,
        histogram=histogram_of(window.latencies_ms()),
        by_body=by_body,
        seconds=[second_of(one) for one in window.seconds_of()],
        client=Client(share, lag_p99, _limit(share, lag_p99, latency.p99 if latency else 0.0)),
        server=_server(before, after, stages_before, window.requests) if watch.knows_processes or after.stages else None,
    )


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


def _limit(share: float, lag_p99: float, p99: float) -> str:
    """Why the figures are the client's and not the server's, empty where they are not."""
    if share >= _FULL_CORE:
        return f"the load generator took {share:.0%} of a core: it could not send more"
    if lag_p99 > _LATE_SHARE * p99:
        return f"1 % of the requests were sent {lag_p99:.3g} ms late, with the server waiting: latencies are too high by that"
    return ""


def _server(before: Reading, after: Reading, stages_before: Mapping[str, tuple[float, int]], requests: int) -> Server:
    seconds = max(after.at_s - before.at_s, 1e-9)
    spent = after.cpu_s - before.cpu_s
    stages: dict[str, float] = {}
    for stage, (total, count) in after.stages.items():
        total_before, count_before = stages_before.get(stage, (0.0, 0))
        if count > count_before:
            stages[stage] = (total - total_before) / (count - count_before) * 1e6
    return Server(spent / requests * 1e6, spent / seconds, after.memory_bytes, after.processes, stages)
