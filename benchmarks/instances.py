"""Two instances of MobileNetV2 against one, each with one intra-op thread, under 4, 8 and 16 connections.

The image is posted as `.npy`, so that the model is what is measured; under 8 connections, four for each of the two, also as JSON,
of which the gateway has 3 MB to decode. The bar is for 8 and `.npy`, which is measured the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks import load, models
from benchmarks.results import Results
from benchmarks.servers import Launch, Running, ServerFailedError, free_port, running
from benchmarks.throughput import Plan, check

WORK = "instances"
MODEL = "mobilenet"
NPY = "application/x-npy"
CONNECTIONS = 8
FEWER_AND_MORE = (4, 16)
COUNTS = {"one": 1, "two": 2}
TRIES = 10


def measure(server_command: Sequence[str], plan: Plan, results: Results) -> None:
    """Adds the requests per second of each number of instances and each kind of body, per round."""
    for number in range(plan.rounds):
        figures: dict[str, float] = {}
        for name in COUNTS if number % 2 == 0 else reversed(COUNTS):
            try:
                figures |= rates(server_command, name, plan)
            except (ServerFailedError, RuntimeError) as error:
                results.fail(WORK, "penstock", f"{name}: {error}")
                return
        results.add(WORK, figures)


def rates(server_command: Sequence[str], name: str, plan: Plan) -> dict[str, float]:
    """One life of one server."""
    port, count = free_port(), COUNTS[name]
    options = ["--intra-op", "1", "--instances", str(count), "--port", str(port)]
    argv = [*server_command, "serve", str(plan.directory / MODEL), *options]
    npy, json = models.npy_path(plan.directory, MODEL), models.body_path(plan.directory, MODEL)
    expected = models.expected_path(plan.directory, MODEL)
    binary = Launch(argv, port, "/invocations", content_type=NPY)
    with running(binary) as server:
        server.wait_for_answer(npy.read_bytes())
        check(server, npy, expected)
        warm_up(server, npy, count, plan)
        url, short = f"http://127.0.0.1:{port}/v1/models/{MODEL}:predict", max(1, plan.seconds // 2)
        figures = {f"{name}_npy_rate": errorless(load.drive(binary.url, npy, CONNECTIONS, plan.seconds, NPY))}
        for connections in FEWER_AND_MORE:
            figures[f"{name}_npy_{connections}_rate"] = errorless(load.drive(binary.url, npy, connections, short, NPY))
        figures[f"{name}_json_rate"] = errorless(load.drive(url, json, CONNECTIONS, short))
        check(server, npy, expected)
    return figures


def warm_up(server: Running, body: Path, count: int, plan: Plan) -> None:
    """Until every instance takes part: the first answer may come before the second has loaded. Raises ServerFailedError."""
    at_work = 0
    for _ in range(TRIES):
        before = hosts_cpu_s(server)
        load.drive(server.launch.url, body, CONNECTIONS, plan.warm_up_s, NPY)
        after = hosts_cpu_s(server)
        at_work = sum(after[pid] - before.get(pid, 0.0) > plan.warm_up_s / 10 for pid in after)
        if at_work == count and len(before) == count:
            return
    raise ServerFailedError(f"{at_work} of {count} instances take part")


def hosts_cpu_s(server: Running) -> dict[int, float]:
    """CPU seconds of each of the model's processes."""
    found: dict[int, float] = {}
    for process in server.processes():
        try:
            if " ".join(process.cmdline()).startswith("penstock: host"):
                found[process.pid] = sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return found


def errorless(sample: load.Sample) -> float:
    """The rate. Raises ServerFailedError where a request failed."""
    if sample.errors or not sample.requests:
        raise ServerFailedError(f"{sample.errors} errors in {sample.requests} requests")
    return sample.rate
