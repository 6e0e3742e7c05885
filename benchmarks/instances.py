"""Two instances of MobileNetV2 against one, each with one intra-op thread, under 4, 8 and 16 connections.

The image is posted as `.npy`, so that the model is what is measured; under 8 connections, four for each of the two, also as JSON,
of which the gateway has 3 MB to decode. The bar is for 8 and `.npy`, which is measured twice in each round. Both servers are
there all the time and are asked in turn, so that what the machine does meanwhile befalls both; one that nobody asks is idle.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
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
TURNS = 2
TRIES = 10


def measure(server_command: Sequence[str], plan: Plan, results: Results) -> None:
    """Adds the requests per second of each number of instances and each kind of body, per round."""
    for number in range(plan.rounds):
        names = list(COUNTS) if number % 2 == 0 else list(reversed(COUNTS))
        try:
            results.add(WORK, rates(server_command, names, plan))
        except (ServerFailedError, RuntimeError) as error:
            results.fail(WORK, "penstock", str(error))
            return


def rates(server_command: Sequence[str], names: Sequence[str], plan: Plan) -> dict[str, float]:
    """One life of both servers, each kind of load on one after the other."""
    npy, json = models.npy_path(plan.directory, MODEL), models.body_path(plan.directory, MODEL)
    expected = models.expected_path(plan.directory, MODEL)
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(launched(server_command, name, plan))) for name in names}
        for name, server in servers.items():
            server.wait_for_answer(npy.read_bytes())
            check(server, npy, expected)
            warm_up(server, npy, COUNTS[name], plan)
        turns = [{name: asked_npy(server, npy, CONNECTIONS, plan) for name, server in servers.items()} for _ in range(TURNS)]
        figures |= {f"{name}_npy_rate": statistics.mean(turn[name] for turn in turns) for name in names}
        for connections in FEWER_AND_MORE:
            for name, server in servers.items():
                figures[f"{name}_npy_{connections}_rate"] = asked_npy(server, npy, connections, plan)
        for name, server in servers.items():
            url = server.launch.at(f"/v1/models/{MODEL}:predict")
            figures[f"{name}_json_rate"] = errorless(load.drive(url, json, CONNECTIONS, plan.seconds))
            check(server, npy, expected)
    return figures


def launched(server_command: Sequence[str], name: str, plan: Plan) -> Launch:
    port = free_port()
    options = ["--intra-op", "1", "--instances", str(COUNTS[name]), "--port", str(port)]
    return Launch([*server_command, "serve", str(plan.directory / MODEL), *options], port, "/invocations", content_type=NPY)


def asked_npy(server: Running, body: Path, connections: int, plan: Plan) -> float:
    return errorless(load.drive(server.launch.url, body, connections, plan.seconds, NPY))


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
