"""What TensorFlow Serving's dashboards ask for, in its words."""

from __future__ import annotations

import re

from penstock.observe.metrics import Metrics
from penstock.observe.model_server_metrics import model_server_exposition

_US = 1000


def _snapshot(*requests: tuple[str, str, int, int]) -> bytes:
    """Requests as model, API, and the µs that they and their runs took."""
    metrics = Metrics()
    for model, api, whole, infer in requests:
        recorder = metrics.recorder(model, 1, api)
        recorder.in_flight += 1
        recorder.finished("OK", (0, 0, 0, whole * _US, infer * _US, whole * _US, whole * _US, 1))
    metrics.recorder("", 0, "tfs_rest:predict").failed("NOT_FOUND")
    return metrics.snapshot()


def _values(text: bytes) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(:\S+) (\S+)$", text.decode(), re.M)}


def test_requests_are_counted_by_model_and_outcome() -> None:
    snapshots = [_snapshot(("m", "tfs_rest:predict", 50, 20)), _snapshot(("m", "tfs_grpc:predict", 50, 20))]
    found = _values(model_server_exposition(snapshots))
    assert found[':tensorflow:serving:request_count{model_name="m",status="OK"}'] == 2
    assert found[':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"}'] == 2


def test_latencies_have_its_labels_and_buckets() -> None:
    text = model_server_exposition([_snapshot(("m", "tfs_rest:predict", 50, 20), ("m", "tfs_grpc:predict", 9, 5))])
    found = _values(text)
    rest = 'model_name="m",API="predict",entrypoint="REST"'
    name = ":tensorflow:serving:request_latency"
    buckets = [found[f'{name}_bucket{{{rest},le="{bound}"}}'] for bound in ("10", "18", "32.4", "58.32", "708235", "+Inf")]
    assert buckets == [0, 0, 0, 1, 1, 1]
    assert (found[f"{name}_count{{{rest}}}"], found[f"{name}_sum{{{rest}}}"]) == (1, 50)
    grpc = 'model_name="m",API="Predict",entrypoint="GRPC"'
    assert found[f'{name}_bucket{{{grpc},le="10"}}'] == 1
    runtime = ':tensorflow:serving:runtime_latency_sum{model_name="m",API="Predict",runtime="TF1"}'
    assert found[runtime] == 25
    assert found[':tensorflow:serving:batching_session:queuing_latency_sum{thread_pool_name="model_server_batch_threads"}'] == 34


def test_other_apis_count_as_requests_and_have_no_latency_of_its_kind() -> None:
    found = _values(model_server_exposition([_snapshot(("m", "sagemaker", 50, 20))]))
    assert found[':tensorflow:serving:request_count{model_name="m",status="OK"}'] == 1
    assert not [name for name in found if "request_latency" in name]


def test_names_are_escaped() -> None:
    text = model_server_exposition([_snapshot(('a"b\\c\n', "tfs_rest:predict", 1, 1))]).decode()
    assert 'model_name="a\\"b\\\\c\\n"' in text


def test_nothing_has_happened_yet() -> None:
    assert ":tensorflow:serving:request_count" in model_server_exposition([Metrics().snapshot()]).decode()
