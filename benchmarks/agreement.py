"""`penstock bench` against wrk: the same closed loop on the same server, in turn. Both must find the same.

Both take a core or less from the server that they share the machine with, and not the same part of it: so what they agree on ends
where the machine is full. They take short turns, many of them: a machine that others share is another one a few seconds later.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks import load, models
from benchmarks.results import Results
from benchmarks.servers import PENSTOCK, Running, ServerFailedError, running
from benchmarks.throughput import Launcher, Plan
from benchmarks.works import COMPARED

WORK = "load-generator"
MODEL = "perceptron"
_MAX_TURNS = 8


def measure(command: Sequence[str], launch: Launcher, plan: Plan, results: Results) -> None:
    """Adds, for each round and number of connections, the median of what both found, one first and the other in turn."""
    body = models.body_path(plan.directory, MODEL)
    for _ in range(plan.rounds):
        figures: dict[str, float] = {}
        try:
            with running(launch(PENSTOCK, MODEL)) as server:
                server.wait_for_answer(body.read_bytes())
                by_wrk(server, body, COMPARED[-1], plan.warm_up_s)
                ways: dict[str, Callable[[int, int], dict[str, float]]] = {
                    "wrk": partial(by_wrk, server, body),
                    "bench": partial(by_bench, command, server, body),
                }
                for connections in COMPARED:
                    for name, found in in_turns(ways, connections, plan.seconds).items():
                        figures |= {f"{name}_{connections}_{figure}": value for figure, value in found.items()}
        except (ServerFailedError, RuntimeError) as error:
            results.fail(WORK, PENSTOCK.name, str(error))
            return
        results.add(WORK, figures)


def in_turns(
    ways: Mapping[str, Callable[[int, int], dict[str, float]]], connections: int, seconds: int
) -> dict[str, dict[str, float]]:
    """The median of each figure of each way, over about twice so many seconds for each."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    turns = min(_MAX_TURNS, 2 * seconds)
    for number in range(turns):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(ways[name](connections, max(1, 2 * seconds // turns)))
    return {
        name: {figure: statistics.median(each[figure] for each in turn) for figure in turn[0]} for name, turn in found.items()
    }


def by_wrk(server: Running, body: Path, connections: int, seconds: int) -> dict[str, float]:
    sample = load.drive(server.launch.url, body, connections, seconds)
    if sample.errors:
        raise RuntimeError(f"wrk: {sample.errors} errors")
    return {"rate": sample.rate, "p50_ms": sample.p50_ms, "p99_ms": sample.p99_ms}


def by_bench(command: Sequence[str], server: Running, body: Path, connections: int, seconds: int) -> dict[str, float]:
    """Without a warm-up, as wrk has none."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [*command, "bench", server.launch.url, "--body", str(body), "--connections", str(connections)]
        argv += ["--seconds", str(seconds), "--warm-up", "0", "--out", folder]
        run = subprocess.run(argv, capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(f"penstock bench ended with {run.returncode}: {run.stderr.strip()[-300:]}")
        found = json.loads((Path(folder) / "result.json").read_bytes())
    if found["errors"]:
        raise RuntimeError(f"penstock bench: {found['errors']}")
    histogram = [(round(ms * 1e3), count) for ms, count in found["histogram"]]
    p50_us, p99_us = percentiles_us(corrected(histogram, round(connections / found["rate"] * 1e6)), (50, 99))
    return {"rate": found["rate"], "p50_ms": p50_us / 1e3, "p99_ms": p99_us / 1e3}


def corrected(histogram: Sequence[tuple[int, int]], expected_us: int) -> dict[int, int]:
    """A histogram as wrk corrects its own: a request that took several times as long as they do on average kept others from
    being sent, and each of those is counted with what it would have waited."""
    counts = dict(histogram)
    for latency_us, count in histogram:
        missed_us = latency_us - expected_us
        while missed_us > expected_us:
            counts[missed_us] = counts.get(missed_us, 0) + count
            missed_us -= expected_us
    return counts


def percentiles_us(counts: dict[int, int], wanted: Sequence[float]) -> list[int]:
    whole, found, gone = sum(counts.values()), [], 0
    left = sorted(wanted)
    for latency_us in sorted(counts):
        gone += counts[latency_us]
        while left and gone >= whole * left[0] / 100:
            found.append(latency_us)
            left.pop(0)
    return found
