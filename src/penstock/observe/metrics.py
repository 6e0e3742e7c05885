"""Counts and times of requests, kept by each gateway and added up when somebody asks.

The hot path appends a tuple to a list (0.1 µs a request); hundreds at a time are sorted into buckets, at 0.2 µs each, where
the client library's histograms take 12. A bucket is the bit length of the nanoseconds.
Labels are names of models that are served, their versions, the API: what a client merely asks for never becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import numpy as np

#: The stages of a request, in the order of its life.
STAGES = ("read", "decode", "queue", "infer", "encode", "write")
_BUCKETS = 48
BATCH_BUCKETS = 16
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
    return Series(model, version, api, {}, stages, [0] * len(STAGES), [0] * BATCH_BUCKETS, 0, 0, waits)


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
        batches = np.bincount(np.minimum(bits[:, -1], BATCH_BUCKETS - 1), minlength=BATCH_BUCKETS).tolist()
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
        """The recorder of a model that is served.

        Version 0 is for requests of which no version was found, and model "" for those that name none.
        """
        key = (model, version, api)
        recorder = self._recorders.get(key)
        if recorder is None:
            recorder = self._recorders[key] = Recorder(_series(*key))
        return recorder

    def forget(self, model: str, version: int) -> None:
        """A version is not served any more. Its series stay, unless there are very many: names are for clients to choose."""
        if len(self._recorders) > _MAX_RECORDERS:
            for key in [key for key in self._recorders if key[:2] in ((model, version), (model, 0))]:
                del self._recorders[key]

    def snapshot(self) -> bytes:
        """All series, to be sent to whoever adds them up."""
        return _encoder.encode([recorder.series() for recorder in self._recorders.values()])


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Series])


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
