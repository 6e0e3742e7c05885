"""The p99 of well-behaved Predict calls while others of the gateway's clients misbehave, and what that costs it of memory.

The perceptron gets a steady load, well below what it can take, on connections of its own. Its process, the gateway and h2load
have one core, those who misbehave another: measured is what they do to others through the server, and not who gets a core.
Assumes Linux, and two cores.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import bad_clients, calls, messages
from benchmarks.grpc_predict import answer, row
from benchmarks.load import Sample
from benchmarks.memory import unique_mb
from benchmarks.neighbour import own_core, pin
from benchmarks.results import Results
from benchmarks.servers import Launch, Running, ServerFailedError, free_port, running
from benchmarks.throughput import TOLERANCE, Plan

WORK = "grpc-neighbours"
MODEL = "perceptron"
OTHER = "half_plus_two"
CONNECTIONS = 2
#: Calls per second of each connection.
PACE = 500
IDLE, SLOW, RESETS = 1000, 200, 10_000
#: Of the message that slow clients send or get back, so that it fits into the window that a connection begins with.
SLOW_MESSAGE_BYTES = 60_000
#: Pairs of an undisturbed and a disturbed measurement of each kind, for each round of the plan.
PAIRS = 4
#: What the test opens itself, beside the connections.
OTHER_FILES = 200

Disturbance = Callable[[int, float], AbstractContextManager[Any]]


def disturbances() -> dict[str, Disturbance]:
    """By the beginning of their figures' names; each for a port and the seconds of the measurement."""
    call = messages.predict(OTHER, np.zeros(SLOW_MESSAGE_BYTES // 4, np.float32), as_content=True)
    return {
        "slow_reader": lambda port, seconds: bad_clients.slow_readers(port, SLOW, call),
        "slow_writer": lambda port, seconds: bad_clients.slow_writers(port, SLOW, call),
        "idle": lambda port, seconds: bad_clients.idle(port, IDLE),
        "reset": lambda port, seconds: bad_clients.resets(port, RESETS, call, 0.9 * seconds),
        "burst": lambda port, seconds: bad_clients.resets(port, RESETS, call, 0),
    }


def measure(server_command: Sequence[str], plan: Plan, results: Results) -> None:
    """Adds the figures of each kind; of each pair the undisturbed and the disturbed measurement first in turn."""
    try:
        with own_core() as core, enough_files(), tempfile.TemporaryDirectory() as folder:
            for figures in pairs(server_command, Path(folder), core, plan):
                results.add(WORK, figures)
    except (ServerFailedError, RuntimeError, OSError, psutil.Error) as error:
        results.fail(WORK, "penstock", str(error) or type(error).__name__)


@contextmanager
def enough_files() -> Iterator[None]:
    """As many open files as the idle connections need. Raises ServerFailedError where the system does not allow them."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = IDLE + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ServerFailedError(f"{needed} open files are needed, and {hard} allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft if soft == resource.RLIM_INFINITY else max(soft, needed), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def pairs(server_command: Sequence[str], folder: Path, core: int, plan: Plan) -> Iterator[dict[str, float]]:
    port = free_port()
    served = [part for name in (MODEL, OTHER) for part in ("--model", f"{name}={plan.directory / name}")]
    launch = Launch([*server_command, "serve", *served, "--gateways", "1", "--port", str(port)], port, "/")
    call = messages.predict(MODEL, row(plan.directory), as_content=False)
    expected, body = answer(plan.directory), call.write(folder / "predict")
    url = launch.at(call.method)
    with running(launch) as server:
        calls.wait_for_answer(server, call)
        pin(server, ("gateway", f"host {MODEL}"), core)
        size = calls.check(server, call, expected, TOLERANCE)

        def load(seconds: int) -> Sample:
            sample = calls.drive(url, body, size, CONNECTIONS, 1, seconds, PACE, core)
            if sample.errors:
                raise ServerFailedError(f"{sample.errors} errors in {sample.requests} calls")
            return sample

        load(plan.warm_up_s)
        at_first_mb = gateway_mb(server)
        for number in range(PAIRS * plan.rounds):
            for name, disturbance in disturbances().items():
                figures = pair(server, name, disturbance, load, plan.seconds, disturbed_first=number % 2 == 1)
                figures[f"{name}_mb"] -= at_first_mb
                yield figures
                calls.check(server, call, expected, TOLERANCE)


def pair(
    server: Running,
    name: str,
    disturbance: Disturbance,
    load: Callable[[int], Sample],
    seconds: int,
    *,
    disturbed_first: bool,
) -> dict[str, float]:
    """The figures of both measurements; the megabytes are all that the gateway has."""
    figures: dict[str, float] = {}
    for is_disturbed in (True, False) if disturbed_first else (False, True):
        if not is_disturbed:
            figures[f"{name}_undisturbed_p99_ms"] = load(seconds).p99_ms
            continue
        with disturbance(server.launch.port, seconds) as done:
            sample = load(seconds)
            figures |= {f"{name}_p99_ms": sample.p99_ms, f"{name}_max_ms": sample.max_ms}
            figures[f"{name}_mb"] = gateway_mb(server)
        if name in ("reset", "burst"):
            figures |= {f"{name}_streams": done[0], f"{name}_connections": done[1]}
    return figures


def gateway_mb(server: Running) -> float:
    """The unique memory of the only gateway, once what has just ended is settled."""
    time.sleep(0.2)
    (found,) = [each for each in server.processes() if " ".join(each.cmdline()).startswith("penstock: gateway")]
    return unique_mb(found)
