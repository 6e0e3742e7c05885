"""Counts and times of requests, kept by each gateway and added up when somebody asks.

The hot path appends a tuple to a list (0.1 µs a request); hundreds at a time are sorted into buckets, at 0.2 µs each, where
the client library's histograms take 12. A bucket is the bit length of the nanoseconds. Exposition is prometheus_client's.
Labels are names of models that are served, their versions, the API: what a client merely asks for never becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

#: The stages of a request, in the order of its life.
STAGES = ("read", "decode", "queue", "infer", "encode", "write")
_BUCKETS = 48
#: Bounds that are exposed: powers of two from 8 µs to 69 s.
_FIRST_BUCKET, _LAST_BUCKET = 13, 36
_BATCH_BUCKETS = 16
_SORTED_AT_ONCE = 512
#: The whole of a request, its run in the engine, its waiting for that: in buckets whose bounds grow as TensorFlow Serving's.
WAITS = ("request", "infer", "queue")
WAIT_BOUNDS_US = tuple(10 * 1.8**step for step in range(33))
_WAIT_BOUNDS_NS = np.array(WAIT_BOUNDS_US) * 1000


class Series(msgspec.Struct, array_like=True):
    """What is kept for one model, version and API. `codes` counts outcomes by code name, `variants` answers by variant.

    `waits` are what TensorFlow Serving's names ask for (`WAITS`), in its buckets.
    """

    model: str
    version: int
    api: str
    codes: dict[str, int]
    stages: list[list[int]]
    sums_ns: list[int]
    batches: list[int]
    batch_rows: int
    in_flight: int
    waits: list[list[int]]
    variants: dict[str, int] = {}

    def add(self, other: Series) -> None:
        for code, count in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + count
        for variant, count in other.variants.items():
            self.variants[variant] = self.variants.get(variant, 0) + count
        for mine, theirs in zip(self.stages, other.stages, strict=True):
            mine[:] = map(sum, zip(mine, theirs, strict=True))
        self.sums_ns = list(map(sum, zip(self.sums_ns, other.sums_ns, strict=True)))
        self.batches = list(map(sum, zip(self.batches, other.batches, strict=True)))
        self.batch_rows += other.batch_rows
        self.in_flight += other.in_flight
        for mine, theirs in zip(self.waits, other.waits, strict=True):
            mine[:] = map(sum, zip(mine, theirs, strict=True))


def _series(model: str, version: int, api: str) -> Series:
    stages = [[0] * _BUCKETS for _ in STAGES]
    waits = [[0] * (len(WAIT_BOUNDS_US) + 1) for _ in WAITS]
    return Series(model, version, api, {}, stages, [0] * len(STAGES), [0] * _BATCH_BUCKETS, 0, 0, waits)


#: When the first byte of a request was seen, when it was read, decoded, back from the model; how long the engine ran; when the
#: answer was encoded, and written (nanoseconds, all but one on the monotonic clock); and the rows of its batch.
Observation = tuple[int, int, int, int, int, int, int, int]


class Recorder:
    """The figures of one model, version and API in this gateway."""

    __slots__ = ("_errors", "_observations", "_series", "in_flight")

    def __init__(self, series: Series) -> None:
        self._series = series
        self._observations: list[Observation] = []
        self._errors = 0
        self.in_flight = 0

    def failed(self, code: str) -> None:
        """Counts a request that ended before it was submitted."""
        codes = self._series.codes
        codes[code] = codes.get(code, 0) + 1

    def ran_as(self, variant: str) -> None:
        """Counts an answer of a version that has several variants."""
        variants = self._series.variants
        variants[variant] = variants.get(variant, 0) + 1

    def finished(self, code: str, observation: Observation) -> None:
        """Counts a request that was in flight."""
        self.in_flight -= 1
        if code != "OK":
            self._errors += 1
            self.failed(code)
        observations = self._observations
        observations.append(observation)
        if len(observations) >= _SORTED_AT_ONCE:
            self._sort()

    def _sort(self) -> None:
        """Sorts what was observed into the buckets."""
        first, read, decoded, back, infer, encoded, written, rows = np.array(self._observations, np.int64).T
        values = np.stack(
            (read - first, decoded - read, back - decoded - infer, infer, encoded - back, written - encoded, rows), 1
        )
        series = self._series
        good = len(self._observations) - self._errors
        if good:
            series.codes["OK"] = series.codes.get("OK", 0) + good
        self._errors = 0
        self._observations.clear()
        waits = np.stack((written - first, infer, back - decoded - infer), 1)
        places = np.searchsorted(_WAIT_BOUNDS_NS, waits, side="right")
        for wait, buckets in enumerate(series.waits):
            counts = np.bincount(places[:, wait], minlength=len(buckets)).tolist()
            series.waits[wait] = list(map(int.__add__, buckets, counts))
        bits = np.frexp(values.astype(np.float64))[1]
        for stage, sums in enumerate(values[:, : len(STAGES)].sum(axis=0).tolist()):
            counts = np.bincount(bits[:, stage], minlength=_BUCKETS)[:_BUCKETS].tolist()
            series.stages[stage] = list(map(int.__add__, series.stages[stage], counts))
            series.sums_ns[stage] += sums
        batches = np.bincount(np.minimum(bits[:, -1], _BATCH_BUCKETS - 1), minlength=_BATCH_BUCKETS).tolist()
        series.batches = list(map(int.__add__, series.batches, batches))
        series.batch_rows += int(values[:, -1].sum())

    def series(self) -> Series:
        """What is known up to now."""
        if self._observations:
            self._sort()
        self._series.in_flight = self.in_flight
        return self._series


#: Series of so many versions and APIs are kept even when they are not served any more.
_MAX_RECORDERS = 1000


class Metrics:
    """All figures of one gateway."""

    def __init__(self) -> None:
        self._recorders: dict[tuple[str, int, str], Recorder] = {}

    def recorder(self, model: str, version: int, api: str) -> Recorder:
        """The recorder of a model that is served; for requests that name none, model "" and version 0."""
        key = (model, version, api)
        recorder = self._recorders.get(key)
        if recorder is None:
            recorder = self._recorders[key] = Recorder(_series(*key))
        return recorder

    def forget(self, model: str, version: int) -> None:
        """A version is not served any more. Its series stay, unless there are very many: names are for clients to choose."""
        if len(self._recorders) > _MAX_RECORDERS:
            for key in [key for key in self._recorders if key[:2] == (model, version)]:
                del self._recorders[key]

    def snapshot(self) -> bytes:
        """All series, to be sent to whoever adds them up."""
        return _encoder.encode([recorder.series() for recorder in self._recorders.values()])


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Series])


@dataclass(frozen=True, slots=True)
class HostFigures:
    """What the supervisor knows of a version's hosts."""

    model: str
    version: int
    restarts: int


