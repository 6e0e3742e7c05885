"""What gateways counted is added up, and reads as Prometheus text."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from penstock.observe.exposition import HostFigures, ServableFigures, exposition
from penstock.observe.metrics import Metrics, Observation, merge, merged_snapshot

_DURATIONS = (1_000, 20_000, 300_000, 4_000_000, 50_000_000, 600_000_000)


def _gateway(requests: int, *, in_flight: int = 0) -> Metrics:
    metrics = Metrics()
    recorder = metrics.recorder("m", 1, "tfs_rest:predict")
    recorder.in_flight = requests + in_flight
    for _ in range(requests):
        recorder.finished("OK", _observation())
    metrics.recorder("", 0, "tfs_rest:predict").failed("NOT_FOUND")
    return metrics


def _observation() -> Observation:
    """A request whose stages took _DURATIONS, in a batch of four rows."""
    read, decode, queue, infer, encode, write = _DURATIONS
    back = read + decode + queue + infer
    return (0, read, read + decode, back, infer, back + encode, back + encode + write, 4)


def _samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_the_figures_of_all_gateways_are_added_up() -> None:
    text = exposition(
        [_gateway(3).snapshot(), _gateway(4, in_flight=2).snapshot()],
        [HostFigures("m", 1, 5)],
        [ServableFigures("m", 1, "AVAILABLE", "onnxruntime", "onnxruntime-fp32")],
    )
    samples = _samples(text)
    labels = (("api", "tfs_rest:predict"), ("model", "m"), ("version", "1"))
    assert samples["penstock_requests_total", tuple(sorted((*labels, ("code", "OK"))))] == 7
    assert samples["penstock_requests_in_flight", labels] == 2
    assert samples["penstock_batch_rows_sum", labels] == 28
    infer = tuple(sorted((*labels, ("stage", "infer"))))
    assert samples["penstock_stage_seconds_count", infer] == 7
    assert abs(samples["penstock_stage_seconds_sum", infer] - 0.028) < 1e-9
    assert samples["penstock_host_restarts_total", (("model", "m"), ("version", "1"))] == 5
    assert samples["penstock_model_state", (("model", "m"), ("state", "AVAILABLE"), ("version", "1"))] == 1
    nobody = (("api", "tfs_rest:predict"), ("code", "NOT_FOUND"), ("model", ""), ("version", "0"))
    assert samples["penstock_requests_total", nobody] == 2


def test_thousands_of_requests_are_all_counted() -> None:
    (series,) = [one for one in merge([_gateway(2000).snapshot()]) if one.model == "m"]
    assert [sum(counts) for counts in series.stages] == [2000] * 6
    assert series.sums_ns == [2000 * duration for duration in _DURATIONS]
    assert (sum(series.batches), series.batch_rows) == (2000, 8000)


def test_requests_that_failed_behind_the_model_are_counted_by_their_code() -> None:
    metrics = Metrics()
    recorder = metrics.recorder("m", 1, "api")
    for code in ("OK", "UNAVAILABLE", "OK", "INTERNAL", "OK"):
        recorder.in_flight += 1
        recorder.finished(code, _observation())
    (series,) = merge([metrics.snapshot()])
    assert series.codes == {"OK": 3, "UNAVAILABLE": 1, "INTERNAL": 1}
    assert series.in_flight == 0


def test_buckets_are_cumulative_and_hold_every_duration() -> None:
    samples = _samples(exposition([_gateway(3).snapshot()], [], []))
    for stage, duration in zip(("read", "decode", "queue", "infer", "encode", "write"), _DURATIONS, strict=True):
        buckets = sorted(
            (float(dict(labels)["le"]), value)
            for (name, labels), value in samples.items()
            if name == "penstock_stage_seconds_bucket" and dict(labels)["stage"] == stage
        )
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert all(value == (3 if bound >= 2 * duration / 1e9 else value) for bound, value in buckets)
        assert all(value == 0 for bound, value in buckets if bound < duration / 1e9)
        assert buckets[-1] == (float("inf"), 3.0)


def test_a_gateway_that_ended_leaves_its_counts_and_nothing_in_flight() -> None:
    merged = merge([merged_snapshot([_gateway(3, in_flight=2).snapshot()])])
    series = next(one for one in merged if one.model == "m")
    assert series.codes == {"OK": 3}
    assert series.in_flight == 0
