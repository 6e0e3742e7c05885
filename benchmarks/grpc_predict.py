"""Unary Predict of the perceptron, one row, 4 connections of 16 streams each, against grpcio's asyncio server."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import calls, messages, models
from benchmarks.load import Sample
from benchmarks.results import Results
from benchmarks.servers import GATEWAYS, PENSTOCK, Contender, Launch, Running, ServerFailedError, running
from benchmarks.throughput import TOLERANCE, Plan, describe

WORK = "grpc-predict"
MODEL = "perceptron"
CONNECTIONS = 4
STREAMS = 16

GrpcLauncher = Callable[[Contender, str], Launch]


def row(directory: Path, model: str = MODEL) -> messages.Floats:
    """What the REST works post, as an array."""
    return np.asarray(json.loads(models.body_path(directory, model).read_text())["instances"], np.float32)


def answer(directory: Path, model: str = MODEL) -> messages.Floats:
    """What TensorFlow itself answers to it."""
    return np.asarray(json.loads(models.expected_path(directory, model).read_text())["predictions"], np.float32)


def measure(peers: Sequence[Contender], launch: GrpcLauncher, plan: Plan, results: Results) -> None:
    """Adds a sample per contender and round, the contenders in turn."""
    call = messages.predict(MODEL, row(plan.directory), as_content=False)
    expected = answer(plan.directory)
    with tempfile.TemporaryDirectory() as folder:
        body = call.write(Path(folder) / "predict")
        for number in range(plan.rounds):
            for contender in (PENSTOCK, *peers):
                if contender.name in results.failures.get(WORK, {}):
                    continue
                print(f"{WORK}, round {number + 1} of {plan.rounds}: {contender.title}", flush=True)
                try:
                    with running(launch(contender, MODEL)) as server:
                        calls.wait_for_answer(server, call)
                        if contender is PENSTOCK:
                            require_gateways(server)
                        sample = visit(server, call, body, expected, plan)
                except (ServerFailedError, RuntimeError) as error:
                    results.fail(WORK, contender.name, str(error))
                    continue
                results.samples.setdefault(WORK, {}).setdefault(contender.name, []).append(sample)
                print(f"  {WORK}: {describe(sample)}", flush=True)


def require_gateways(server: Running) -> None:
    """The peer with as many processes as we have gateways would otherwise be another. Raises ServerFailedError."""
    titles = [" ".join(each.cmdline()) for each in server.processes()]
    found = sum(title.startswith("penstock: gateway") for title in titles)
    if found != GATEWAYS:
        raise ServerFailedError(f"{found} gateways instead of {GATEWAYS}")


def visit(
    server: Running,
    call: messages.Call,
    body: Path,
    expected: messages.Floats,
    plan: Plan,
    *,
    connections: int = CONNECTIONS,
    streams: int = STREAMS,
) -> Sample:
    """One life of one server: its answers checked before and after, and what a call costs its processes."""
    url = server.launch.at(call.method)
    size = calls.check(server, call, expected, TOLERANCE)
    calls.drive(url, body, size, connections, streams, plan.warm_up_s)
    before = server.cpu_s()
    sample = calls.drive(url, body, size, connections, streams, plan.seconds)
    cpu_s = server.cpu_s() - before
    calls.check(server, call, expected, TOLERANCE)
    return dataclasses.replace(sample, cpu_us=cpu_s / sample.requests * 1e6)
