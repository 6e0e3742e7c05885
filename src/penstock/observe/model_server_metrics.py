"""Metrics with TensorFlow Serving's names, labels and buckets (contract §6), for dashboards that were made for it.

The names begin with a colon, which Prometheus takes and its client library refuses: the text is written here. Labels are names
of models that are served, as in our own metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from penstock.observe.metrics import STAGES, WAIT_BOUNDS_US, WAITS, Series, merge

_PREFIX = ":tensorflow:serving:"
#: Our names of the two APIs, and how its labels call them.
_ENTRY_POINTS = {"tfs_rest": "REST", "tfs_grpc": "GRPC"}
_THREAD_POOL = "model_server_batch_threads"
_STAGE_OF_WAIT = {"infer": STAGES.index("infer"), "queue": STAGES.index("queue")}

Labels = tuple[tuple[str, str], ...]


def model_server_exposition(snapshots: Iterable[bytes]) -> bytes:
    """The Prometheus text of what all gateways report."""
    series = merge(snapshots)
    lines = [*_request_counts(series), *_request_latencies(series), *_runtime_latencies(series), *_queuing_latencies(series)]
    return "".join(f"{line}\n" for line in lines).encode()


def _request_counts(series: Iterable[Series]) -> Iterator[str]:
    """Of every API: a client that came another way is a client of the model too."""
    counts: dict[Labels, int] = {}
    for one in series:
        for code, count in one.codes.items():
            labels: Labels = (("model_name", one.model), ("status", code))
            counts[labels] = counts.get(labels, 0) + count
    name = f"{_PREFIX}request_count"
    yield f"# TYPE {name} counter"
    for labels, count in sorted(counts.items()):
        yield f"{name}{_written(labels)} {count}"


def _request_latencies(series: Iterable[Series]) -> Iterator[str]:
    found = _Histograms("request")
    for one in series:
        api, _, verb = one.api.partition(":")
        if api in _ENTRY_POINTS and one.model:
            shown = verb if api == "tfs_rest" else _rpc_name(verb)
            found.add((("model_name", one.model), ("API", shown), ("entrypoint", _ENTRY_POINTS[api])), one)
    return found.lines(f"{_PREFIX}request_latency")


def _runtime_latencies(series: Iterable[Series]) -> Iterator[str]:
    found = _Histograms("infer")
    for one in series:
        api, _, verb = one.api.partition(":")
        if api in _ENTRY_POINTS and one.model:
            found.add((("model_name", one.model), ("API", _rpc_name(verb)), ("runtime", "TF1")), one)
    return found.lines(f"{_PREFIX}runtime_latency")


def _queuing_latencies(series: Iterable[Series]) -> Iterator[str]:
    found = _Histograms("queue")
    for one in series:
        if one.model:
            found.add((("thread_pool_name", _THREAD_POOL),), one)
    return found.lines(f"{_PREFIX}batching_session:queuing_latency")


class _Histograms:
    """One of the waits, added up by labels."""

    def __init__(self, wait: str) -> None:
        self._wait = WAITS.index(wait)
        self._stage = _STAGE_OF_WAIT.get(wait)
        self._counts: dict[Labels, list[int]] = {}
        self._sums_ns: dict[Labels, int] = {}

    def add(self, labels: Labels, series: Series) -> None:
        """A series that counts under these labels; one in which nothing has happened is passed over."""
        counts = series.waits[self._wait]
        if not any(counts):
            return
        before = self._counts.get(labels, [0] * len(counts))
        self._counts[labels] = list(map(int.__add__, before, counts))
        sum_ns = sum(series.sums_ns) if self._stage is None else series.sums_ns[self._stage]
        self._sums_ns[labels] = self._sums_ns.get(labels, 0) + sum_ns

    def lines(self, name: str) -> Iterator[str]:
        """The text, in microseconds."""
        yield f"# TYPE {name} histogram"
        for labels, counts in sorted(self._counts.items()):
            totals = list(accumulate(counts))
            bounds = [*(f"{bound:g}" for bound in WAIT_BOUNDS_US), "+Inf"]
            for bound, total in zip(bounds, totals, strict=True):
                yield f"{name}_bucket{_written((*labels, ('le', bound)))} {total}"
            yield f"{name}_sum{_written(labels)} {self._sums_ns[labels] / 1000:.3f}"
            yield f"{name}_count{_written(labels)} {totals[-1]}"


def _rpc_name(verb: str) -> str:
    """`multi_inference` and `MultiInference` → `MultiInference`."""
    return "".join(part[:1].upper() + part[1:] for part in verb.split("_"))


_ESCAPED: Mapping[int, str] = {ord("\\"): r"\\", ord('"'): r"\"", ord("\n"): r"\n"}


def _written(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in labels) + "}"
