"""What a load came to, as it is kept: JSON that another run is compared with."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.errors import UsageError

#: The percentiles that results give.
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds. `percentiles` by their number as text ("99.9")."""

    mean: float
    low: float
    high: float
    percentiles: dict[str, float]

    @property
    def p50(self) -> float:
        return self.percentiles["50"]

    @property
    def p99(self) -> float:
        return self.percentiles["99"]


class Second(msgspec.Struct, frozen=True):
    """One second of a run: answers, and milliseconds, 0 where nothing was answered."""

    requests: int
    p50: float
    p99: float


class Server(msgspec.Struct, frozen=True):
    """What the load cost all of the server's processes. `stages_us`: the server's own account of one request, by stage."""

    cpu_us_per_request: float
    cores: float
    memory_bytes: int
    processes: int
    stages_us: dict[str, float]


class Client(msgspec.Struct, frozen=True):
    """The load generator itself: the share of a core that it took, and how late it sent in an open loop, in milliseconds."""

    core_share: float
    lag_p99: float
    limit: str = ""


class Load(msgspec.Struct, frozen=True):
    """What was asked of the server. `rate` is empty for a closed loop."""

    connections: int
    streams: int
    seconds: float
    warm_up_s: float
    rate: str
    arrivals: str
    bodies: list[str]
    request_bytes: int


class Result(msgspec.Struct, frozen=True):
    """One run. `offered` are requests due per second in an open loop, 0 in a closed one.

    `histogram` has how often each latency came, in milliseconds with three digits: runs can be put together, and other
    percentiles be found.
    """

    url: str
    date: str
    penstock: str
    load: Load
    requests: int
    rate: float
    offered: float
    errors: dict[str, int]
    example: str
    waited: int
    latency: Latency | None
    histogram: list[tuple[float, int]]
    by_body: dict[str, Latency]
    seconds: list[Second]
    client: Client
    server: Server | None
    version: int = 1

    @property
    def error_share(self) -> float:
        failed = sum(self.errors.values())
        return failed / (self.requests + failed) if failed else 0.0


def latency_of(latencies_ms: npt.NDArray[np.float64]) -> Latency | None:
    """None where there are none."""
    if not latencies_ms.size:
        return None
    found = np.percentile(latencies_ms, PERCENTILES)
    percentiles = {f"{number:g}": float(value) for number, value in zip(PERCENTILES, found, strict=True)}
    return Latency(float(latencies_ms.mean()), float(latencies_ms.min()), float(latencies_ms.max()), percentiles)


def histogram_of(latencies_ms: npt.NDArray[np.float64]) -> list[tuple[float, int]]:
    """Latencies with three digits that count, and how often each came."""
    scale = 10.0 ** (np.floor(np.log10(np.maximum(latencies_ms, 1e-6))) - 2)
    values, counts = np.unique(np.round(latencies_ms / scale) * scale, return_counts=True)
    return [(float(f"{value:.3g}"), int(count)) for value, count in zip(values, counts, strict=True)]


def second_of(latencies_ms: npt.NDArray[np.float64]) -> Second:
    if not latencies_ms.size:
        return Second(0, 0.0, 0.0)
    p50, p99 = np.percentile(latencies_ms, (50, 99))
    return Second(int(latencies_ms.size), float(p50), float(p99))


def write_result(path: Path, result: Result) -> None:
    """Raises UsageError where the file cannot be written."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def read_result(path: Path) -> Result:
    """Raises UsageError for what is no result."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: is no result of penstock bench: {error}") from None
