"""Unique memory (USS) of one more gateway and one more host, after both models have served; and FastAPI's.

Assumes the titles that Penstock gives its processes: `penstock: gateway N` and `penstock: host NAME/VERSION`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks import load, models
from benchmarks.results import Results
from benchmarks.servers import Contender, Launch, Running, ServerFailedError, free_port, running
from benchmarks.throughput import Launcher, Plan

MODEL = "half_plus_two"
CONNECTIONS = 16
KINDS = ("supervisor", "zygote", "gateway", "host")


def measure(server_command: Sequence[str], peers: Sequence[Contender], launch: Launcher, plan: Plan, results: Results) -> None:
    """Sets the megabytes of our kinds of processes, and of the workers of peers that have workers."""
    body = models.body_path(plan.directory, MODEL)
    try:
        results.unique_mb.update(penstock_mb(server_command, plan, body))
    except (ServerFailedError, RuntimeError) as error:
        results.fail("memory", "penstock", str(error))
    try:
        for peer in peers:
            results.unique_mb[f"{peer.name} worker"] = worker_mb(launch(peer, MODEL), plan, body)
    except (ServerFailedError, RuntimeError) as error:
        results.fail("memory", peer.name, str(error))
    for kind, sizes in results.unique_mb.items():
        print(f"memory: {kind} {', '.join(f'{size:.1f}' for size in sizes)} MB", flush=True)


def penstock_mb(server_command: Sequence[str], plan: Plan, body: Path) -> dict[str, list[float]]:
    """Two gateways and two hosts of one model under two names, each after some seconds of work."""
    port = free_port()
    path = plan.directory / MODEL
    argv = [*server_command, "serve", "--model", f"a={path}", "--model", f"b={path}", "--gateways", "2"]
    first = Launch([*argv, "--port", str(port)], port, "/v1/models/a:predict")
    second = dataclasses.replace(first, path="/v1/models/b:predict")
    with running(first) as server:
        server.wait_for_answer(body.read_bytes())
        for each in (first, second):
            load.drive(each.url, body, CONNECTIONS, plan.warm_up_s)
        titled = sorted((" ".join(each.cmdline()).strip(), unique_mb(each)) for each in server.processes())
    sizes = {kind: [size for title, size in titled if title.startswith(f"penstock: {kind}")] for kind in KINDS}
    if not sizes["gateway"] or not sizes["host"]:
        raise ServerFailedError(f"no titled gateways and hosts among its processes: {[title for title, _ in titled]}")
    return sizes


def worker_mb(launch: Launch, plan: Plan, body: Path) -> list[float]:
    """The two largest processes of a peer with two workers."""
    with running(launch) as server:
        server.wait_for_answer(body.read_bytes())
        load.drive(launch.url, body, CONNECTIONS, plan.warm_up_s)
        return sorted(tree_mb(server))[-2:]


def tree_mb(server: Running) -> list[float]:
    return [unique_mb(each) for each in server.processes()]


def unique_mb(process: psutil.Process) -> float:
    """Megabytes (10^6) that would be free if this process ended."""
    return float(process.memory_full_info().uss) / 1e6
