"""Driving a server with wrk, and asking it one question as a client would.

Guarantees the same script, body, connections and seconds for whatever it is pointed at; counts every answer above 399
and every broken connection. Assumes `wrk` on the PATH (see `require_wrk`).
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
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


def wrk_command(url: str, body: Path, connections: int, seconds: int) -> list[str]:
    """One thread: it drives far more than any server here answers, and leaves the cores to the server."""
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
    return ["wrk", *size, "--script", str(SCRIPT), url, "--", str(body), "application/json"]


def drive(url: str, body: Path, connections: int, seconds: int) -> Sample:
    """Runs wrk once."""
    run = subprocess.run(wrk_command(url, body, connections, seconds), capture_output=True, text=True, check=False)
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


def ask(port: int, path: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
    """One POST of a JSON body on a connection of its own: status and answer. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def difference(answer: bytes, expected: dict[str, Any]) -> float:
    """The largest deviation of the predictions from the expected ones, as a share of the largest expected number."""
    import numpy as np

    got = np.asarray(json.loads(answer)["predictions"], np.float64)
    want = np.asarray(expected["predictions"], np.float64)
    if got.shape != want.shape:
        return float("inf")
    return float(np.max(np.abs(got - want)) / np.max(np.abs(want)))