@dataclass(frozen=True, slots=True)
class ServableFigures:
    """What a gateway knows of a version: its state, the engine that runs it, and the variant that its plan names."""

    model: str
    version: int
    state: str
    engine: str
    variant: str


@dataclass(frozen=True, slots=True)
class Collected:
    """The figures of the whole server: snapshots of all gateways, restarts by model and version."""

    snapshots: list[bytes]
    restarts: list[tuple[str, int, int]]


#: Asks for the figures of the whole server; the answer comes later.
Collect = Callable[[Callable[[Collected], None]], None]


def merge(snapshots: Iterable[bytes]) -> list[Series]:
    """The sums of several gateways' snapshots."""
    merged: dict[tuple[str, int, str], Series] = {}
    for snapshot in snapshots:
        for series in _decoder.decode(snapshot):
            key = (series.model, series.version, series.api)
            if key in merged:
                merged[key].add(series)
            else:
                merged[key] = series
    return [merged[key] for key in sorted(merged)]


def merged_snapshot(snapshots: Iterable[bytes]) -> bytes:
    """Several snapshots as one; nothing is in flight in it, for gateways that have ended."""
    series = merge(snapshots)
    for one in series:
        one.in_flight = 0
    return _encoder.encode(series)


def exposition(snapshots: Iterable[bytes], hosts: Iterable[HostFigures], states: Iterable[ServableFigures]) -> bytes:
    """The Prometheus text of what all gateways report."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector

    class _Snapshot(Collector):
        def collect(self) -> Iterator[Metric]:
            labels = ["model", "version", "api"]
            requests = CounterMetricFamily("penstock_requests", "Requests by outcome (gRPC code name).", labels=[*labels, "code"])
            flight = GaugeMetricFamily("penstock_requests_in_flight", "Requests under way.", labels=labels)
            stages = HistogramMetricFamily(
                "penstock_stage_seconds",
                "Time of each stage: read (first byte to last), decode, queue (waiting and the way to the model's process "
                "and back), infer (engine), encode, write.",
                labels=[*labels, "stage"],
            )
            variants = CounterMetricFamily(
                "penstock_variant_answers", "Answers by variant, where a version has several.", labels=[*labels, "variant"]
            )
            batches = HistogramMetricFamily("penstock_batch_rows", "Rows of the batch a request was run in.", labels=labels)
            for series in merge(snapshots):
                values = [series.model, str(series.version), series.api]
                for code, count in sorted(series.codes.items()):
                    requests.add_metric([*values, code], count)
                for variant, count in sorted(series.variants.items()):
                    variants.add_metric([*values, variant], count)
                flight.add_metric(values, series.in_flight)
                for stage, counts, total in zip(STAGES, series.stages, series.sums_ns, strict=True):
                    if any(counts):
                        stages.add_metric([*values, stage], _time_buckets(counts), total / 1e9)
                if any(series.batches):
                    batches.add_metric(values, _batch_buckets(series.batches), series.batch_rows)
            restarts = CounterMetricFamily(
                "penstock_host_restarts", "Times a model's process was started again.", labels=["model", "version"]
            )
            for host in hosts:
                restarts.add_metric([host.model, str(host.version)], host.restarts)
            state = GaugeMetricFamily(
                "penstock_model_state", "1 for the state a version is in.", labels=["model", "version", "state"]
            )
            runs = GaugeMetricFamily(
                "penstock_model_info",
                "1 for the engine that runs a version, and the variant that its plan names.",
                labels=["model", "version", "engine", "variant"],
            )
            for one in states:
                state.add_metric([one.model, str(one.version), one.state], 1)
                if one.engine:
                    runs.add_metric([one.model, str(one.version), one.engine, one.variant], 1)
            yield from (requests, flight, stages, batches, variants, restarts, state, runs)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot())
    text: bytes = generate_latest(registry)
    return text


def _time_buckets(counts: list[int]) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    total = sum(counts[:_FIRST_BUCKET])
    for bucket in range(_FIRST_BUCKET, _LAST_BUCKET + 1):
        total += counts[bucket]
        buckets.append((repr((1 << bucket) / 1e9), float(total)))
    buckets.append(("+Inf", float(sum(counts))))
    return buckets


def _batch_buckets(counts: list[int]) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bucket in range(_BATCH_BUCKETS - 1):
        total += counts[bucket]
        if bucket:
            buckets.append((str((1 << bucket) - 1), float(total)))
    buckets.append(("+Inf", float(sum(counts))))
    return buckets
