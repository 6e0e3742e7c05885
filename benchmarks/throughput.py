"""The works that wrk drives: rounds in turn (A B C A B C …), one server alive at a time, answers checked around each.

A contender that fails is dropped with its reason and the others go on.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import load, models
from benchmarks.results import Results
from benchmarks.servers import GATEWAYS, Contender, Launch, Running, ServerFailedError, running
from benchmarks.works import Load

TOLERANCE = 1e-4
# Where a script rounds to four digits, the last one may be another.
ROUNDED_TOLERANCE = 3e-4

Launcher = Callable[[Contender, str], Launch]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all contenders get alike."""

    directory: Path
    rounds: int
    seconds: int
    warm_up_s: int

    @property
    def settings(self) -> dict[str, int]:
        """What the report says of it."""
        return {"rounds": self.rounds, "seconds": self.seconds, "warm_up_s": self.warm_up_s, "gateways": GATEWAYS}


def measure(loads: Sequence[Load], contenders: Sequence[Contender], launch: Launcher, plan: Plan, results: Results) -> None:
    """Adds a sample per load, contender and round. Loads of one model share a server's life, to start it less often."""
    for model in dict.fromkeys(each.model for each in loads):
        mine = [each for each in loads if each.model == model]
        able = [each for each in contenders if model in each.models]
        for number in range(plan.rounds):
            for contender in able:
                if any(contender.name in results.failures.get(each.name, {}) for each in mine):
                    continue
                print(f"{model}, round {number + 1} of {plan.rounds}: {contender.title}", flush=True)
                visit(mine, contender, launch(contender, model), plan, results)


def visit(loads: Sequence[Load], contender: Contender, launch: Launch, plan: Plan, results: Results) -> None:
    """One life of one server: every load once."""
    model = loads[0].model
    body = models.body_path(plan.directory, model)
    expected = models.expected_path(plan.directory, model)
    tolerance = ROUNDED_TOLERANCE if model in models.SCRIPTED else TOLERANCE
    try:
        with running(launch) as server:
            server.wait_for_answer(body.read_bytes())
            check(server, body, expected, tolerance)
            for each in loads:
                load.drive(launch.url, body, each.connections, plan.warm_up_s, launch.content_type)
                sample = under_load(server, body, each.connections, plan.seconds)
                results.samples.setdefault(each.name, {}).setdefault(contender.name, []).append(sample)
                print(f"  {each.name}: {describe(sample)}", flush=True)
            check(server, body, expected, tolerance)
    except (ServerFailedError, RuntimeError) as error:
        for each in loads:
            results.fail(each.name, contender.name, str(error))


def under_load(server: Running, body: Path, connections: int, seconds: int) -> load.Sample:
    """One run of wrk, with what it cost the server's processes."""
    before = server.cpu_s()
    launch = server.launch
    sample = load.drive(launch.url, body, connections, seconds, launch.content_type, field=launch.field)
    cpu_s = server.cpu_s() - before
    if not sample.requests:
        raise ServerFailedError(f"no answer within {seconds} s at {connections} connections")
    return dataclasses.replace(sample, cpu_us=cpu_s / sample.requests * 1e6)


def check(server: Running, body: Path, expected: Path, tolerance: float = TOLERANCE) -> None:
    """Raises ServerFailedError unless the server answers what TensorFlow itself answers."""
    launch = server.launch
    try:
        status, answer = load.ask(launch.port, launch.path, body.read_bytes(), load.TIMEOUT_S, launch.content_type)
    except (OSError, http.client.HTTPException) as error:
        raise ServerFailedError(f"no answer: {error}") from error
    if status != 200:
        raise ServerFailedError(f"status {status}: {answer[:200].decode(errors='replace')}")
    try:
        deviation = load.difference(answer, json.loads(expected.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise ServerFailedError(f"no predictions in the answer: {answer[:200].decode(errors='replace')}") from error
    if not deviation <= tolerance:
        raise ServerFailedError(f"wrong answer: off by {deviation:.1e} of the largest number, {tolerance:g} allowed")


def describe(sample: load.Sample) -> str:
    errors = f", {sample.errors} ERRORS" if sample.errors else ""
    return (
        f"{sample.rate:,.1f} requests/s, p50 {sample.p50_ms:.2f} ms, p99 {sample.p99_ms:.2f} ms, "
        f"CPU {sample.cpu_us or 0:,.0f} µs{errors}"
    )
