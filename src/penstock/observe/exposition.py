"""The server's figures as Prometheus takes them, written by its client library.

Importing this module loads that library: a gateway that nobody asks for its metrics does without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.observe.metrics import BATCH_BUCKETS, STAGES, Series, merge

#: Bounds that are exposed: powers of two from 8 µs to 69 s.
_FIRST_BUCKET, _LAST_BUCKET = 13, 36
_VERSION = ["model", "version"]


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


def exposition(snapshots: Iterable[bytes], hosts: Iterable[HostFigures], states: Iterable[ServableFigures]) -> bytes:
    """The text of what all gateways report."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Found([*_of_requests(merge(snapshots)), *_of_versions(hosts, states)]))
    text: bytes = generate_latest(registry)
    return text


class _Found(Collector):
    """What has been found, for a registry."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _of_requests(found: Iterable[Series]) -> Sequence[Metric]:
    labels = [*_VERSION, "api"]
    requests = CounterMetricFamily("penstock_requests", "Requests by outcome (gRPC code name).", labels=[*labels, "code"])
    flight = GaugeMetricFamily("penstock_requests_in_flight", "Requests under way.", labels=labels)
    stages = HistogramMetricFamily(
        "penstock_stage_seconds",
        "Time of each stage: read (first byte to last), decode, queue (waiting and the way to the model's process "
        "and back), infer (engine), encode, write.",
        labels=[*labels, "stage"],
    )
    batches = HistogramMetricFamily("penstock_batch_rows", "Rows of the batch a request was run in.", labels=labels)
    variants = CounterMetricFamily(
        "penstock_variant_answers", "Answers by variant, where a version has several.", labels=[*labels, "variant"]
    )
    for series in found:
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
    return requests, flight, stages, batches, variants


def _of_versions(hosts: Iterable[HostFigures], states: Iterable[ServableFigures]) -> Sequence[Metric]:
    restarts = CounterMetricFamily("penstock_host_restarts", "Times a model's process was started again.", labels=_VERSION)
    for host in hosts:
        restarts.add_metric([host.model, str(host.version)], host.restarts)
    state = GaugeMetricFamily("penstock_model_state", "1 for the state a version is in.", labels=[*_VERSION, "state"])
    runs = GaugeMetricFamily(
        "penstock_model_info",
        "1 for the engine that runs a version, and the variant that its plan names.",
        labels=[*_VERSION, "engine", "variant"],
    )
    for one in states:
        state.add_metric([one.model, str(one.version), one.state], 1)
        if one.engine:
            runs.add_metric([one.model, str(one.version), one.engine, one.variant], 1)
    return restarts, state, runs


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
    for bucket in range(BATCH_BUCKETS - 1):
        total += counts[bucket]
        if bucket:
            buckets.append((str((1 << bucket) - 1), float(total)))
    buckets.append(("+Inf", float(sum(counts))))
    return buckets
