"""Driving a server with wrk, and asking it one question as a client would.

Guarantees the same script, body, connections and seconds for whatever it is pointed at; counts every answer above 399
and every broken connection. Assumes `wrk` on the PATH (see `require_wrk`).
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("post.lua")
# Longer than any peer takes for a request that is queued behind 63 others: a slow answer is a figure, not an error.
TIMEOUT_S = 60


@dataclass(frozen=True)
class Sample:
    """One run of wrk; latencies in milliseconds. cpu_us is the CPU time of all the server's processes per request."""

    requests: int
    seconds: float
    rate: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    failed_answers: int
    broken_connections: int
    cpu_us: float | None = None

    @property
    def errors(self) -> int:
        return self.failed_answers + self.broken_connections


class NoLoadGeneratorError(Exception):
    """wrk is not installed."""


def require_wrk() -> str:
    """wrk's version, or NoLoadGeneratorError with what to do."""
    if shutil.which("wrk") is None:
        raise NoLoadGeneratorError("wrk is not installed: `apt install wrk` (Debian, Ubuntu) or `brew install wrk`")
    # wrk prints its version with its usage and exits with 1.
    told = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout
    return told.split(" Copyright")[0].split("[")[0].strip()


@dataclass(frozen=True)
class Pace:
    """Less than all that a server can take: a pause after each answer on a connection, wrk on one core."""

    pause_ms: int
    core: int


def wrk_command(
    url: str,
    body: Path,
    connections: int,
    seconds: int,
    content_type: str = "application/json",
    pace: Pace | None = None,
    field: str = "",
) -> list[str]:
    """One thread: it drives far more than any server here answers, and leaves the cores to the server.

    field: one more of the requests, `name:value`; not together with a pace.
    """
    size = [
        "--threads",
        "1",
        "--connections",
        str(connections),
        "--duration",
        f"{seconds}s",
        "--timeout",
        f"{TIMEOUT_S}s",
    ]
    command = ["wrk", *size, "--script", str(SCRIPT), url, "--", str(body), content_type, *([field] if field else [])]
    return ["taskset", "--cpu-list", str(pace.core), *command, str(pace.pause_ms)] if pace else command


def drive(
    url: str,
    body: Path,
    connections: int,
    seconds: int,
    content_type: str = "application/json",
    pace: Pace | None = None,
    field: str = "",
) -> Sample:
    """Runs wrk once."""
    command = wrk_command(url, body, connections, seconds, content_type, pace, field)
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"wrk ended with {run.returncode}: {(run.stderr or run.stdout).strip()[-500:]}")
    return parse(run.stdout)


def parse(output: str) -> Sample:
    """The sample in what wrk and our script printed."""
    (line,) = [line for line in output.splitlines() if line.startswith("{")]
    told: dict[str, int] = json.loads(line)
    seconds = told["duration_us"] / 1e6
    return Sample(
        requests=told["requests"],
        seconds=seconds,
        rate=told["requests"] / seconds,
        p50_ms=told["p50_us"] / 1e3,
        p90_ms=told["p90_us"] / 1e3,
        p99_ms=told["p99_us"] / 1e3,
        max_ms=told["max_us"] / 1e3,
        failed_answers=told["status"],
        broken_connections=told["connect"] + told["read"] + told["write"] + told["timeout"],
    )


def ask(
    port: int,
    path: str,
    body: bytes,
    timeout_s: float,
    content_type: str = "application/json",
    method: str = "POST",
    field: str = "",
) -> tuple[int, bytes]:
    """One request on a connection of its own, with one more field `name:value`: status and answer.

    Raises OSError or HTTPException.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    fields = dict([field.split(":", 1)] if field else [])
    try:
        connection.request(method, path, body, {"Content-Type": content_type} | fields)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def difference(answer: bytes, expected: Any) -> float:
    """The largest deviation of an answer's numbers, as a share of the largest expected one; infinite where all else differs."""
    import numpy as np

    got = json.loads(answer)
    if _without_numbers(got) != _without_numbers(expected):
        return float("inf")
    given, due = np.fromiter(_numbers(got), np.float64), np.fromiter(_numbers(expected), np.float64)
    return float(np.max(np.abs(given - due)) / np.max(np.abs(due)))


def _numbers(document: Any) -> Iterator[float]:
    """Every number of a JSON document, in its order; keys in theirs."""
    if isinstance(document, dict):
        document = [document[key] for key in sorted(document)]
    if isinstance(document, list):
        for item in document:
            yield from _numbers(item)
    elif isinstance(document, int | float):
        yield float(document)


def _without_numbers(document: Any) -> Any:
    """The document with 0 for every number: its shape, keys and texts."""
    if isinstance(document, dict):
        return {key: _without_numbers(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_without_numbers(item) for item in document]
    return 0 if isinstance(document, int | float) else document
